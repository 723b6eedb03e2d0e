"""Intervals of subscriptions when processes are killed or frozen, and when Redis or the gateway is away."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import redis

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, decode_interval, interval_of_entry
from ibkr_depth_pipeline.schema.keys import open_turn_hash, stream_key, turns_stream
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.end_to_end.observed import assert_holds, assert_numbered, assert_sent, lines_of
from ibkr_depth_pipeline_tests.faults.ingest_process import environment_of, grows, ingest_process


def ended(client: redis.Redis, symbol: str) -> list[SubscriptionInterval]:
    """The ended intervals of `symbol`."""
    return [interval_of_entry(symbol, entry) for entry in client.xrange(turns_stream(symbol))]


def opened(client: redis.Redis, symbol: str) -> SubscriptionInterval | None:
    """The open interval of `symbol`."""
    fields = client.hgetall(open_turn_hash(symbol))
    return decode_interval(symbol, fields) if fields else None


def ids(client: redis.Redis, symbol: str) -> list[tuple[int, int]]:
    """ts and seq of each stored snapshot."""
    parts = [stream_id.decode().split("-") for stream_id, _ in client.xrange(stream_key(symbol))]
    return [(int(ts), int(seq)) for ts, seq in parts]


def assert_true(client: redis.Redis, gateway: GatewayThread, *symbols: str) -> None:
    """What is stored equals what the gateway's journal says of each request."""
    lines = lines_of(gateway.journal.entries())
    for symbol in symbols:
        intervals = ended(client, symbol)
        assert_numbered(intervals)
        assert_holds(intervals, ids(client, symbol))
        for interval, line in zip(intervals, [line for line in lines if line.symbol == symbol], strict=True):
            assert_sent(interval, line)


def test_open_intervals_of_a_killed_run_are_closed_at_the_last_stored_row(
    tmp_path: Path, shared_redis_url: str
) -> None:
    with (
        GatewayThread(GatewayOptions(rows_per_second=300)) as gateway,
        redis.Redis.from_url(shared_redis_url) as client,
    ):
        environment = environment_of(tmp_path, gateway.port, shared_redis_url, "SPY", "QQQ")
        with ingest_process(tmp_path, "first", environment) as first:
            for symbol in ("SPY", "QQQ"):
                grows(shared_redis_url, symbol, 50)
            first.kill()
        left = {symbol: opened(client, symbol) for symbol in ("SPY", "QQQ")}
        last = {symbol: ids(client, symbol)[-1] for symbol in ("SPY", "QQQ")}
        with ingest_process(tmp_path, "second", environment) as second:
            for symbol in ("SPY", "QQQ"):
                grows(shared_redis_url, symbol, 20)
            second.process.send(signal.SIGTERM)
            assert second.ended() == 0
        for symbol in ("SPY", "QQQ"):
            lost, stopped = ended(client, symbol)
            assert left[symbol] is not None
            assert lost.requested == left[symbol].requested
            assert (lost.until, lost.last_seq) == last[symbol]
            assert [lost.end, stopped.end] == [EndReason.PROCESS_LOST, EndReason.STOPPED]
            assert opened(client, symbol) is None
        assert_true(client, gateway, "SPY", "QQQ")


@pytest.mark.faults
def test_run_that_is_killed_again_and_again_leaves_no_snapshot_without_its_interval(
    tmp_path: Path, shared_redis_url: str
) -> None:
    chance = random.Random(13)
    gateway, client = GatewayThread(GatewayOptions(rows_per_second=500)), redis.Redis.from_url(shared_redis_url)
    symbols = ("SPY", "QQQ", "IWM")
    fast = {"IBKR_ROTATION_SECS": 0.4, "IBKR_MAX_CONCURRENT_DEPTH": 2}
    with gateway, client:
        environment = environment_of(tmp_path, gateway.port, shared_redis_url, *symbols, **fast)
        for number in range(10):
            with ingest_process(tmp_path, f"run{number}", environment) as run:
                grows(shared_redis_url, "SPY", chance.randint(1, 400))
                run.kill()
        with ingest_process(tmp_path, "last", environment) as run:
            grows(shared_redis_url, "SPY", 50)
            run.process.send(signal.SIGTERM)
            assert run.ended() == 0
        lost = 0
        for symbol in symbols:
            intervals = ended(client, symbol)
            assert_numbered(intervals)
            assert_holds(intervals, ids(client, symbol))
            assert opened(client, symbol) is None
            lost += sum(each.end is EndReason.PROCESS_LOST for each in intervals)
        assert lost >= 10


def test_run_that_was_frozen_adds_nothing_to_the_intervals_of_its_successor(
    tmp_path: Path, shared_redis_url: str
) -> None:
    with (
        GatewayThread(GatewayOptions(rows_per_second=300)) as gateway,
        redis.Redis.from_url(shared_redis_url) as client,
    ):
        environment = environment_of(tmp_path, gateway.port, shared_redis_url, "SPY", IBKR_LEASE_WAIT_SECS=60)
        with ingest_process(tmp_path, "first", environment) as first:
            grows(shared_redis_url, "SPY", 50)
            first.process.send(signal.SIGSTOP)
            with ingest_process(tmp_path, "second", environment) as second:
                grows(shared_redis_url, "SPY", 50)
                first.process.send(signal.SIGCONT)
                assert first.ended() != 0
                grows(shared_redis_url, "SPY", 50)
                second.process.send(signal.SIGTERM)
                assert second.ended() == 0
        lost, stopped = ended(client, "SPY")
        assert [lost.end, stopped.end] == [EndReason.PROCESS_LOST, EndReason.STOPPED]
        assert wait_until(lambda: opened(client, "SPY") is None, PATIENCE_SECS)
        assert_numbered([lost, stopped])
        assert_holds([lost, stopped], ids(client, "SPY"))
