"""A simulated gateway and a Redis, and an environment whose settings lead there and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions

SYMBOLS = ("AAPL", "MSFT", "SPY", "QQQ")
FEED = dg.AssetKey(["raw", "ibkr", "depth", "feed"])


@pytest.fixture
def gateway() -> Iterator[GatewayThread]:
    """Three slots and lively books."""
    with GatewayThread(GatewayOptions(rows_per_second=100)) as running:
        yield running


@pytest.fixture
def universe_file(tmp_path: Path) -> Path:
    """Four symbols: one more than there are slots."""
    path = tmp_path / "ibkr_symbols.yaml"
    path.write_text(json.dumps({"symbols": list(SYMBOLS)}))
    return path


@pytest.fixture
def environment(
    gateway: GatewayThread, shared_redis_url: str, universe_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, str]:
    """The settings in force: nothing of the machine's own environment or of a `.env` gets in between."""
    settings = {
        "IBKR_HOST": gateway.host,
        "IBKR_PORT": str(gateway.port),
        "REDIS_URL": shared_redis_url,
        "SYMBOL_CONFIG_PATH": str(universe_file),
        "IBKR_ROTATION_SECS": "0.5",
        "IBKR_LOG_LEVEL": "INFO",
    }
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def unused_port() -> int:
    """A loopback port that nobody listens on."""
    return free_port()
