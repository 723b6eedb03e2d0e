"""Archives made directly, without a Redis: books, the intervals in which they were observed, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.archive.intervals import table_of
from ibkr_depth_pipeline.archive.layout import INTERVALS, IdSpan, day_of, gap_place, part_place
from ibkr_depth_pipeline.archive.parquet_schema import INTERVAL_TABLE, SNAPSHOTS, gap_bytes, gap_row, part_bytes
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.model import EMPTY_LEVEL, SNAPSHOT_LEVELS, Level
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.simulation.replay import read_tape
from ibkr_depth_pipeline.simulation.rows import Book, RowStyle, apply_rows, rows_of_change, snapshot_rows

NOON = 1_767_614_400_000  # 2026-01-05 12:00 UTC
CON_ID = 265_598


class Kept(NamedTuple):
    """One archived snapshot: unix ms, number, the rows of each side, and unix ns if they were stored."""

    ts: int
    seq: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    recv_ns: int | None = None


def book(number: int, *, rows: int = 10, tick: float = 0.01, mid: float = 100.0) -> tuple[list[Level], list[Level]]:
    """A sound book, like no other number's."""
    bids = [(round(mid - (at + 1) * tick, 6), float(100 * (1 + (number + at) % 7)), "NSDQ") for at in range(rows)]
    asks = [(round(mid + (at + 1) * tick, 6), float(100 * (1 + (number * 3 + at) % 5)), "NSDQ") for at in range(rows)]
    return bids, asks


