"""The age of a snapshot comes from a clock that never steps, within its resolution, and is never taken for less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.schema.keys import heartbeat_key
from ibkr_depth_pipeline.sink.arrivals import Arrivals
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, eventually, now_ms, reading, snapshots, writing

HOUR_MS = 3_600_000


@given(st.lists(st.floats(0, 3), min_size=1, max_size=400), st.data())
def test_arrival_is_never_dated_later_and_only_a_little_earlier(pauses: list[float], data: st.DataObject) -> None:
    arrivals, times, now = Arrivals(), [], 100.0
    for seq, pause in enumerate(pauses):
        now += pause
        times.append(now)
        arrivals.note(seq, now, alone=not seq)
    asked = data.draw(st.integers(0, len(times) - 1))
    found = arrivals.of(asked)
    assert found is not None
    assert found <= times[asked]
    assert times[asked] - found <= 0.002 + (now - times[0]) / 8


def test_arrival_of_a_lone_row_is_exact_whatever_waited_before() -> None:
    arrivals = Arrivals()
    for seq in range(10_000):
        arrivals.note(seq, seq / 10, alone=not seq)
    arrivals.forget_before(9_999)
    arrivals.note(10_000, 1000.0003, alone=True)
    assert arrivals.of(10_000) == 1000.0003
    assert arrivals.newest == 1000.0003


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS, 365 * 24 * HOUR_MS])
async def test_shrunk_batch_gives_no_longer_heartbeat_than_the_setting(shared_redis_url: str, ahead_ms: int) -> None:
    key = heartbeat_key("SPY")
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.heartbeat_ttl = 60
        writer.append(next(snapshots(ts=now_ms() + max(0, ahead_ms))))
        assert await writer.drain(DRAIN)
        await client.pexpire(key, 30_000)
        await writer.extend_heartbeats({"SPY": now_ms() + ahead_ms}, now_ms())
        assert 50_000 < await client.pttl(key) <= 60_000


async def test_symbol_without_a_row_of_this_run_gets_no_longer_heartbeat_than_the_setting(
    shared_redis_url: str,
) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.heartbeat_ttl = 60
        await client.set(heartbeat_key("SPY"), now_ms() + HOUR_MS, ex=30)
        await writer.extend_heartbeats({"SPY": now_ms() + HOUR_MS}, now_ms())
        assert 50_000 < await client.pttl(heartbeat_key("SPY")) <= 60_000


async def test_row_stored_too_late_gets_no_heartbeat_even_if_its_time_is_ahead_of_the_clock(
    shared_redis_url: str,
) -> None:
    stream = "raw:ibkr:depth:stream:SPY"
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.heartbeat_ttl = 1
        await client.set(stream, "of another type")  # it is not stored until this is gone
        writer.append(next(snapshots(ts=now_ms() + HOUR_MS)))  # as after a step back of an hour
        since = writer.queue("SPY").arrivals.newest
        assert since is not None

        async def is_late() -> bool:
            return monotonic() - since > 1.2

        await eventually(is_late)
        await client.delete(stream)
        assert await writer.drain(DRAIN)
        assert await client.exists(stream) == 1
        assert await client.exists(heartbeat_key("SPY")) == 0


async def test_lag_is_independent_of_the_wall_clock(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer:
        for snapshot in snapshots(count=5, ts=now_ms() + HOUR_MS):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        assert writer.figures.lags_ms
        assert all(0 <= lag < 60_000 for lag in writer.figures.lags_ms)
