"""Numbers go on behind the archive if Redis has less than it: restored from a backup, emptied, or its newest lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.archive.audit import audit_day
from ibkr_depth_pipeline.archive.figures import FiguresBuffer
from ibkr_depth_pipeline.archive.numbering import newest_numbers, raise_ids_of, target
from ibkr_depth_pipeline.archive.reading import all_gaps
from ibkr_depth_pipeline.archive.streams import ArchiverTiming, Source
from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.schema.gaps import GapCause
from ibkr_depth_pipeline.schema.keys import StreamId, claim_key, rows_stream, stream_key, turns_stream
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.stream_fence import raise_positions
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, observed
from ibkr_depth_pipeline_tests.archive.following import Following

SPY, INTERVALS_OF_SPY = Source("books", "SPY"), Source("intervals", "SPY")


def last_id(mirror: Mirror, key: str) -> StreamId:
    return StreamId.of(mirror.redis.xinfo_stream(key)["last-generated-id"])


def restore(mirror: Mirror, symbol: str, upto: int) -> None:
    """Redis as a backup had it that was made after the snapshot `upto`."""
    mirror.redis.flushdb()
    kept, mirror.written[symbol] = mirror.written[symbol][:upto], []
    for entry in kept:
        mirror.write(symbol, [entry.seq], start=entry.ts)


def next_seq(url: str) -> int:
    """The number that a recorder which starts now gives to its first snapshot of SPY."""

    async def start() -> int:
        client = open_redis(url)
        try:
            return (await raise_positions(client, ["SPY"], NOON + 1_000_000))["SPY"].seq + 1
        finally:
            await client.aclose()

    return asyncio.run(start())


def test_recorder_goes_on_behind_an_archive_that_is_newer_than_the_restored_redis(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 101))
    desk.keep()
    whole = list(mirror.written["SPY"])
    restore(mirror, "SPY", 60)
    done = desk.runs("raise-ids")
    assert done.stdout == f"{stream_key('SPY')}: {NOON + 59}-60 -> {NOON + 99}-100\n1 streams were behind the archive\n"
    assert desk.runs("raise-ids").stdout == "0 streams were behind the archive\n"
    assert next_seq(desk.settings.redis_url) == 101
    mirror.write("SPY", range(101, 121), start=NOON + 1_000_001)
    desk.keep()
    assert desk.kept()["SPY"] == [*whole, *mirror.written["SPY"][60:]]
    assert all_gaps(desk.store) == []
    assert all(audit.passed for audit in audit_day(desk.settings, DAY))


def test_archiver_that_starts_first_raises_by_itself(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 101))
    mirror.write_interval(observed(7, 1, 100, at=0, until=99), NOON + 100)
    desk.keep()
    restore(mirror, "SPY", 60)
    mirror.write_interval(observed(3, 1, 20, at=0, until=19), NOON + 20)
    with capture_logs() as logged:
        desk.keep()
    (books, turns) = [line for line in logged if line["event"] == "archive_ahead_of_stream"]
    assert (books["table"], books["was"], books["raised_to"]) == ("books", f"{NOON + 59}-60", f"{NOON + 99}-100")
    assert (turns["table"], turns["raised_to"]) == ("intervals", f"{NOON + 100}-7")
    assert next_seq(desk.settings.redis_url) == 101


async def test_archiver_that_lives_through_a_restore_raises_by_itself(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    settings = load_settings(redis_url=redis_server.url, archive_url=str(tmp_path / "archive"), archive_flush_secs=0.2)
    mirror = Mirror(redis_server.url)
    mirror.write("SPY", range(1, 61))
    directory = Path(mirror.redis.config_get("dir")["dir"])
    mirror.redis.save()
    backup = (directory / "dump.rdb").read_bytes()
    mirror.write("SPY", range(61, 101), start=NOON + 60)
    following = Following(settings, ArchiverTiming(retries=Backoff(0.01, 0.1)))
    await following.until_kept("SPY", 100)
    with capture_logs() as logged:
        redis_server.kill()
        await following.until(lambda: any(line["event"] == "archive_read_failed" for line in logged))
    (directory / "dump.rdb").write_bytes(backup)
    await asyncio.to_thread(redis_server.start)
    await following.until(lambda: last_id(mirror, stream_key("SPY")) == (NOON + 99, 100))
    await following.stop()
    mirror.redis.close()


def test_streams_of_an_emptied_redis_are_made_anew_by_the_command_alone(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 51))
    desk.keep()
    mirror.redis.flushdb()
    desk.keep()
    assert not mirror.redis.exists(stream_key("SPY"))
    assert desk.runs("raise-ids").returncode == 0
    assert mirror.redis.xlen(stream_key("SPY")) == 0
    assert next_seq(desk.settings.redis_url) == 51


def test_symbol_that_is_recorded_is_left_alone_and_named(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 101))
    desk.keep()
    restore(mirror, "SPY", 60)
    mirror.redis.set(claim_key("SPY"), "{}")
    done = desk.runs("raise-ids")
    assert (done.returncode, "stop the ingest first: SPY" in done.stderr) == (1, True)
    desk.keep()
    assert last_id(mirror, stream_key("SPY")) == (NOON + 59, 60)


def test_numbers_that_were_given_twice_before_anyone_noticed_are_named_and_both_snapshots_kept(
    mirror: Mirror, desk: Desk
) -> None:
    mirror.write("SPY", range(1, 101))
    desk.keep()
    whole = list(mirror.written["SPY"])
    restore(mirror, "SPY", 60)
    mirror.write("SPY", range(61, 81), start=NOON + 500)  # a recorder that did not wait
    with capture_logs() as logged:
        summary = desk.keep().summary
    (line,) = [line for line in logged if line["event"] == "archive_seq_fell"]
    assert (line["kept"], line["following"]) == (f"{NOON + 99}-100", f"{NOON + 500}-61")
    assert summary.renumbered == {"SPY": 1}
    assert desk.kept()["SPY"] == [*whole, *mirror.written["SPY"][60:]]
    (audit,) = audit_day(desk.settings, DAY)
    assert (audit.passed, audit.results[0].figures["given_twice"]) == (True, 20)
    assert desk.runs("raise-ids").stdout.startswith(f"{stream_key('SPY')}: {NOON + 519}-80 -> {NOON + 519}-100")
    assert next_seq(desk.settings.redis_url) == 101, "from here on no number is given twice"


def test_numbers_that_are_known_without_their_snapshots_are_not_given_again(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 11))
    for seq in range(1, 14):
        row: dict[str, Any] = {"recv_ns": 1, "subscription": 4, "operation": "insert", "side": "bid", "position": 0}
        mirror.redis.xadd(rows_stream("SPY"), {**row, "price": 1, "size": 1, "mm": "A"}, id=f"{NOON + seq}-{seq}")
    mirror.write_interval(observed(2, 1, 12, at=0, until=9), NOON + 20)
    desk.settings = load_settings(
        redis_url=desk.settings.redis_url, archive_url=desk.settings.archive_url, archive_rows=True
    )
    desk.keep()
    assert newest_numbers(desk.store)[SPY].seq == 13
    figures = FiguresBuffer()
    run = RunIdentity("run", "host", 1, NOON)
    figures.add("default", FeedFigures(run=run, written_ts=NOON + 99, symbols={"SPY": SymbolFigures(newest_seq=15)}), 0)
    for place, content in figures.take(1):
        desk.store.put(place, content)
    assert newest_numbers(desk.store) == {SPY: (NOON + 13, 15), INTERVALS_OF_SPY: (NOON + 20, 4)}
    raised, recorded = raise_ids_of(desk.store, desk.settings)
    assert [(each.source, each.now.seq) for each in raised] == [(SPY, 15), (INTERVALS_OF_SPY, 4)]
    assert recorded == ()
    assert last_id(mirror, turns_stream("SPY")) == (NOON + 20, 4)
    mirror.write("SPY", [16], start=NOON + 99)
    desk.keep()
    (gap,) = all_gaps(desk.store)
    assert (gap.first_seq, gap.last_seq, gap.cause) == (11, 15, GapCause.NEVER_STORED)


def test_clock_that_is_behind_the_archive_does_not_make_ts_stand() -> None:
    known = StreamId(NOON + 5000, 100)
    assert target(known, StreamId(NOON, 60), NOON + 9000) == known
    assert target(known, StreamId(NOON, 60), NOON + 50) == (NOON + 50, 100)
    assert target(known, StreamId(NOON + 70, 60), NOON + 50) == (NOON + 70, 100)
    assert target(known, StreamId(NOON, 100), NOON + 9000) is None


@pytest.mark.parametrize("missing", ["xinfo", "exists", "eval", "xsetid"])
def test_archiver_without_the_right_to_raise_goes_on_and_warns(mirror: Mirror, desk: Desk, missing: str) -> None:
    mirror.write("SPY", range(1, 11))
    desk.keep()
    restore(mirror, "SPY", 6)
    mirror.redis.execute_command("ACL", "SETUSER", "default", f"-{missing}")
    try:
        with capture_logs() as logged:
            desk.keep()
    finally:
        mirror.redis.execute_command("ACL", "SETUSER", "default", f"+{missing}")
    assert [line["event"] for line in logged if "number" in line["event"]] == ["archive_numbering_unchecked"]
