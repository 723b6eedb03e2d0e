"""The checklist, the probe, the facts and two minutes of recording against the gateway and the Redis of the settings.

Run it with `make test-live`. It writes to that Redis what any run of the recorder writes.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import redis

from ibkr_depth_pipeline.gateway_facts import read_facts
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key, venue_key
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.universe import load_universe

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

RECORD_SECS = 120
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings()


@pytest.fixture(scope="module")
def symbols(settings: Settings) -> tuple[str, ...]:
    return load_universe(settings.symbol_config_path).symbols


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPTS / name, *arguments], capture_output=True, text=True, check=False)


def test_checklist_passes_at_the_real_gateway() -> None:
    done = run_script("ibkr_ingest_run", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_probe_finds_depth_for_every_symbol() -> None:
    done = run_script("ibkr_depth_probe", "--all", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_recording_of_two_minutes_stores_every_symbol_without_a_gap(
    settings: Settings, symbols: tuple[str, ...]
) -> None:
    turns = math.ceil(len(symbols) / settings.ibkr_max_concurrent_depth)
    with redis.Redis.from_url(settings.redis_url) as client:
        before = {symbol: int(client.hget(last_key(symbol), "seq") or 0) for symbol in symbols}
        done = run_script("ibkr_ingest_run", "run", "--duration", str(RECORD_SECS))
        assert done.returncode == 0, done.stdout + done.stderr
        recorded = [symbol for symbol in symbols if client.hget(venue_key(symbol), "depth_supported") == b"1"]
        assert recorded, "the gateway has depth for none of the symbols"
        had_a_turn = recorded if turns * settings.ibkr_rotation_secs < RECORD_SECS else recorded[:1]
        for symbol in had_a_turn:
            entries = client.xrange(stream_key(symbol))
            numbers = [int(fields[b"seq"]) for _, fields in entries]
            assert numbers[-1] > before[symbol], f"nothing was recorded of {symbol}"
            assert numbers == list(range(numbers[0], numbers[-1] + 1)), f"a gap in the stream of {symbol}"
            assert all(len(orjson.loads(fields[side])) == 10 for _, fields in entries for side in (b"bids", b"asks"))
            assert int(client.hget(last_key(symbol), "seq")) == numbers[-1]
        assert any(client.exists(heartbeat_key(symbol)) for symbol in had_a_turn)


def test_each_fact_of_the_real_gateway_is_seen_or_has_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "facts.json"
    done = run_script("ibkr_gateway_facts", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_facts(out)
    assert all(bool(entry.reason) == (entry.seen_ts is None) for entry in found.facts.values())
    assert not found.ended_early
