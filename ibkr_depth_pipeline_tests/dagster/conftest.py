"""A simulated gateway and a Redis, and an environment whose settings lead there and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import exchange_calendars  # noqa: F401 - so that no process of its own is started for each day that is asked for
import pytest

from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline.hours.trading import TradingHours
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
        "IBKR_AUTOMATION": "off",
        "IBKR_STOP_AT_CLOSE": "false",
    }
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def unused_port() -> int:
    """A loopback port that nobody listens on."""
    return free_port()


def execute(
    instance: dg.DagsterInstance, *, resources: dict[str, Any] | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    """Run the ingest job in this process. What fails does not raise."""
    job = defs.resolve_job_def("ibkr_depth_ingest_job")
    run_config = {"ops": {"ibkr_depth_feed": {"config": config}}, "resources": resources or {}}
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The text of the one step that failed."""
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    assert error is not None
    return error.message


def closed_now() -> str:
    """The calendar of an exchange that is closed at this moment: New York and Tokyo never trade together."""
    now = datetime.now(timezone.utc)
    return next(name for name in ("XNYS", "XTKS") if _is_far_from_open(TradingHours(name, now), now))


def _is_far_from_open(hours: TradingHours, now: datetime) -> bool:
    return hours.session_at(now) is None and hours.next_session(now).open - now > timedelta(minutes=30)
