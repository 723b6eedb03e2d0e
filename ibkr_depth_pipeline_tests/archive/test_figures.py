"""The history of the figures that ingests publish: every state once, even if the archiver is restarted."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.archive.figures import SCHEMA, FiguresBuffer, ingests, read_figures
from ibkr_depth_pipeline.archive.layout import FIGURES, Place, day_figures_place, figures_place, parse
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import days
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import ArchiverTiming
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.schema.keys import ingest_heartbeat_key, ingest_key
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, Desk, Mirror
from ibkr_depth_pipeline_tests.archive.following import Following

RUN = RunIdentity("run-1", "a-host", 77, NOON)
SPY = SymbolFigures(True, NOON + 5, 9, 800, 99.5, 100.5, 8, 8, 1, 2, "ARCA", {"unknown_request": 3})


def state(at: int, **told: Any) -> FeedFigures:
    """Figures that were written `at` ms after noon."""
    given: dict[str, Any] = {"connected": True, "symbols": {"SPY": SPY, "BRK B": SymbolFigures()}} | told
    return FeedFigures(RUN, NOON + at, **given)


def publish(mirror: Mirror, figures: FeedFigures, ingest: str = "default") -> None:
    mirror.redis.set(ingest_key(ingest), figures.to_json())
    mirror.redis.set(ingest_heartbeat_key(ingest), figures.run.run_id)


def moments(table: Any) -> list[int]:
    return [ts - NOON for ts in table["written_ts"].cast(pa.int64()).to_pylist()]


def test_state_is_kept_as_it_was_published(mirror: Mirror, desk: Desk) -> None:
    told = state(1, ended_ts=NOON + 1, ailments=(2103,), refused_309=4, lag_p50_ms=1.5)
    publish(mirror, told, "u1.paper")
    desk.keep()
    assert ingests(desk.store, DAY) == ["u1.paper"]
    (row,) = read_figures(desk.store, DAY, "u1.paper").to_pylist()
    assert row["ended_ts"].timestamp() * 1000 == NOON + 1
    assert (row["run_id"], row["host"], row["pid"], row["ailments"]) == ("run-1", "a-host", 77, [2103])
    assert (row["refused_309"], row["lag_p50_ms"], row["lag_p99_ms"]) == (4, 1.5, None)
    spy, other = row["symbols"]
    assert (spy["symbol"], spy["venue"], spy["dropped"]) == ("SPY", "ARCA", [("unknown_request", 3)])
    assert [spy[name] for name in ("subscribed", "rows", "live_ms", "bid0", "lost")] == [True, 9, 800, 99.5, 1]
    assert (other["symbol"], other["subscribed"], other["dropped"]) == ("BRK B", False, [])


def test_figures_do_not_count_as_snapshots_of_a_day(mirror: Mirror, desk: Desk) -> None:
    publish(mirror, state(1))
    desk.keep()
    assert days(desk.store) == []


def test_state_seen_again_by_the_next_archiver_counts_once(mirror: Mirror, desk: Desk) -> None:
    publish(mirror, state(1))
    desk.keep()
    desk.keep()
    publish(mirror, state(2001))
    desk.keep()
    assert moments(read_figures(desk.store, DAY, "default")) == [1, 2001]


def test_two_runs_that_write_at_the_same_moment_are_two_states() -> None:
    buffer = FiguresBuffer()
    assert buffer.add("default", state(1), 0.0)
    assert buffer.add("default", replace(state(1), run=replace(RUN, run_id="run-2")), 0.0)
    assert not buffer.add("default", replace(state(1), run=replace(RUN, run_id="run-2")), 0.0)


def test_buffered_figures_become_a_file_of_their_date_in_time() -> None:
    buffer = FiguresBuffer()
    for at in (1, 2001, MS_PER_DAY):
        buffer.add("default", state(at), now=float(at))
    assert buffer.take(0.5) == []
    ((place, _),) = buffer.take(1.0)
    assert place == figures_place("default", DAY, NOON + 1, NOON + 2001)
    ((place, _),) = buffer.take(float("inf"))
    assert place.day == DAY + timedelta(days=1)
    assert buffer.take(float("inf")) == []


@pytest.mark.parametrize("place", [figures_place("a.b", DAY, 1, 2), day_figures_place("a b", DAY)])
def test_names_of_figures_are_of_the_layout(place: Place) -> None:
    assert parse(place.name) == place
    assert place.span is None
    assert parse(place.name.replace("ingest=", "symbol=")) is None
    assert parse(place.name.replace(".parquet", "x.parquet")) is None


def test_compacted_figures_are_the_same_in_one_file(mirror: Mirror, desk: Desk) -> None:
    for at in (1, 2001, 4001):
        publish(mirror, state(at))
        desk.keep()
    before = read_figures(desk.store, DAY, "default")
    for _ in range(2):
        compact_day(desk.store, DAY)
        assert desk.store.places(FIGURES) == [day_figures_place("default", DAY)]
        assert read_figures(desk.store, DAY, "default").equals(before)
    publish(mirror, state(6001))
    desk.keep()
    compact_day(desk.store, DAY)
    assert moments(read_figures(desk.store, DAY, "default")) == [1, 2001, 4001, 6001]


def test_kill_between_the_days_file_and_its_parts_doubles_nothing(mirror: Mirror, desk: Desk) -> None:
    publish(mirror, state(1))
    desk.keep()
    part = next(iter(desk.store.places(FIGURES)))
    content = (desk.folder / "archive" / part.name).read_bytes()
    compact_day(desk.store, DAY)
    desk.store.put(part, content)  # as if its deletion had never come
    assert moments(read_figures(desk.store, DAY, "default")) == [1]
    compact_day(desk.store, DAY)
    assert desk.store.places(FIGURES) == [day_figures_place("default", DAY)]


def test_figures_past_the_retention_are_neither_kept_nor_taken(mirror: Mirror, desk: Desk) -> None:
    publish(mirror, state(1))
    desk.keep()
    mirror.write("SPY", [1], start=NOON + 4 * MS_PER_DAY)
    desk.keep()
    days = desk.settings.model_copy(update={"archive_retention_days": 2})
    short = replace(desk, settings=days, now_ms=lambda: NOON + 4 * MS_PER_DAY)
    short.keep()
    assert desk.store.places(FIGURES) == []


def test_foreign_value_under_a_figures_key_is_skipped(mirror: Mirror, desk: Desk) -> None:
    mirror.redis.set(ingest_key("odd"), "no json")
    publish(mirror, state(1))
    desk.keep()
    assert ingests(desk.store, DAY) == ["default"]


async def test_archiver_follows_the_figures_and_keeps_buffered_ones_when_stopped(mirror: Mirror, desk: Desk) -> None:
    following = Archiver(desk.settings, timing=ArchiverTiming(figures_secs=0.02, figures_flush_secs=0.1))
    task = asyncio.ensure_future(following.run())
    expected = []
    for at in range(1, 6):
        publish(mirror, state(at))
        expected.append(at)
        while moments(read_figures(desk.store, DAY, "default")) != expected:
            assert not task.done()
            await asyncio.sleep(0.01)
    following.stop()
    await task
    slow = Following(desk.settings, ArchiverTiming(figures_secs=3600.0, figures_flush_secs=3600.0))
    mirror.write("SPY", [1])
    await slow.until_kept("SPY", 1)
    publish(mirror, state(6))
    await slow.stop()
    assert moments(read_figures(desk.store, DAY, "default")) == [*expected, 6]


async def test_figures_that_cannot_be_read_hold_nothing_up(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    settings = load_settings(redis_url=redis_server.url, archive_url=str(tmp_path / "archive"), archive_flush_secs=0.2)
    mirror = Mirror(redis_server.url)
    mirror.redis.execute_command("ACL", "SETUSER", "default", "-get")
    publish(mirror, state(1))
    mirror.write("SPY", range(1, 11))
    archiver = Archiver(settings)
    task = asyncio.ensure_future(archiver.run())
    while archiver.summary.snapshots.get("SPY") != 10:
        assert not task.done()
        await asyncio.sleep(0.01)
    archiver.stop()
    assert (await task).drained
    assert ingests(ArchiveStore(settings.archive_url), DAY) == []
    mirror.redis.close()


def test_date_without_figures_has_an_empty_table(desk: Desk) -> None:
    assert ingests(desk.store, date(2026, 1, 6)) == []
    assert read_figures(desk.store, date(2026, 1, 6), "default").num_rows == 0


def test_file_of_an_older_version_is_read_and_compacted_with_blanks_for_the_later_figures(
    mirror: Mirror, desk: Desk
) -> None:
    publish(mirror, state(1))
    desk.keep()
    part = next(iter(desk.store.places(FIGURES)))
    path = desk.folder / "archive" / part.name
    later = {"process", "pacing_violations", "trouble", "silent"}
    of_symbol = pa.struct([each for each in SCHEMA.field("symbols").type.value_type if each.name not in later])
    older = pa.schema([each for each in SCHEMA if each.name not in later | {"symbols"}])
    older = older.append(pa.field("symbols", pa.list_(of_symbol)))
    pq.write_table(pa.Table.from_pylist(pq.read_table(path).to_pylist(), older), path)
    for _ in range(2):
        (row,) = read_figures(desk.store, DAY, "default").to_pylist()
        assert (row["run_id"], row["process"], row["pacing_violations"]) == ("run-1", "", 0)
        assert [(each["symbol"], each["rows"], each["trouble"], each["silent"]) for each in row["symbols"]] == [
            ("SPY", 9, "", 0),
            ("BRK B", 0, "", 0),
        ]
        compact_day(desk.store, DAY)


def test_every_figure_has_a_column() -> None:
    run, feed, symbol = ({field.name for field in fields(each)} for each in (RunIdentity, FeedFigures, SymbolFigures))
    assert set(SCHEMA.names) == (feed - {"run"}) | run
    struct = SCHEMA.field("symbols").type.value_type
    assert {struct.field(at).name for at in range(struct.num_fields)} == symbol | {"symbol"}