def turn(start: int, first_seq: int, count: int, *, every: int = 100) -> list[Kept]:
    """A turn as a recorder stores it: partial books within one ms, then `count` whole ones, `every` ms apart."""
    bids, asks = book(first_seq)
    partial = [(bids[: at // 2 + at % 2], asks[: at // 2]) for at in range(1, 20)]
    books = [(start, *sides) for sides in partial]
    books += [(start + every * at, *book(first_seq + at)) for at in range(count)]
    return [Kept(ts, first_seq + at, *sides) for at, (ts, *sides) in enumerate(books)]


def interval_of(snapshots: Sequence[Kept], subscription: int, **changed: Any) -> SubscriptionInterval:
    """The record of a turn's subscription; the book stays known for 40 ms behind its last row."""
    fields: dict[str, Any] = {
        "venue": "ISLAND",
        "con_id": CON_ID,
        "local_symbol": "SPY",
        "requested": snapshots[0].ts - 30,
        "first_row": snapshots[0].ts,
        "complete": snapshots[0].ts,
        "until": snapshots[-1].ts + 40,
        "first_seq": snapshots[0].seq,
        "last_seq": snapshots[-1].seq,
        "rows": len(snapshots),
        "end": EndReason.TURN_OVER,
        "size_unit": "shares",
        "min_size": 1.0,
        "size_increment": 1.0,
        "server_version": 176,
    }
    return SubscriptionInterval("SPY", subscription, **{**fields, **changed})


def table_of_books(snapshots: Sequence[Kept], con_id: int | None = CON_ID) -> Any:
    """The snapshots as the archive keeps them."""
    columns: dict[str, Any] = {
        "ts": pa.array([each.ts for each in snapshots], pa.int64()).cast(SNAPSHOTS.field("ts").type),
        "seq": pa.array([each.seq for each in snapshots], pa.int64()),
        "venue": pa.array(["ISLAND"] * len(snapshots)).cast(SNAPSHOTS.field("venue").type),
    }
    for side in ("bid", "ask"):
        rows = [level for each in snapshots for level in _ten(each.bids if side == "bid" else each.asks)]
        for at, what in enumerate(("price", "size", "venue")):
            kind = SNAPSHOTS.field(f"{side}_{what}").type
            values = pa.array([level[at] for level in rows], kind.value_type)
            columns[f"{side}_{what}"] = pa.FixedSizeListArray.from_arrays(values, type=kind)
    columns["con_id"] = pa.array([con_id] * len(snapshots), pa.int64())
    columns["recv_ns"] = pa.array([each.recv_ns for each in snapshots], pa.int64())
    for field in SNAPSHOTS:
        columns.setdefault(field.name, pa.nulls(len(snapshots), field.type))
    return pa.Table.from_arrays([columns[name] for name in SNAPSHOTS.names], schema=SNAPSHOTS)


def _ten(side: Sequence[Level]) -> list[Level]:
    return [*side, *[EMPTY_LEVEL] * (SNAPSHOT_LEVELS - len(side))][:SNAPSHOT_LEVELS]


def keep(
    folder: Path,
    snapshots: Sequence[Kept],
    intervals: Sequence[SubscriptionInterval] = (),
    *,
    symbol: str = "SPY",
    pieces: int = 1,
) -> ArchiveStore:
    """Put them into an archive in `folder`, in so many files; a jump of `seq` is on record as a gap."""
    store = ArchiveStore(str(folder))
    size = -(-len(snapshots) // pieces)
    in_pieces = groupby(enumerate(snapshots), key=lambda each: (each[0] // size, day_of(each[1].ts)))
    for piece in ([snapshot for _, snapshot in group] for _, group in in_pieces):
        span = IdSpan(StreamId(piece[0].ts, piece[0].seq), StreamId(piece[-1].ts, piece[-1].seq))
        store.put(part_place(symbol, day_of(piece[0].ts), span), part_bytes(symbol, span, table_of_books(piece)))
    for before, after in pairwise(snapshots):
        if after.seq > before.seq + 1:
            id_before = StreamId(before.ts, before.seq)
            gap = Gap(symbol, before.seq, after.seq, after.ts, GapCause.NEVER_STORED, id_before)
            store.put(gap_place(symbol, day_of(after.ts), id_before), gap_bytes([gap_row(gap)]))
    for day in {day_of(each.until or each.requested) for each in intervals}:
        ended = [(each.until or each.requested, each) for each in intervals]
        of_day = [(ts, each) for ts, each in ended if day_of(ts) == day]
        ids = sorted(StreamId(ts, each.subscription) for ts, each in of_day)
        span = IdSpan(ids[0], ids[-1])
        content = part_bytes(symbol, span, table_of(of_day), INTERVAL_TABLE)
        store.put(part_place(symbol, day, span, INTERVALS), content)
    return store


def keep_many(folder: Path, count: int) -> ArchiveStore:
    """An archive of so many snapshots, 1 ms apart, in one file: enough for an export to take a moment."""
    ts = pa.array(np.arange(count) + NOON)
    table = table_of_books(turn(NOON, 1, 50)[19:]).take(pa.array(np.arange(count) % 50))
    table = table.set_column(0, SNAPSHOTS.field("ts"), ts.cast(SNAPSHOTS.field("ts").type))
    table = table.set_column(1, SNAPSHOTS.field("seq"), pa.array(np.arange(count) + 1))
    span = IdSpan(StreamId(NOON, 1), StreamId(NOON + count - 1, count))
    store = ArchiveStore(str(folder))
    store.put(part_place("SPY", day_of(NOON), span), part_bytes("SPY", span, table))
    return store


def rotated(folder: Path, *, pieces: int = 2) -> tuple[ArchiveStore, list[Kept], list[SubscriptionInterval]]:
    """Three turns with 45 s between them; in the second one the snapshots 130 to 134 were never stored."""
    turns = [turn(NOON, 1, 60), turn(NOON + 51_000, 80, 80), turn(NOON + 104_000, 179, 40)]
    intervals = [interval_of(each, number) for number, each in enumerate(turns, start=7)]
    snapshots = [each for one in turns for each in one if not 130 <= each.seq <= 134]
    return keep(folder, snapshots, intervals, pieces=pieces), snapshots, intervals


def real_books(shared_data: Path, changes: int) -> list[Kept]:
    """What a recorder stores of the real AAPL recording: the partial books of the beginning, then each row's book."""
    tape = read_tape(shared_data / "aapl_2012-06-21_l10.csv.gz", "NSDQ", limit=changes)
    rows = [(0.0, row) for row in snapshot_rows(tape.opening)]
    books = [(0.0, tape.opening), *((moment.at, moment.book) for moment in tape.moments)]
    for (_, before), (at, after) in pairwise(books):
        rows += [(at, row) for row in rows_of_change(before, after, RowStyle.SHIFT)]
    held, found = Book(), []
    for seq, (at, row) in enumerate(rows, start=1):
        held = apply_rows(held, [row]).clipped(SNAPSHOT_LEVELS)
        bids, asks = ([tuple(level) for level in side] for side in held)
        found.append(Kept(NOON + int(at * 1000), seq, bids, asks))  # type: ignore[arg-type]
    return found


Side = list[tuple[float, float, int]]
"""Price, size and number of rows of each level, best first."""


def levels_of(rows: Sequence[Level], *, is_bid: bool) -> Side:
    """The rows of one price added up, by another way than the package's."""
    prices = sorted({price for price, _, _ in rows}, reverse=is_bid)
    return [(at, sum(row[1] for row in rows if row[0] == at), sum(row[0] == at for row in rows)) for at in prices]


def books_by_price(snapshots: Sequence[Kept]) -> list[tuple[int, int, Side, Side]]:
    """What an export is to hold: unix ms, seq and both sides by price."""
    return [
        (each.ts, each.seq, levels_of(each.bids, is_bid=True), levels_of(each.asks, is_bid=False)) for each in snapshots
    ]


def settled_of(snapshots: Sequence[Kept], intervals: Sequence[SubscriptionInterval]) -> list[Kept]:
    """Those that are the last one of their ms and not before their subscription's book was complete."""
    last = [before for before, after in pairwise(snapshots) if after.ts != before.ts] + list(snapshots[-1:])
    return [each for each in last if any(interval.is_complete_at(each.ts) for interval in intervals)]
