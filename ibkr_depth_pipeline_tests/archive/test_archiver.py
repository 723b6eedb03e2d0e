"""Real streams, real files: each snapshot once, what is missing on record, and on from where the files end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.archive.audit import audit_day
from ibkr_depth_pipeline.archive.layout import BOOKS
from ibkr_depth_pipeline.archive.reading import all_gaps, days, gaps_of, positions, read_day, symbols
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import ArchiverTiming
from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.errors import ArchiveHeld, ArchiveUnavailable, ConfigurationError, SinkUnavailable
from ibkr_depth_pipeline.schema.gaps import GapCause
from ibkr_depth_pipeline.schema.keys import StreamId, ingest_key, stream_key
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, Desk, Mirror, ids_of
from ibkr_depth_pipeline_tests.archive.following import Following
from ibkr_depth_pipeline_tests.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "archive.md"


def numbers(found: Iterable[StreamId]) -> list[int]:
    return [each.seq for each in found]


def with_settings(desk: Desk, now_ms: Callable[[], int] | None = None, **changed: object) -> Desk:
    settings = desk.settings.model_copy(update=changed)
    return replace(desk, settings=settings, now_ms=now_ms or desk.now_ms)


def test_every_snapshot_of_every_symbol_is_kept_once_and_as_it_was(mirror: Mirror, desk: Desk) -> None:
    for symbol in ("SPY", "BRK B"):
        mirror.write(symbol, range(1, 1202))
    outcome = desk.keep()
    assert desk.kept() == mirror.written
    assert outcome.summary.snapshots == {"SPY": 1201, "BRK B": 1201}
    assert outcome.summary.gaps == []
    last = read_day(desk.store, DAY, "BRK B").to_pylist()[-1]
    stored = mirror.redis.xrevrange(stream_key("BRK B"), count=1)[0][1]
    for side in ("bid", "ask"):
        columns = (last[f"{side}_{what}"] for what in ("price", "size", "venue"))
        assert [list(level) for level in zip(*columns, strict=True)] == orjson.loads(stored[f"{side}s".encode()])
    assert last["venue"] == "ISLAND"


def test_archiver_goes_on_where_the_files_end_and_keeps_nothing_twice(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 11))
    desk.keep()
    assert desk.keep().summary.files == 0
    mirror.write("SPY", range(11, 21), start=NOON + 100)
    assert desk.keep().summary.snapshots == {"SPY": 10}
    assert desk.kept() == mirror.written
    assert positions(desk.store) == {"SPY": mirror.written["SPY"][-1]}


def test_archiver_keeps_only_the_requested_symbols(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1])
    mirror.write("QQQ", [1])
    desk.keep(symbols=["QQQ"])
    assert symbols(desk.store, DAY) == ["QQQ"]


def test_part_never_spans_two_dates(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 21), start=NOON + MS_PER_DAY // 2 - 10)
    desk.keep()
    assert days(desk.store) == [DAY, DAY + timedelta(days=1)]
    assert [len(ids_of(read_day(desk.store, day, "SPY"))) for day in days(desk.store)] == [10, 10]
    assert desk.kept() == mirror.written


def test_entries_trimmed_before_they_were_read_are_recorded_as_a_hole(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 11))
    desk.keep()
    mirror.write("SPY", range(11, 101), start=NOON + 1000, maxlen=20)
    desk.keep()
    (gap,) = gaps_of(desk.store, DAY, "SPY")
    assert (gap.first_seq, gap.last_seq, gap.size) == (11, 80, 70)
    assert (gap.after.seq, gap.next_ts, gap.cause) == (10, NOON + 1070, GapCause.TRIMMED)
    assert numbers(desk.kept()["SPY"]) == [*range(1, 11), *range(81, 101)]


def test_seqs_that_never_were_in_the_stream_are_a_hole_of_another_reason(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2])
    desk.keep()
    mirror.write("SPY", [5, 6, 9], start=NOON + 10)
    desk.keep()
    found = [(gap.first_seq, gap.last_seq, gap.cause) for gap in all_gaps(desk.store)]
    assert found == [(3, 4, GapCause.NEVER_STORED), (7, 8, GapCause.NEVER_STORED)]


def test_entries_gone_before_the_archive_began_are_a_hole_of_their_own_reason(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 31), maxlen=10)
    desk.keep()
    (gap,) = all_gaps(desk.store)
    assert (gap.first_seq, gap.last_seq, gap.cause) == (1, 20, GapCause.BEFORE_ARCHIVE)


def test_emptied_redis_that_starts_numbering_over_loses_nothing(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 51))
    desk.keep()
    mirror.redis.flushdb()
    mirror.write("SPY", range(1, 21), start=NOON + 500)
    desk.keep()
    assert all_gaps(desk.store) == []
    assert desk.kept() == mirror.written


def test_redis_that_lost_its_newest_entries_makes_no_hole_and_both_entries_of_a_number_are_kept(
    mirror: Mirror, desk: Desk
) -> None:
    mirror.write("SPY", range(1, 51))
    desk.keep()
    for entry in mirror.written["SPY"][40:]:
        mirror.redis.xdel(stream_key("SPY"), str(entry))
    mirror.write("SPY", range(41, 61), start=NOON + 500)
    desk.keep()
    assert all_gaps(desk.store) == []
    assert desk.kept() == mirror.written
    assert all(audit.passed for audit in audit_day(desk.settings, DAY))


def test_seqs_never_stored_behind_the_remaining_entries_are_a_hole(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 51))
    desk.keep()
    for entry in mirror.written["SPY"][40:]:
        mirror.redis.xdel(stream_key("SPY"), str(entry))
    mirror.write("SPY", range(46, 61), start=NOON + 500)
    desk.keep()
    found = [(gap.first_seq, gap.last_seq, gap.cause) for gap in all_gaps(desk.store)]
    assert found == [(41, 45, GapCause.NEVER_STORED)]


def test_emptied_redis_that_was_cut_before_it_was_read_is_a_hole_from_its_beginning(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 51))
    desk.keep()
    mirror.redis.flushdb()
    mirror.write("SPY", range(1, 41), start=NOON + 500, maxlen=10)
    desk.keep()
    found = [(gap.first_seq, gap.last_seq, gap.cause) for gap in all_gaps(desk.store)]
    assert found == [(1, 30, GapCause.TRIMMED)]


async def test_possible_hole_is_read_again_until_the_entry_before_it_is_known(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 11))
    following = Following(desk.settings)
    await following.until_kept("SPY", 10)
    mirror.redis.execute_command("ACL", "SETUSER", "default", "-xrevrange")
    try:
        with capture_logs() as logged:
            mirror.write("SPY", range(13, 21), start=NOON + 100)
            await following.until(lambda: [line for line in logged if line["event"] == "archive_read_failed"])
            assert following.archiver.summary.gaps == []
    finally:
        mirror.redis.execute_command("ACL", "SETUSER", "default", "+xrevrange")
    await following.until_kept("SPY", 18)
    (gap,) = (await following.stop()).gaps
    assert (gap.first_seq, gap.last_seq, gap.cause) == (11, 12, GapCause.NEVER_STORED)
    assert await asyncio.to_thread(desk.kept) == mirror.written


def test_foreign_entries_are_skipped_whatever_their_ids(mirror: Mirror, desk: Desk) -> None:
    foreign = {"a": 1}
    mirror.redis.xadd(stream_key("SPY"), foreign, id=f"{NOON - 1}-0")
    mirror.write("SPY", range(1, 11))
    mirror.redis.xadd(stream_key("SPY"), foreign, id=f"{NOON + 50}-0")
    mirror.write("SPY", range(11, 21), start=NOON + 100)
    desk.keep()
    mirror.redis.xadd(stream_key("SPY"), foreign, id=f"{NOON + 150}-0")
    desk.keep()
    mirror.write("SPY", range(21, 31), start=NOON + 200)
    desk.keep()
    assert desk.kept() == mirror.written
    assert all_gaps(desk.store) == []


def test_foreign_keys_are_left_alone(mirror: Mirror, desk: Desk) -> None:
    mirror.redis.xadd(stream_key("check-77"), {"ts": 0})
    mirror.redis.set(stream_key("QQQ"), "text")
    mirror.write("SPY", [1])
    desk.keep()
    assert desk.kept() == mirror.written


def test_redis_user_needs_only_the_documented_permissions(mirror: Mirror, desk: Desk) -> None:
    (commands,) = re.findall(r"of its own needs `([^`]+)`", DOCUMENT.read_text())
    rights = ["on", ">secret", "resetkeys", f"~{stream_key('').removesuffix('stream:')}*", "-@all", *commands.split()]
    mirror.redis.execute_command("ACL", "SETUSER", "archiver", *rights)
    mirror.write("SPY", [1, 2, 5])
    restricted = with_settings(desk, redis_url=desk.settings.redis_url.replace("://", "://archiver:secret@"))
    try:
        assert [(gap.first_seq, gap.last_seq) for gap in restricted.keep().summary.gaps] == [(3, 4)]
        mirror.write("SPY", [8], start=NOON + 9)
        restricted.keep()
        (audit,) = audit_day(restricted.settings, DAY)
        assert "newest_seq_in_redis" in audit.results[-1].figures
    finally:
        mirror.redis.execute_command("ACL", "DELUSER", "archiver")
    assert desk.kept() == mirror.written


async def test_archiver_follows_until_it_is_stopped_and_new_symbols_join(mirror: Mirror, desk: Desk) -> None:
    following = Following(desk.settings, ArchiverTiming(discovery_secs=0.05))
    mirror.write("SPY", range(1, 4))
    await following.until_kept("SPY", 3)  # by the clock: these are not enough for a file by themselves
    mirror.write("QQQ", range(1, 1001))
    await following.until_kept("QQQ", 1000)
    mirror.write("SPY", range(4, 9), start=NOON + 10)
    await following.until_kept("SPY", 8)
    assert (await following.stop()).drained
    assert await asyncio.to_thread(desk.kept) == mirror.written


async def test_unreadable_stream_holds_up_no_other(mirror: Mirror, desk: Desk) -> None:
    timing = ArchiverTiming(retries=Backoff(3600.0, 3600.0), remind_secs=3600.0)
    for symbol in ("SPY", "BAD"):
        mirror.write(symbol, [1])
    with capture_logs() as logged:
        following = Following(desk.settings, timing)
        await following.until_kept("BAD", 1)
        mirror.redis.delete(stream_key("BAD"))
        mirror.redis.set(stream_key("BAD"), "text")
        for first in (2, 1002, 2002):
            mirror.write("SPY", range(first, first + 1000), start=NOON + first)
            await following.until_kept("SPY", first + 999)
        mirror.redis.delete(stream_key("BAD"))
        mirror.write("BAD", [2], start=NOON + 1)
        await following.until_kept("BAD", 2)
        await following.stop()
    assert await asyncio.to_thread(desk.kept) == mirror.written
    (said, over) = [line for line in logged if line["event"].startswith("archive_read_failed")]
    assert (said["symbols"], over["event"]) == (["BAD"], "archive_read_failed_no_more")
    assert "WRONGTYPE" in said["error"]


async def test_failing_scan_for_symbols_does_not_stop_the_reading(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1])
    following = Following(desk.settings, ArchiverTiming(discovery_secs=0.0))
    await following.until_kept("SPY", 1)
    mirror.redis.execute_command("ACL", "SETUSER", "default", "-scan")
    try:
        for first in (2, 1002, 2002):
            mirror.write("SPY", range(first, first + 1000), start=NOON + first)
            await following.until_kept("SPY", first + 999)
    finally:
        mirror.redis.execute_command("ACL", "SETUSER", "default", "+scan")
    await following.stop()
    assert await asyncio.to_thread(desk.kept) == mirror.written


async def test_keys_whose_names_are_no_text_are_skipped_and_logged_once(mirror: Mirror, desk: Desk) -> None:
    mirror.redis.xadd(stream_key("").encode() + b"\xff", {"a": 1})
    mirror.redis.set(ingest_key("").encode() + b"\xff", "text")
    with capture_logs() as logged:
        following = Following(desk.settings, ArchiverTiming(discovery_secs=0.0))
        mirror.write("SPY", [1])
        await following.until_kept("SPY", 1)
        await following.stop()
    keys = [line["key"] for line in logged if line["event"] == "archive_key_passed_over"]
    assert sorted(keys) == [repr(key("").encode() + b"\xff") for key in (ingest_key, stream_key)]


async def test_entries_read_before_the_stop_are_kept(mirror: Mirror, desk: Desk) -> None:
    following = Following(with_settings(desk, archive_flush_secs=3600.0, archive_flush_rows=1000).settings)
    mirror.write("SPY", range(1, 1301))  # a thousand are read at once, and make a file; the others wait for more
    await following.until_kept("SPY", 1000)
    assert (await following.stop()).snapshots == {"SPY": 1300}
    assert await asyncio.to_thread(desk.kept) == mirror.written


async def test_redis_that_comes_back_empty_costs_nothing_that_was_read(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    settings = load_settings(redis_url=redis_server.url, archive_url=str(tmp_path / "archive"), archive_flush_secs=0.2)
    mirror, desk = Mirror(redis_server.url), Desk(settings, tmp_path)
    mirror.write("SPY", range(1, 11))
    following = Following(settings)
    await following.until_kept("SPY", 10)
    redis_server.restart(wipe=True)
    mirror.write("SPY", range(11, 21), start=NOON + 100)
    await following.until_kept("SPY", 20)
    await following.stop()
    assert await asyncio.to_thread(desk.kept) == mirror.written
    mirror.redis.close()


async def test_files_wait_until_the_store_takes_them_again(mirror: Mirror, desk: Desk) -> None:
    in_the_way = obstacle(desk)
    mirror.write("SPY", range(1, 1001))
    following = Following(desk.settings)
    await following.until(lambda: len(following.archiver.waiting) == 1)
    mirror.write("SPY", range(1001, 2001), start=NOON + 2000)
    await following.until(lambda: len(following.archiver.waiting) == 2)
    assert following.archiver.summary.files == 0
    in_the_way.unlink()
    await following.until_kept("SPY", 2000)
    assert (await following.stop()).drained
    assert await asyncio.to_thread(desk.kept) == mirror.written


def obstacle(desk: Desk) -> Path:
    """A file where the parts' folder belongs."""
    root = Path(desk.settings.archive_url)
    root.mkdir()
    (root / BOOKS).write_text("in the way")
    return root / BOOKS


