"""`ibkr_ingest_run status`: honest at any time, from Redis alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.cli.ingest_run import app
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.schema.health import HealthReport, SymbolState, health_of
from ibkr_depth_pipeline.schema.keys import (
    heartbeat_key,
    ingest_heartbeat_key,
    ingest_key,
    last_key,
    stream_key,
    venue_key,
)
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.sink.status import StatusPublisher, read_health
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of
from ibkr_depth_pipeline_tests.faults.ingest_process import environment_of, ingest_process
from ibkr_depth_pipeline_tests.sink.writing import reading

RUN = RunIdentity("run-of-tests", "host", 7, 1_700_000_000_000)
RECORDED = {"SPY": SymbolFigures(snapshots=5), **dict.fromkeys(("QQQ", "NEW", "SPX", "ODD"), SymbolFigures())}
WELL = FeedFigures(RUN, 1_700_000_001_000, connected=True, symbols=RECORDED)


async def tell(url: str, figures: FeedFigures) -> None:
    async with reading(url) as client:
        await StatusPublisher(client, "default").publish(figures)


async def health(url: str, *symbols: str) -> HealthReport:
    return await read_health(url, "default", symbols)


# ---- the report


async def test_symbol_with_a_heartbeat_is_fresh_and_one_without_is_stale(shared_redis_url: str) -> None:
    await tell(shared_redis_url, WELL)
    async with reading(shared_redis_url) as client:
        for symbol in ("SPY", "QQQ"):
            await client.hset(last_key(symbol), mapping={"ts": 1_700_000_000_500, "venue": "ARCA", "seq": 1})
        await client.set(heartbeat_key("SPY"), 1_700_000_000_900, ex=3600)
    report = await health(shared_redis_url, "SPY", "QQQ")
    fresh, stale = report.symbols
    assert (fresh.state, fresh.last_row_ts, fresh.venue) == (SymbolState.FRESH, 1_700_000_000_900, "ARCA")
    assert fresh.age_secs == (report.ts - 1_700_000_000_900) / 1000
    assert 3000 < (fresh.heartbeat_ttl_secs or 0) <= 3600
    assert fresh.figures.snapshots == 5
    assert (stale.state, stale.heartbeat_ttl_secs) == (SymbolState.STALE, None)
    assert not report.is_well


async def test_symbol_never_recorded_is_missing_and_one_without_depth_is_unsupported(shared_redis_url: str) -> None:
    await tell(shared_redis_url, WELL)
    async with reading(shared_redis_url) as client:
        await client.hset(venue_key("SPX"), mapping={"depth_supported": 0, "reason": "no depth", "exchange": "CBOE"})
        await client.set(last_key("ODD"), "of another type")
    report = await health(shared_redis_url, "NEW", "SPX", "ODD")
    assert [each.state for each in report.symbols] == ["missing", "unsupported", "missing"]
    assert report.symbols[1].reason == "no depth"
    assert (await health(shared_redis_url, "SPX")).is_well, "nothing is to be expected of it"


async def test_heartbeat_that_holds_no_number_does_not_count_as_a_row(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await client.set(heartbeat_key("SPY"), b"\xff")
        await client.hset(last_key("SPY"), mapping={"ts": "yesterday", "venue": b"\xff"})
    (found,) = (await health(shared_redis_url, "SPY")).symbols
    assert (found.state, found.last_row_ts) == (SymbolState.MISSING, 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"connected": False}, "not connected to the gateway"),
        ({"suspended": True}, "the gateway has lost its connection to IBKR"),
        ({"ailments": (2103, 10197)}, "market data is troubled: 2103, 10197"),
    ],
)
async def test_running_feed_in_trouble_is_reported_as_unwell(
    shared_redis_url: str, change: dict[str, Any], problem: str
) -> None:
    await tell(shared_redis_url, replace(WELL, **change))
    report = await health(shared_redis_url)
    assert report.feed.running
    assert report.feed.problem == problem
    assert not report.is_well


async def test_ingest_that_ended_or_died_is_not_taken_for_a_running_one(shared_redis_url: str) -> None:
    await tell(shared_redis_url, WELL)
    async with reading(shared_redis_url) as client:
        assert 0 < await client.ttl(ingest_heartbeat_key("default")) <= 15
        assert await client.get(ingest_heartbeat_key("default")) == b"run-of-tests"
        await client.delete(ingest_heartbeat_key("default"))
    died = (await health(shared_redis_url)).feed
    await tell(shared_redis_url, replace(WELL, ended_ts=1_700_000_001_000))
    ended = (await health(shared_redis_url)).feed
    assert not died.running
    assert not ended.running
    assert "was last heard of 2023-11-14 22:13:21 UTC" in died.problem
    assert "run run-of-tests on host, pid 7, ended 2023-11-14 22:13:21 UTC" in ended.problem


async def test_figures_of_another_version_are_read_as_far_as_they_go(shared_redis_url: str) -> None:
    document = json.loads(WELL.to_json())
    document["unheard_of"] = 1
    del document["lag_p99_ms"]
    assert FeedFigures.of_json(json.dumps(document).encode()) == WELL
    assert FeedFigures.of_json(b"{}") is FeedFigures.of_json(b"\xff") is FeedFigures.of_json(None) is None


async def test_unreachable_redis_is_distinguished_from_an_absent_ingest() -> None:
    with pytest.raises(SinkUnavailable) as failure:
        await health("redis://:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in str(failure.value)


# ---- what a run tells


async def figures_where(run: Recording, holds: Callable[[FeedFigures], bool]) -> FeedFigures:
    """The first figures of the run that `holds` is true of."""
    found: list[FeedFigures] = []

    async def told() -> bool:
        try:
            figures = FeedFigures.of_json(await run.redis.get(ingest_key("default")))
        except redis.ConnectionError:  # it is being restarted
            return False
        if figures is not None and holds(figures):
            found.append(figures)
        return bool(found)

    await run.until(told)
    return found[0]


async def test_published_figures_agree_with_what_the_run_did(shared_redis_url: str) -> None:
    settings = {"ibkr_rotation_secs": 0.5, "ibkr_error309_cooldown_secs": 0.2}
    async with SimulatedGateway(GatewayOptions(slots=2)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ", "IWM", "NOSUCH"), **settings) as run:
            await run.grows("SPY", 50)
            gateway.malformed_rows(symbol="SPY")
            gateway.drop_connections()
            later = await figures_where(
                run, lambda told: told.reconnects == 1 and told.connected and told.refused_309 > 0
            )
            assert later.ended_ts == 0
            summary = await run.stop()
            last = FeedFigures.of_json(await run.redis.get(ingest_key("default")))
    assert last is not None
    assert last.ended_ts > 0
    assert {symbol: each.snapshots for symbol, each in last.symbols.items() if each.snapshots} == summary.snapshots
    assert sum(each.refused_309 for each in last.symbols.values()) == last.refused_309 == summary.refused_309 > 0
    assert {f"{s} {why}": n for s, each in last.symbols.items() for why, n in each.dropped.items()} == summary.dropped
    assert last.lag_p99_ms is not None
    assert last.symbols["SPY"].venue == "ARCA"
    assert last.buffer_bytes == last.lost == 0


async def test_lost_connection_is_published_without_waiting_for_the_next_report(
    shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibkr_depth_pipeline.ingest.figures.REPORT_SECS", 3600.0)
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY")) as run:
            await run.grows("SPY", 5)
            await figures_where(run, lambda figures: figures.connected)
            gateway.connectivity_lost()
            await figures_where(run, lambda figures: figures.suspended)
            gateway.connectivity_restored()
            await figures_where(run, lambda figures: not figures.suspended)
            gateway.refuse_connections()
            gateway.drop_connections()
            await figures_where(run, lambda figures: not figures.connected)


async def test_failed_writes_are_published_by_the_same_run_after_a_restart_of_redis(
    redis_server: EmbeddedRedis,
) -> None:
    async with SimulatedGateway() as gateway:
        async with recording(gateway, redis_server.url, universe_of("SPY")) as run:
            first = await figures_where(run, lambda told: told.connected)
            with capture_logs() as lines:
                redis_server.kill()

                async def has_failed() -> bool:
                    return any(line["event"] == "redis_write_failed" for line in lines)

                await run.until(has_failed)
            redis_server.start()
            later = await figures_where(run, lambda told: told.write_failures > 0)
    assert later.run == first.run


# ---- the command


def status(monkeypatch: pytest.MonkeyPatch, url: str, folder: Path, *arguments: str) -> Result:
    universe = folder / "symbols.yaml"
    universe.write_text("symbols: [SPY, QQQ]\n")
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("SYMBOL_CONFIG_PATH", str(universe))
    monkeypatch.setenv("COLUMNS", "80")
    return CliRunner().invoke(app, ["status", *arguments])


def test_status_without_an_ingest_exits_with_1_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, shared_redis_url: str, tmp_path: Path
) -> None:
    shown = status(monkeypatch, shared_redis_url, tmp_path)
    assert shown.exit_code == 1
    assert "no ingest runs, and none has left figures" in shown.output


def test_status_without_redis_exits_with_1_and_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = status(monkeypatch, "redis://:hunter2@127.0.0.1:1/0", tmp_path)
    assert shown.exit_code == 1
    assert "error: Redis at redis://:***@127.0.0.1:1/0: " in shown.output
    assert "no ingest" not in shown.output


def test_status_exits_with_0_beside_a_healthy_run_and_with_1_after_its_kill(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path: Path
) -> None:
    with GatewayThread(GatewayOptions(keep_rows=False)) as gateway, redis.Redis.from_url(redis_url) as client:
        env = environment_of(tmp_path, gateway.port, redis_url, "SPY", "QQQ")
        with ingest_process(tmp_path, "run", env) as run:

            def well() -> bool:
                return status(monkeypatch, redis_url, tmp_path).exit_code == 0

            assert wait_until(well, PATIENCE_SECS), status(monkeypatch, redis_url, tmp_path).output
            table = status(monkeypatch, redis_url, tmp_path).output
            document = json.loads(status(monkeypatch, redis_url, tmp_path, "--json").output)
            run.kill()
        assert client.xlen(stream_key("SPY"))
        assert max(map(len, table.splitlines())) <= 80
        assert "ingest default: running" in table
        assert document["well"] is True
        assert document["feed"]["figures"]["run"]["pid"] == run.pid
        assert [(each["symbol"], each["state"]) for each in document["symbols"]] == [("SPY", "fresh"), ("QQQ", "fresh")]
        client.delete(ingest_heartbeat_key("default"), heartbeat_key("SPY"))  # what time does
        shown = status(monkeypatch, redis_url, tmp_path)
        assert shown.exit_code == 1
        assert "was last heard of" in " ".join(shown.output.split())
        assert "stale" in shown.output


@pytest.mark.parametrize("clock_ahead_ms", [-3_600_000, 0, 3_600_000])
def test_age_of_a_row_is_right_whatever_the_clocks_show(clock_ahead_ms: int) -> None:
    now = 1_700_000_000_000
    told = FeedFigures(RUN, now, connected=True, symbols={"SPY": SymbolFigures(last_row_ts=now, row_age_ms=4_000)})
    replies = [told.to_json(), 14_000, 20_000, b"%d" % now, (b"%d" % now, b"ARCA"), (None, None, None)]
    (found,) = health_of("default", ("SPY",), replies, now + clock_ahead_ms).symbols
    assert found.age_secs == 5.0
