"""The writer against real Redis servers that are cut off, killed, full, and written to by others."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import redis
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.errors import SinkConflict
from ibkr_depth_pipeline.logs import EQUAL_LINES_PER_WINDOW, LINES_PER_WINDOW
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.schema.keys import (
    StreamId,
    contract_changes_key,
    heartbeat_key,
    last_key,
    stream_key,
    venue_key,
)
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline_tests.sink.writing import (
    DRAIN,
    BookSnapshot,
    SnapshotWriter,
    eventually,
    now_ms,
    numbers,
    reading,
    snapshots,
    writing,
)


async def test_every_snapshot_is_in_the_stream_once_and_in_order(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        for snapshot in snapshots(count=3000):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        assert await numbers(client) == list(range(1, 3001))


async def test_drain_waits_for_what_comes_in_the_moment_in_which_nothing_is_left(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer:
        more = snapshots(count=80)
        for turns in range(40):
            writer.append(next(more))
            draining = asyncio.ensure_future(writer.drain(DRAIN))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            writer.append(next(more))
            assert await draining


async def test_stream_entry_holds_ts_bids_asks_seq_and_venue(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.append(next(snapshots()))
        assert await writer.drain(DRAIN)
        ((stream_id, fields),) = await client.xrange(stream_key("SPY"))
    assert stream_id == b"1700000000000-1"
    assert sorted(fields) == [b"asks", b"bids", b"seq", b"ts", b"venue"]
    assert (fields[b"ts"], fields[b"seq"], fields[b"venue"]) == (b"1700000000000", b"1", b"ARCA")
    assert orjson.loads(fields[b"bids"]) == [[1.0, 100.0, "ARCA"]] + [[0.0, 0.0, ""]] * 9
    assert orjson.loads(fields[b"asks"]) == [[2.5, 300.0, "NSDQ"]] + [[0.0, 0.0, ""]] * 9


async def test_last_value_hash_holds_the_newest_snapshot_and_the_heartbeat_its_time(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.heartbeat_ttl = 77
        now = now_ms()
        for snapshot in snapshots(count=50, ts=now):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        last = await client.hgetall(last_key("SPY"))
        ttl = await client.ttl(heartbeat_key("SPY"))
        beat = await client.get(heartbeat_key("SPY"))
    assert sorted(last) == [b"ask0", b"asks_json", b"bid0", b"bids_json", b"seq", b"ts", b"venue"]
    assert (last[b"seq"], float(last[b"bid0"]), float(last[b"ask0"])) == (b"50", 50.0, 2.5)
    assert orjson.loads(last[b"bids_json"])[0] == [50.0, 100.0, "ARCA"]
    assert last[b"ts"] == beat == b"%d" % (now + 50 // 3)
    assert 0 < ttl <= 77


async def test_empty_book_is_stored_with_zero_prices_and_sets_no_heartbeat(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.append(BookSnapshot("SPY", 1, 1_700_000_000_000, "ARCA", (), ()))
        assert await writer.drain(DRAIN)
        last = await client.hgetall(last_key("SPY"))
        assert (float(last[b"bid0"]), float(last[b"ask0"])) == (0.0, 0.0)
        assert await client.exists(heartbeat_key("SPY")) == 0


async def test_stream_is_trimmed_to_about_maxlen(shared_redis_url: str) -> None:
    async with writing(shared_redis_url, maxlen=500) as writer, reading(shared_redis_url) as client:
        for snapshot in snapshots(count=3000):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        assert 500 <= await client.xlen(stream_key("SPY")) < 700  # whole nodes of 100 entries go
        assert (await numbers(client))[-1] == 3000


async def test_numbering_goes_on_where_redis_stands(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        for snapshot in snapshots(count=20):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        assert await writer.take_over(["SPY", "QQQ"], 0) == {
            "SPY": StreamId(1_700_000_000_006, 20),
            "QQQ": StreamId(0, 0),
        }
        await client.delete(last_key("SPY"))
        await client.xtrim(stream_key("SPY"), maxlen=0, approximate=False)
        assert (await writer.take_over(["SPY"], 0))["SPY"].seq == 20, "an emptied stream still knows its last id"


async def test_connections_cut_in_the_middle_of_pipelines_lose_and_double_nothing(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        upcoming = snapshots(count=30_000)
        while batch := list(itertools.islice(upcoming, 1500)):
            stored = writer.figures.stored.get("SPY", 0)
            for snapshot in batch:
                writer.append(snapshot)

            async def some_more_are_out(before: int = stored) -> bool:
                return writer.figures.stored.get("SPY", 0) > before

            await eventually(some_more_are_out)
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await writer.drain(DRAIN)
        assert await numbers(client) == list(range(1, 30_001))
    assert writer.figures.write_failures > 3, "cut in the midst of it"


async def test_killed_redis_that_comes_back_with_its_data_gets_each_snapshot_once(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(persist=True, directory=tmp_path) as server:
        async with writing(server.url) as writer:
            stream = snapshots(count=20_000)
            for snapshot in itertools.islice(stream, 19_000):
                writer.append(snapshot)

            async def some_are_out() -> bool:
                return writer.figures.stored.get("SPY", 0) > 500

            await eventually(some_are_out)
            server.kill()
            assert writer.figures.stored["SPY"] < 19_000, "killed in the midst of it"
            for snapshot in stream:
                writer.append(snapshot)
            await asyncio.to_thread(server.start)
            assert await writer.drain(DRAIN)
            async with reading(server.url) as client:
                assert await numbers(client) == list(range(1, 20_001))


async def test_redis_that_comes_back_empty_gets_what_waited_and_the_numbering_goes_on(
    redis_server: EmbeddedRedis,
) -> None:
    async with writing(redis_server.url) as writer:
        for snapshot in snapshots(count=100):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        redis_server.kill()
        for snapshot in snapshots(count=100, first=101):
            writer.append(snapshot)
        await asyncio.to_thread(redis_server.start)
        assert await writer.drain(DRAIN)
        async with reading(redis_server.url) as client:
            assert await numbers(client) == list(range(101, 201))


async def test_redis_that_is_away_for_many_attempts_is_a_line_for_each_error_and_one_when_it_is_back(
    redis_server: EmbeddedRedis,
) -> None:
    with capture_logs() as lines:
        async with writing(redis_server.url) as writer:
            writer.append(next(snapshots()))
            assert await writer.drain(DRAIN)
            redis_server.kill()
            for snapshot in snapshots(count=10, first=2):
                writer.append(snapshot)

            async def failed_often() -> bool:
                return writer.figures.write_failures >= 6

            await eventually(failed_often)
            await asyncio.to_thread(redis_server.start)
            assert await writer.drain(DRAIN)
    *failed, back = [line for line in lines if line["event"] in {"redis_write_failed", "redis_back"}]
    assert (failed[0]["event"], failed[0]["failures"], failed[0]["waiting"]) == ("redis_write_failed", 1, 10)
    assert len({line["error"] for line in failed}) == len(failed) < writer.figures.write_failures
    assert (back["event"], back["failures"]) == ("redis_back", writer.figures.write_failures)


async def test_refusal_that_repeats_is_logged_as_often_as_other_equal_lines(shared_redis_url: str) -> None:
    with capture_logs() as lines:
        async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
            await client.set(stream_key("BAD"), "not a stream")
            writer.append(next(snapshots("BAD")))

            async def refused_often() -> bool:
                return writer.figures.write_failures > EQUAL_LINES_PER_WINDOW

            await eventually(refused_often)
    assert len([line for line in lines if line["event"] == "redis_write_failed"]) == EQUAL_LINES_PER_WINDOW


async def test_redis_out_of_memory_gets_each_snapshot_once_it_has_some_again(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url) as writer, reading(redis_server.url) as client:
        await client.config_set("maxmemory", "1")
        for snapshot in snapshots(count=500):
            writer.append(snapshot)

        async def refused() -> bool:
            return writer.figures.write_failures > 2

        await eventually(refused)
        assert await client.exists(last_key("SPY"), heartbeat_key("SPY")) == 0, "no later command after a failed one"
        await client.config_set("maxmemory", "0")
        assert await writer.drain(DRAIN)
        assert await numbers(client) == list(range(1, 501))


async def test_failing_key_of_one_symbol_holds_up_no_other(
    shared_redis_url: str,
) -> None:
    with capture_logs() as lines:
        await _write_beside_a_failing_key(shared_redis_url)
    failures = [line for line in lines if line["event"] == "redis_write_failed"]
    assert {line["symbol"] for line in failures} == {"BAD"}
    assert all("WRONGTYPE" in line["error"] for line in failures)


async def test_redis_that_refuses_everything_fills_no_log(shared_redis_url: str) -> None:
    symbols = [f"BAD{number}" for number in range(LINES_PER_WINDOW + 20)]
    with capture_logs() as lines:
        async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
            await client.mset({stream_key(symbol): "not a stream" for symbol in symbols})
            for symbol in symbols:
                writer.append(next(snapshots(symbol)))

            async def refused() -> bool:
                return writer.figures.write_failures >= len(symbols)

            await eventually(refused)
    assert len([line for line in lines if line["event"] == "redis_write_failed"]) == LINES_PER_WINDOW
    assert writer.log_limit.start_window() == {"redis_write_failed": writer.figures.write_failures - LINES_PER_WINDOW}


async def _write_beside_a_failing_key(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.set(stream_key("BAD"), "not a stream")
        for bad, good in zip(snapshots("BAD", 50), snapshots("GOOD", 50), strict=True):
            writer.append(bad)
            writer.append(good)

        async def good_is_out() -> bool:
            return await numbers(client, "GOOD") == list(range(1, 51))

        await eventually(good_is_out)
        assert await client.exists(last_key("BAD"), heartbeat_key("BAD")) == 0
        await client.delete(stream_key("BAD"))
        assert await writer.drain(DRAIN)
        assert await numbers(client, "BAD") == list(range(1, 51))


async def test_past_the_bound_the_oldest_go_and_the_hole_shows(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url, buffer_bytes=100_000) as writer:
        redis_server.kill()
        for snapshot in snapshots(count=1000):
            writer.append(snapshot)
        assert writer.figures.buffered_bytes <= 100_000
        dropped = writer.figures.dropped["SPY"]
        await asyncio.to_thread(redis_server.start)
        assert await writer.drain(DRAIN)
        async with reading(redis_server.url) as client:
            assert await numbers(client) == list(range(dropped + 1, 1001))
    assert writer.figures.buffered_bytes == writer.figures.buffered_entries == 0


async def test_stream_that_another_program_writes_stops_the_writer(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await client.xadd(stream_key("SPY"), {"seq": 9}, id="1800000000000-9")
        writer_client = open_redis(shared_redis_url)
        writer = SnapshotWriter(writer_client, maxlen=100, buffer_bytes=1 << 20)
        writer.append(next(snapshots()))
        with pytest.raises(SinkConflict, match="SPY"):
            await writer.run()
        await writer_client.aclose()


async def test_contract_changes_behind_the_newest_snapshot_even_if_it_waits(shared_redis_url: str) -> None:
    december = Instrument("ES", 1, "FUT", "USD", "CME", "CME", local_symbol="ESZ6", expiry="20261218")
    march = replace(december, con_id=2, local_symbol="ESH7", expiry="20270319")
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        first, *others = snapshots("ES", 6)
        writer.record_contract(december)
        writer.append(first)
        assert await writer.drain(DRAIN)
        writer.record_contract(december)
        for each in others[:2]:
            writer.append(each)
        writer.record_contract(replace(march, con_id=3))
        writer.record_contract(march)
        for each in others[2:]:
            writer.append(each)
        assert await writer.drain(DRAIN)
        entries = [fields for _, fields in await client.xrange(contract_changes_key("ES"))]
        ids = [entry_id.decode() for entry_id, _ in await client.xrange(stream_key("ES"))]
    assert [(each[b"after"].decode(), each[b"local_symbol"]) for each in entries] == [
        ("0-0", b"ESZ6"),
        (ids[2], b"ESH7"),
    ]
    assert (entries[1][b"con_id"], entries[1][b"expiry"]) == (b"2", b"20270319")


@pytest.mark.parametrize("foreign", [True, False])
async def test_snapshots_wait_for_their_contract_unless_its_key_is_somebody_elses(
    shared_redis_url: str, foreign: bool
) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:

        async def refused_often() -> bool:
            return writer.figures.write_failures >= (1 if foreign else 3)

        if foreign:
            await client.set(contract_changes_key("ES"), "text")
        else:
            await client.config_set("maxmemory", 1)
        try:
            writer.record_contract(Instrument("ES", 1, "FUT", "USD", "CME", "CME", local_symbol="ESZ6"))
            writer.append(next(snapshots("ES")))
            await eventually(refused_often)
        finally:
            await client.config_set("maxmemory", 0)
        assert await writer.drain(DRAIN)
        assert await client.xlen(stream_key("ES")) == 1
        assert foreign or await client.xlen(contract_changes_key("ES")) == 1


async def test_venue_hash_holds_what_was_found_or_the_reason(shared_redis_url: str) -> None:
    instrument = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA", ("SMART", "ARCA"))
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.record_venue(instrument, 1_700_000_000_000)
        assert await writer.drain(DRAIN)
        good = await client.hgetall(venue_key("SPY"))
        writer.record_venue(instrument, 1_700_000_000_001, "354: not subscribed")
        assert await writer.drain(DRAIN)
        bad = await client.hgetall(venue_key("SPY"))
    fields = ["checked_ts", "con_id", "depth_supported", "exchange", "primary_exchange", "reason", "valid_exchanges"]
    assert sorted(key.decode() for key in good) == fields
    assert (good[b"depth_supported"], good[b"valid_exchanges"]) == (b"1", b"SMART,ARCA")
    assert (bad[b"depth_supported"], bad[b"reason"]) == (b"0", b"354: not subscribed")


async def test_lone_row_leaves_in_the_turn_of_the_event_loop_that_stored_it(shared_redis_url: str) -> None:
    first, second, third = snapshots(count=3)
    async with writing(shared_redis_url) as writer:
        with redis.Redis.from_url(shared_redis_url) as other:  # without an event loop: this one takes no turn meanwhile
            writer.append(first)
            writer.send_now()
            assert other.xlen(stream_key("SPY")) == 0  # no connection stands yet
            assert await writer.drain(DRAIN)
            await asyncio.sleep(0)  # `run` waits for work again
            writer.append(second)
            writer.send_now()
            writer.append(third)
            writer.send_now()  # one flush is under way
            assert other.xlen(stream_key("SPY")) == 2
            assert await writer.drain(DRAIN)
            assert other.xlen(stream_key("SPY")) == 3


async def test_row_that_left_early_before_the_writer_was_cancelled_may_be_stored(shared_redis_url: str) -> None:
    first, second = snapshots(count=2)
    async with writing(shared_redis_url) as writer:
        writer.append(first)
        assert await writer.drain(DRAIN)
        await asyncio.sleep(0)
        writer.append(second)
        writer.send_now()
    assert writer.has_unsent("SPY")
    async with writing(shared_redis_url) as successor:
        assert (await successor.take_over(["SPY"], 0))["SPY"].seq == 2
