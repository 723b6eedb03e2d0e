"""Following streams in a real Redis: where it begins, what counts as a gap, and that outages cost nothing."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.reader import (
    After,
    AfterId,
    AsyncDepthReader,
    At,
    DepthReader,
    DepthSnapshot,
    Gap,
    GapCause,
    Item,
    SinkUnavailable,
)
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.stream_fence import raise_positions
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler


def seqs(items: list[Item]) -> list[int | str]:
    """The seq of each snapshot, and the cause of each gap."""
    return [each.seq if isinstance(each, DepthSnapshot) else each.cause.value for each in items]


def test_follower_from_now_on_gets_nothing_stored_before(filler: Filler, reader: DepthReader) -> None:
    filler.add(5)
    following = reader.follow("SPY")
    assert following.read(0.01) == []
    filler.add(2)
    assert seqs(following.read()) == [6, 7]


def test_stream_that_does_not_exist_yet_is_followed_from_its_first_snapshot(
    filler: Filler, reader: DepthReader
) -> None:
    following = reader.follow("SPY")
    assert following.read(0.01) == []
    filler.add(2)
    assert seqs(following.read()) == [1, 2]


def test_follower_from_a_time_begins_with_the_first_snapshot_that_is_not_older(
    filler: Filler, reader: DepthReader
) -> None:
    filler.add(10)
    assert seqs(reader.follow("SPY", start=At(T0 + 40)).read()) == [5, 6, 7, 8, 9, 10]
    assert seqs(reader.follow("SPY", start=At(T0 + 41)).read()) == [6, 7, 8, 9, 10]
    assert seqs(reader.follow("SPY", start=At(0)).read()) == list(range(1, 11))


def test_follower_from_a_time_before_the_oldest_entry_begins_with_a_gap(filler: Filler, reader: DepthReader) -> None:
    filler.add(10)
    filler.trim(3)
    [gap, *rest] = reader.follow("SPY", start=At(T0)).read()
    assert gap == Gap("SPY", None, 8, T0 + 70, GapCause.TRIMMED)
    assert isinstance(gap, Gap)
    assert gap.missing is None
    assert seqs(rest) == [8, 9, 10]


@pytest.mark.parametrize("step_ms", [0, 1, 10, 100_000])
def test_follower_from_any_seq_begins_exactly_after_it(
    shared_redis_url: str, reader: DepthReader, step_ms: int
) -> None:
    with Filler(shared_redis_url, step_ms=step_ms) as filler:
        filler.add(30)
        for seq in range(31):
            assert seqs(reader.follow("SPY", start=After(seq)).read(0.001)) == list(range(seq + 1, 31))


def test_follower_from_a_seq_that_was_never_stored_begins_with_a_gap(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    filler.skip(4)
    filler.add(3)
    [gap, *rest] = reader.follow("SPY", start=After(5)).read()
    assert gap == Gap("SPY", 5, 8, T0 + 70, GapCause.NEVER_STORED)
    assert seqs(rest) == [8, 9, 10]


def test_follower_from_a_trimmed_seq_begins_with_a_gap_of_the_right_size(filler: Filler, reader: DepthReader) -> None:
    filler.add(10)
    filler.trim(4)
    [gap, *rest] = reader.follow("SPY", start=After(2)).read()
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.missing) == (GapCause.TRIMMED, 4)
    assert seqs(rest) == [7, 8, 9, 10]


def test_follower_from_a_future_seq_waits_and_reports_a_lower_one_as_renumbered(
    filler: Filler, reader: DepthReader
) -> None:
    filler.add(3)
    following = reader.follow("SPY", start=After(50))
    assert following.read(0.01) == []
    filler.add()
    [gap, snapshot] = following.read()
    assert gap == Gap("SPY", 50, 4, T0 + 30, GapCause.RENUMBERED)
    assert isinstance(gap, Gap)
    assert gap.missing is None
    assert seqs([snapshot]) == [4]


def test_follower_from_a_stored_position_goes_on_exactly_there(filler: Filler, reader: DepthReader) -> None:
    filler.add(4)
    first = reader.follow("SPY", start=After(0)).read()
    position = next(each.stream_id for each in first if isinstance(each, DepthSnapshot) and each.seq == 3)
    assert seqs(reader.follow("SPY", start=AfterId(position)).read()) == [4]
    filler.trim(0)
    filler.add(2)
    assert seqs(reader.follow("SPY", start=AfterId(position)).read()) == ["trimmed", 5, 6]


@pytest.mark.parametrize("bad", ["", "5", "5-", "-5", "a-b", "$"])
def test_malformed_position_is_refused(reader: DepthReader, bad: str) -> None:
    with pytest.raises(ValueError, match="no stream id"):
        reader.follow("SPY", start=AfterId(bad))


def test_no_symbol_and_a_symbol_without_a_start_are_refused(reader: DepthReader) -> None:
    with pytest.raises(ValueError, match="name at least one"):
        reader.follow([])
    with pytest.raises(ValueError, match="no start is given for QQQ"):
        reader.follow("SPY", "QQQ", start={"SPY": After(1)})


def test_missing_numbers_are_a_gap_in_their_place(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    filler.skip(2)
    filler.add(2)
    items = reader.follow("SPY", start=At(0)).read()
    assert seqs(items) == [1, 2, 3, "never_stored", 6, 7]
    assert items[3] == Gap("SPY", 3, 6, T0 + 50, GapCause.NEVER_STORED)


def test_snapshots_trimmed_while_nobody_reads_are_a_gap(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    following = reader.follow("SPY", start=At(0))
    assert seqs(following.read()) == [1, 2, 3]
    filler.add(10)
    filler.trim(2)
    assert seqs(following.read()) == ["trimmed", 12, 13]


def test_trimming_what_was_read_already_is_no_gap(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    following = reader.follow("SPY", start=At(0))
    assert seqs(following.read()) == [1, 2, 3]
    filler.trim(0)
    filler.add(1)
    assert seqs(following.read()) == [4]


def test_numbers_that_come_again_are_a_gap(shared_redis_url: str, filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    following = reader.follow("SPY", start=At(0))
    following.read()
    filler.client.flushall()
    filler.seq = 0
    filler.add(2)
    assert seqs(following.read()) == ["renumbered", 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_snapshots_and_gaps_together_account_for_every_number(filler: Filler, reader: DepthReader, seed: int) -> None:
    chance = random.Random(seed)
    following = reader.follow("SPY", start=After(0), most=7)
    reached = 0
    for _ in range(60):
        match chance.randrange(5):
            case 0:
                filler.skip(chance.randrange(1, 4))
            case 1:
                filler.trim(chance.randrange(10))
            case _:
                filler.add(chance.randrange(1, 15))
        if chance.random() < 0.5:
            reached = check_joins_on(reached, following.read(0.002))
    filler.add()
    while reached < filler.seq:
        reached = check_joins_on(reached, following.read())


def check_joins_on(reached: int, items: list[Item]) -> int:
    """That no number between is unaccounted for; the last one."""
    for item in items:
        if isinstance(item, Gap):
            assert item.after_seq == reached
            assert item.missing is not None
            assert item.missing > 0
            reached = item.next_seq - 1
        else:
            assert item.seq == reached + 1
            reached = item.seq
    return reached


def test_several_symbols_each_from_its_own_start(shared_redis_url: str, filler: Filler, reader: DepthReader) -> None:
    with Filler(shared_redis_url, "QQQ") as other:
        filler.add(5)
        other.add(5)
        following = reader.follow("SPY", "QQQ", start={"SPY": After(3), "QQQ": At(T0 + 20)})
        items = following.read()
    assert seqs([each for each in items if each.symbol == "SPY"]) == [4, 5]
    assert seqs([each for each in items if each.symbol == "QQQ"]) == [3, 4, 5]


def test_backlog_is_read_in_pieces_and_whole(filler: Filler, reader: DepthReader) -> None:
    filler.add(25)
    following = reader.follow("SPY", start=At(0), most=10)
    assert [len(following.read()) for _ in range(3)] == [10, 10, 5]


def test_iterating_waits_for_what_comes(filler: Filler, reader: DepthReader) -> None:
    filler.add(2)
    following = iter(reader.follow("SPY", start=At(0)))
    assert seqs([next(following), next(following)]) == [1, 2]
    writer = threading.Thread(target=filler.add)
    writer.start()
    assert seqs([next(following)]) == [3]
    writer.join()


def test_read_first_hands_over_what_iterating_left(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    following = reader.follow("SPY", start=At(0))
    assert seqs([next(following)]) == [1]
    assert seqs(following.read()) == [2, 3]


def test_redis_must_be_there_at_the_beginning() -> None:
    with DepthReader("redis://127.0.0.1:1/0") as reader:
        with pytest.raises(SinkUnavailable):
            next(reader.follow("SPY"))


def test_key_of_another_type_is_an_error_at_once(filler: Filler, reader: DepthReader) -> None:
    filler.client.set(stream_key("SPY"), "x")
    with pytest.raises(SinkUnavailable, match="WRONGTYPE"):
        reader.follow("SPY", start=At(0)).read()


def test_killed_redis_that_kept_its_data_costs_a_follower_nothing() -> None:
    with EmbeddedRedis(persist=True) as server, Filler(server.url) as filler, DepthReader(server.url) as reader:
        filler.add(3)
        following = reader.follow("SPY", start=At(0))
        assert seqs(following.read()) == [1, 2, 3]
        filler.add(2)
        server.kill()
        assert following.read(0.1) == []
        server.restart()
        assert seqs(following.read()) == [4, 5]
        filler.add(1)
        assert seqs(following.read()) == [6]


def test_redis_that_came_back_empty_is_followed_on_after_a_gap(redis_server: EmbeddedRedis) -> None:
    with Filler(redis_server.url) as filler, DepthReader(redis_server.url) as reader:
        filler.add(3)
        following = reader.follow("SPY", start=At(0))
        assert seqs(following.read()) == [1, 2, 3]
        filler.add(2)
        redis_server.restart(wipe=True)
        filler.add(2)
        assert seqs(following.read()) == ["trimmed", 6, 7]


def test_redis_that_only_pauses_costs_a_follower_nothing(redis_server: EmbeddedRedis) -> None:
    with Filler(redis_server.url) as filler, DepthReader(redis_server.url) as reader:
        following = reader.follow("SPY", start=At(0))
        filler.add(3)
        assert seqs(following.read()) == [1, 2, 3]
        redis_server.pause()
        resume = threading.Timer(0.3, redis_server.resume)
        resume.start()
        writer = threading.Thread(target=filler.add, args=(2,))
        writer.start()
        found = following.read()
        while len(found) < 2:
            found += following.read()
        assert seqs(found) == [4, 5]
        writer.join()
        resume.join()


def test_patience_that_is_at_an_end_is_an_error(redis_server: EmbeddedRedis) -> None:
    with Filler(redis_server.url) as filler, DepthReader(redis_server.url) as reader:
        filler.add(1)
        following = reader.follow("SPY", start=At(0), patience=0.2)
        following.read()
        redis_server.kill()
        with pytest.raises(SinkUnavailable):
            following.read()


async def test_async_follower_survives_kills_without_loss_or_repeat() -> None:
    with EmbeddedRedis(persist=True) as server, Filler(server.url) as filler:
        async with AsyncDepthReader(server.url) as reader:
            following = reader.follow("SPY", start=At(0))
            found: list[Item] = []
            for _ in range(3):
                filler.add(50)
                while len(found) < filler.seq:
                    found.append(await anext(following))
                filler.add(50)
                server.kill()
                assert await following.read(0.05) == []
                server.restart()
            while len(found) < filler.seq:
                found += await following.read()
    assert seqs(found) == list(range(1, 301))


async def test_cancelled_read_loses_nothing(shared_redis_url: str, filler: Filler) -> None:
    async with AsyncDepthReader(shared_redis_url) as reader:
        following = reader.follow("SPY", start=At(0))
        found: list[Item] = []
        for patience in [0.0, 0.0005, 0.001, 0.002, 0.003, 0.005] * 10:  # so that it is hit at any point of a read
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(following), patience)
            filler.add(3)
            found += await following.read()
    assert seqs(found) == list(range(1, 181))


async def test_recorder_that_starts_wakes_a_follower_and_breaks_none(shared_redis_url: str, filler: Filler) -> None:
    async with AsyncDepthReader(shared_redis_url) as reader:
        following = reader.follow("SPY", start=At(0))
        waiting = asyncio.ensure_future(following.read())
        while not filler.client.info("clients")["blocked_clients"]:  # noqa: ASYNC110 - the condition is in Redis
            await asyncio.sleep(0.01)
        client = open_redis(shared_redis_url)
        await raise_positions(client, ["SPY"], T0 - 1)
        await client.aclose()
        filler.add(3)
        found = await waiting
        while len(found) < 3:
            found += await following.read()
        assert seqs(found) == [1, 2, 3]


async def test_many_readers_share_one_event_loop(shared_redis_url: str, filler: Filler) -> None:
    async with AsyncDepthReader(shared_redis_url) as reader:
        followings = [reader.follow("SPY", start=At(0)) for _ in range(5)]
        reads = [asyncio.ensure_future(following.read()) for following in followings]
        filler.add(3)
        assert {len(items) for items in await asyncio.gather(*reads)} <= {1, 2, 3}