def test_second_archiver_of_a_folder_is_refused(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1])
    with ArchiveStore(desk.settings.archive_url).alone("archiver"), pytest.raises(ArchiveHeld, match="at work there"):
        desk.keep()
    assert desk.keep().summary.snapshots == {"SPY": 1}


def test_unreachable_redis_is_an_error_at_the_start(desk: Desk) -> None:
    with pytest.raises(SinkUnavailable):
        with_settings(desk, redis_url="redis://127.0.0.1:1/0").keep()


def test_unwritable_archive_is_an_error_at_the_start(mirror: Mirror, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveUnavailable):
        with_settings(desk, archive_url=str(tmp_path / "file" / "archive")).keep()


def test_archive_url_of_an_unknown_kind_is_a_configuration_error(desk: Desk) -> None:
    with pytest.raises(ConfigurationError, match="ARCHIVE_URL"):
        with_settings(desk, archive_url="carrier-pigeon://loft").keep()


def test_days_past_the_retention_go_and_are_not_kept_again(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 11))
    mirror.write("SPY", range(11, 21), start=NOON + 3 * MS_PER_DAY)
    desk.keep()
    short = with_settings(desk, archive_retention_days=2, now_ms=lambda: NOON + 4 * MS_PER_DAY)
    assert short.keep().summary.pruned_days == 1
    assert numbers(desk.kept()["SPY"]) == list(range(11, 21))
    assert short.keep().summary.files == 0, "what is still in the stream is too old to be kept"
    assert not (Path(desk.settings.archive_url) / BOOKS / f"date={DAY}").exists()


@pytest.mark.parametrize("kept_before", [True, False])
def test_entries_past_the_retention_are_no_hole_and_missing_ones_behind_them_are(
    mirror: Mirror, desk: Desk, kept_before: bool
) -> None:
    mirror.write("SPY", range(1, 11))
    if kept_before:
        desk.keep()
    mirror.write("SPY", range(11, 15), start=NOON + MS_PER_DAY)
    short = with_settings(desk, archive_retention_days=2, now_ms=lambda: NOON + 4 * MS_PER_DAY)
    mirror.write("SPY", range(15, 21), start=NOON + 4 * MS_PER_DAY)
    assert short.keep().summary.snapshots == {"SPY": 6}
    assert all_gaps(desk.store) == []
    assert short.keep().summary.files == 0
    mirror.write("QQQ", range(1, 11))
    mirror.write("QQQ", range(16, 21), start=NOON + 4 * MS_PER_DAY)
    assert short.keep().summary.snapshots == {"QQQ": 5}
    assert [(gap.first_seq, gap.last_seq) for gap in all_gaps(desk.store)] == [(11, 15)]
