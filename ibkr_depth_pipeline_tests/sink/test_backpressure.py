"""When reading rests, and that it never waits for a Redis that is slow or away."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
import redis.asyncio as redis

from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.sink import backpressure
from ibkr_depth_pipeline.sink.backpressure import LONGEST_REST_SECS, Backpressure
from ibkr_depth_pipeline_tests.end_to_end.recording import universe_of
from ibkr_depth_pipeline_tests.sink.writing import eventually, snapshots, writing

BOUND = 400
BUFFER_BYTES = 1 << 17


def client_of(url: str) -> Any:
    return blocking.Redis.from_url(url)


class Reading:
    """What is throttled."""

    def __init__(self, bound: int = BOUND) -> None:
        self.rests = False
        self.times = 0
        self.backpressure = Backpressure(bound, self.rest, self.go_on)

    def rest(self) -> None:
        self.rests = True
        self.times += 1

    def go_on(self) -> None:
        self.rests = False


class LoopClock:
    """The time of a test's event loop, which stands still until it is moved: no pause of the machine counts."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    clock = LoopClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@pytest.mark.usefixtures("clock")
async def test_reading_rests_above_half_the_bound_until_a_quarter_is_left() -> None:
    reading = Reading()
    reading.backpressure.flushed(0.01, True, 150)
    reading.backpressure.pressed()
    reading.backpressure.pressed()
    assert (reading.rests, reading.times) == (True, 1)
    reading.backpressure.flushed(0.01, True, 150)
    assert reading.rests
    reading.backpressure.flushed(0.01, True, 100)
    assert not reading.rests


@pytest.mark.usefixtures("clock")
async def test_reading_does_not_rest_before_redis_has_answered_or_where_it_is_slow() -> None:
    reading = Reading()
    reading.backpressure.pressed()
    reading.backpressure.flushed(2 * LONGEST_REST_SECS, True, 300)
    reading.backpressure.pressed()
    assert reading.times == 0


async def test_reading_goes_on_by_itself_where_redis_does_not_answer_any_more(clock: LoopClock) -> None:
    reading = Reading()
    reading.backpressure.flushed(0.01, True, 300)
    reading.backpressure.pressed()
    await asyncio.sleep(0)
    assert reading.rests
    clock.now += LONGEST_REST_SECS
    while reading.rests:  # noqa: ASYNC110 - the test's own timeout bounds it
        await asyncio.sleep(0)
    reading.backpressure.pressed()
    assert reading.times == 1


@pytest.mark.usefixtures("clock")
async def test_reading_does_not_rest_for_a_redis_that_refuses() -> None:
    reading = Reading()
    reading.backpressure.flushed(0.01, False, 300)
    reading.backpressure.pressed()
    assert reading.times == 0


async def test_pause_of_reading_ends_if_redis_refuses_again_and_again(clock: LoopClock) -> None:
    reading = Reading()
    reading.backpressure.flushed(0.01, True, 300)
    reading.backpressure.pressed()
    assert reading.rests
    while reading.rests:
        reading.backpressure.flushed(0.01, False, 300)
        clock.now += LONGEST_REST_SECS / 8
        for _ in range(2):  # so that a timer that is due gets its turn before the next answer
            await asyncio.sleep(0)
    reading.backpressure.pressed()
    assert reading.times == 1


async def test_symbol_that_cannot_be_stored_pauses_reading_for_no_other(shared_redis_url: str) -> None:
    reading = Reading(bound=BUFFER_BYTES)
    async with writing(shared_redis_url, buffer_bytes=BUFFER_BYTES, backpressure=reading.backpressure) as writer:
        with client_of(shared_redis_url) as client:
            client.set(stream_key("SPY"), "of another type")
        bad = snapshots("SPY", count=1000)
        writer.append(next(bad))
        while not writer.figures.write_failures:  # noqa: ASYNC110 - the test's own timeout bounds it
            await asyncio.sleep(0.01)
        for number, snapshot in enumerate(snapshots("QQQ", count=50, ts=1_800_000_000_000), 1):
            for each in itertools.islice(bad, 20):
                writer.append(each)
            writer.append(snapshot)
            while writer.figures.stored.get("QQQ", 0) < number:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert writer.figures.buffered_bytes > reading.backpressure.high
    assert reading.times == 0


async def test_burst_far_larger_than_the_buffer_is_stored_row_by_row(
    shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backpressure, "LONGEST_REST_SECS", 30.0)  # on a busy machine Redis answers late, and is well
    rows = 30_000
    async with SimulatedGateway() as gateway, redis.Redis.from_url(shared_redis_url) as client:
        settings = load_settings(
            ibkr_host=gateway.host,
            ibkr_port=gateway.port,
            redis_url=shared_redis_url,
            ibkr_stream_maxlen=1_000_000,
            ibkr_buffer_bytes=4 << 20,
            symbol_config_path=Path("unused.yaml"),
        )
        session = IngestSession(settings, universe_of("SPY"))
        running = asyncio.ensure_future(session.run())

        async def stored(least: int) -> bool:
            return running.done() or await client.xlen(stream_key("SPY")) >= least

        await eventually(lambda: stored(1))
        await gateway.burst("SPY", rows)
        await eventually(lambda: stored(rows))
        session.stop()
        summary = await running
        numbers = [int(fields[b"seq"]) for _, fields in await client.xrange(stream_key("SPY"))]
    assert summary.snapshots == summary.rows
    assert (numbers == list(range(1, summary.rows["SPY"] + 1))) is True, "without a word for each of them"
