"""A recorder's clock that is set, or is behind the streams: named, kept beside the snapshots, and no age is wrong."""

from __future__ import annotations

import io
import itertools
import time

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from ibkr_depth_pipeline.cli.status_table import render_status
from ibkr_depth_pipeline.ingest.checklist import Verdict, run_checklist
from ibkr_depth_pipeline.monitoring.diagnosis import Cause, feed_cause
from ibkr_depth_pipeline.schema.health import HealthReport
from ibkr_depth_pipeline.schema.keys import clock_key, heartbeat_key, last_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, settings_for, universe_of

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS


class SettableClock:
    """A host's clock that a test sets."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


async def figures_show(run: Recording, url: str, condition) -> HealthReport:  # type: ignore[no-untyped-def]
    async def holds() -> bool:
        report = await read_health(url, "default", ("SPY",))
        return report.feed.figures is not None and condition(report.feed.figures.clock)

    await run.until(holds)
    return await read_health(url, "default", ("SPY",))


@pytest.mark.parametrize("step_ms", [-HOUR_MS, HOUR_MS, -2_500])
async def test_step_is_one_loud_event_and_no_age_is_wrong(shared_redis_url: str, step_ms: int) -> None:
    clock = SettableClock()
    async with SimulatedGateway(GatewayOptions(rows_per_second=50)) as gateway:
        with capture_logs() as lines:
            async with recording(gateway, shared_redis_url, universe_of("SPY"), wall_ms=clock) as run:
                await run.grows("SPY", 20)
                clock.ahead_ms += step_ms
                report = await figures_show(run, shared_redis_url, lambda seen: seen.steps)
                await run.grows("SPY", 50)
                steps = [line for line in lines if line["event"] == "clock_step"]
                assert [(line["log_level"], round(line["secs"], 1)) for line in steps] == [("error", step_ms / 1000)]
                assert feed_cause(report) is Cause.CLOCK
                assert report.feed.figures is not None
                assert abs(report.feed.figures.clock.step_ms - step_ms) < 500
                spy = report.symbols[0]
                assert spy.age_secs is not None
                assert spy.age_secs < 60
                assert spy.figures.live_ms < 60_000
                assert 0 < report.feed.figures.run_ms < 60_000
                assert 0 < await run.redis.pttl(heartbeat_key("SPY")) <= 30_000
                stored = [snapshot.ts for snapshot in await run.stream("SPY")]
                assert stored == sorted(stored)
                ((_, entry),) = await run.redis.xrange(clock_key("default"))
                assert abs(int(entry[b"step_ms"]) - step_ms) < 500
                assert (int(entry[b"stands_until"]) > int(entry[b"at"])) == (step_ms < 0)
                if step_ms == -HOUR_MS:
                    assert stored[-1] == int(entry[b"stands_until"])
                    assert report.feed.figures.clock.ts_ahead_ms > HOUR_MS / 2
    assert "was set by" in _printed(report)


async def test_stream_id_a_year_ahead_is_named_at_the_start_in_check_and_in_status_and_can_be_mended(
    shared_redis_url: str,
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=50)) as gateway:
        ahead = SettableClock()
        ahead.ahead_ms = YEAR_MS
        # the gateway lists no hours that far ahead, so that the calendar would decide
        anytime = {"ibkr_calendar": "24/7"}
        async with recording(gateway, shared_redis_url, universe_of("SPY"), wall_ms=ahead, **anytime) as run:
            await run.grows("SPY", 5)
        settings = settings_for(gateway, shared_redis_url, symbol_config_path="unused.yaml")
        found = [each for each in await run_checklist(settings, ("SPY",)) if each.subject == "stream ids"]
        assert [each.verdict for each in found] == [Verdict.WARN]
        with capture_logs() as lines:
            async with recording(gateway, shared_redis_url, universe_of("SPY")) as run:
                report = await figures_show(run, shared_redis_url, lambda seen: seen.ts_ahead_ms > YEAR_MS / 2)
                await run.grows("SPY", 5)
        (said,) = [line for line in lines if line["event"] == "streams_ahead"]
        assert said["symbols"] == ["SPY"]
        assert report.feed.figures is not None
        assert "ahead of the clock" in report.feed.figures.clock.problem
        async with recording(gateway, shared_redis_url, universe_of("QQQ")) as run:  # any client
            seq = await run.redis.hget(last_key("SPY"), "seq")
            now_ms = time.time_ns() // 1_000_000
            # docs/redis-schema.md, "Ids ahead of the clock"
            await run.redis.delete(stream_key("SPY"), heartbeat_key("SPY"))
            await run.redis.hset(last_key("SPY"), "ts", now_ms)
        async with recording(gateway, shared_redis_url, universe_of("SPY")) as run:
            await run.grows("SPY", 5)
            first = (await run.stream("SPY"))[0]
        assert (first.seq, first.ts - now_ms < 60_000) == (int(seq) + 1, True)


@pytest.mark.parametrize("offset_secs", [0, 90, -7])
async def test_how_far_the_gateways_clock_is_is_measured_and_shown(shared_redis_url: str, offset_secs: int) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=50, clock_offset=offset_secs)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), ibkr_stall_secs=2) as run:
            report = await figures_show(run, shared_redis_url, lambda seen: seen.gateway_ms is not None)
            assert report.feed.figures is not None
            clock = report.feed.figures.clock
            assert clock.gateway_ms is not None
            assert clock.gateway_error_ms is not None
            assert abs(clock.gateway_ms - 1000 * offset_secs) <= clock.gateway_error_ms + 50
            assert "gateway's clock" in _printed(report)
        settings = settings_for(gateway, shared_redis_url)
        findings = await run_checklist(settings, ("SPY",))
        assert [each.verdict for each in findings if each.subject == "clock"] == [Verdict.WARN] * bool(offset_secs)
        assert any("its clock is" in each.text for each in findings if each.subject == "gateway")


def _printed(report: HealthReport) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_status(report))
    return console.export_text()


async def test_rows_of_one_socket_read_have_the_time_of_that_read(shared_redis_url: str) -> None:
    calls = itertools.count()

    def clock() -> int:
        """Never the same twice."""
        return time.time_ns() // 1_000_000 + next(calls)

    async with SimulatedGateway(GatewayOptions(rows_per_second=50)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), wall_ms=clock) as run:
            await run.grows("SPY", 40)
            first_burst = (await run.stream("SPY"))[:10]
    assert len({snapshot.ts for snapshot in first_burst}) < len(first_burst)
