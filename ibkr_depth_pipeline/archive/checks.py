"""What can be wrong with a day of a symbol. Pure: columns and figures in, results out.

Columns are numpy arrays: ts (unix ms) and seq have one value a snapshot, prices and sizes ten, best first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId

TRANSIENT_MS = 250
"""The rows of one price move arrive within this; a book that is still malformed later is wrong."""
LIVE_MS = 10_000
"""Without a record of intervals a book is taken to be live from one snapshot to the next, if that comes within this."""
_MOST_NAMED = 5

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The verdict of one check. `problems` name what is wrong, the first few; figures are numbers to plot."""

    check: str
    problems: tuple[str, ...] = ()
    figures: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


# ---- seq without gaps


def check_sequence(ts: Array, seq: Array, gaps: Sequence[Gap], before: StreamId | None = None) -> CheckResult:
    """Each seq is the one before plus 1, but for known gaps, and unless the numbering fell back with a later ts.

    given_twice counts the snapshots of the day whose number an earlier one has, too. `before` is the newest snapshot
    of the days before, if there is one.
    """
    if before is not None:
        ts, seq = np.concatenate(([before.ts], ts)), np.concatenate(([before.seq], seq))
    steps = np.flatnonzero(seq[1:] != seq[:-1] + 1)
    known = _Seqs(gaps)
    problems, unknown, renumbered = [], 0, 0
    for at in steps.tolist():
        last, following = int(seq[at]), int(seq[at + 1])
        if following <= last:
            if ts[at + 1] <= ts[at]:
                problems.append(f"seq {following} follows {last} at the same time: doubled or out of order")
                continue
            renumbered, last = renumbered + 1, _goes_on_from(seq[: at + 1], following)
        missing = known.missing(last + 1, following - 1)
        if missing:
            unknown += missing
            problems.append(f"seq {last + 1} to {following - 1}: {missing} missing, and no hole on record says so")
    falls = int(np.count_nonzero(ts[1:] < ts[:-1]))
    if falls:
        problems.append(f"ts falls {falls} times")
    figures = {
        "rows": len(seq) - (before is not None),
        "known_holes": len(gaps),
        "known_missing": sum(gap.size for gap in gaps),
        "unknown_missing": unknown,
        "renumbered": renumbered,
        "given_twice": len(seq) - len(np.unique(seq)) if renumbered else 0,
    }
    return CheckResult("seq_without_holes", _some(problems), figures)


def _goes_on_from(seq: Array, following: int) -> int:
    """The seq behind which the numbers that fell to `following` go on: the highest below it that there was, or 0.

    A Redis that lost its newest snapshots goes on from the ones that it has left, an emptied one starts over.
    """
    return int(seq[seq < following].max(initial=0))


class _Seqs:
    """The seqs that gaps account for."""

    def __init__(self, gaps: Sequence[Gap]) -> None:
        self._ranges = sorted((gap.first_seq, gap.last_seq) for gap in gaps)

    def missing(self, first: int, last: int) -> int:
        """How many of first..last no gap accounts for."""
        count, at = 0, first
        for low, high in self._ranges:
            if high < at or low > last:
                continue
            count += max(0, low - at)
            at = high + 1
        return count + max(0, last + 1 - at)


# ---- books ordered and not crossed


@dataclass(frozen=True, slots=True)
class BookFaults:
    """For each snapshot, whether its book is wrong in that way."""

    unordered: Array
    crossed: Array
    gapped: Array

    @property
    def any(self) -> Array:
        """Whether the book is wrong in any way."""
        return self.unordered | self.crossed | self.gapped


def book_faults(
    bid_prices: Array,
    bid_sizes: Array,
    ask_prices: Array,
    ask_sizes: Array,
    bid_names: Array | None = None,
    ask_names: Array | None = None,
) -> BookFaults:
    """Checks each book by itself; all are n x 10. Names are numbers that differ where they do; None: all are the same.

    unordered: a level is worse than the one below it, or repeats its price under the same name: several market makers
    may have one price. crossed: the best bid is not below the best ask. gapped: an empty level above one that is not.
    """
    bids, asks = _filled(bid_prices, bid_sizes), _filled(ask_prices, ask_sizes)
    unordered = _any_pair(bids, _unordered(-bid_prices, bid_names)) | _any_pair(asks, _unordered(ask_prices, ask_names))
    crossed = bids[:, 0] & asks[:, 0] & (bid_prices[:, 0] >= ask_prices[:, 0])
    gapped = _any(~bids[:, :-1] & bids[:, 1:]) | _any(~asks[:, :-1] & asks[:, 1:])
    return BookFaults(unordered, crossed, gapped)


def _unordered(prices: Array, names: Array | None) -> Array:
    """Which levels are not better than the one below them, if lower prices are better."""
    above, below = prices[:, :-1], prices[:, 1:]
    same_name: Array | bool = True if names is None else names[:, :-1] == names[:, 1:]
    unordered: Array = (above > below) | ((above == below) & same_name)
    return unordered


def _filled(prices: Array, sizes: Array) -> Array:
    filled: Array = (prices != 0) | (sizes != 0)
    return filled


def _any_pair(filled: Array, wrong: Array) -> Array:
    return _any(filled[:, :-1] & filled[:, 1:] & wrong)


def _any(mask: Array) -> Array:
    return np.asarray(mask.any(axis=1))


def check_books(ts: Array, faults: Sequence[BookFaults]) -> CheckResult:
    """Books are ordered, not crossed and without gaps, but for a moment.

    `faults` are of consecutive pieces of the day, `ts` of the whole of it. A stretch of malformed books is transient
    if its snapshots lie within TRANSIENT_MS of each other.
    """
    kinds = {
        name: np.concatenate([getattr(piece, name) for piece in faults] or [np.zeros(0, dtype=bool)])
        for name in ("unordered", "crossed", "gapped")
    }
    wrong = kinds["unordered"] | kinds["crossed"] | kinds["gapped"]
    problems, transient, lasting = [], 0, 0
    for start, end in _runs(wrong):
        if ts[end - 1] - ts[start] <= TRANSIENT_MS:
            transient += end - start
            continue
        lasting += end - start
        what = ", ".join(name for name, mask in kinds.items() if mask[start:end].any())
        problems.append(f"{what} from ts {int(ts[start])} to {int(ts[end - 1])}, {end - start} snapshots")
    figures = {"rows": len(ts), "transient": transient, "lasting": lasting}
    figures |= {name: int(mask.sum()) for name, mask in kinds.items()}
    return CheckResult("books_ordered_and_not_crossed", _some(problems), figures)


def _runs(mask: Array) -> Iterator[tuple[int, int]]:
    """The stretches of True, as (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


# ---- coverage


@dataclass(frozen=True, slots=True)
class Observed:
    """The times that the record of intervals has as observed, as (start, end) in unix ms, none overlapping another.

    `held` is, for each snapshot, whether it is in one of the recorded intervals.
    """

    spans: Sequence[tuple[int, int]]
    held: Array


def check_coverage(
    ts: Array,
    live: Array,
    opened: int | None,
    closed: int | None,
    least: float = 0.0,
    observed: Observed | None = None,
) -> CheckResult:
    """The share of the session with a live book; fails below `least`.

    That is the time that is on record as observed. Snapshots that are in no recorded interval, as `observed` is None or
    does not hold them, count from one to the next if that comes within LIVE_MS (`inferred_seconds`). `live` is, for
    each snapshot, whether its book holds a row. opened and closed are unix ms, None if there was no session that day:
    then there is nothing to cover.
    """
    if opened is None or closed is None or closed <= opened:
        return CheckResult("coverage", (), {"session_seconds": 0, "covered_seconds": 0.0})
    known = observed or Observed((), np.zeros(len(ts), dtype=bool))
    starts, ends = np.clip(ts[:-1], opened, closed), np.clip(ts[1:], opened, closed)
    counts = live[:-1] & (ts[1:] - ts[:-1] <= LIVE_MS) & ~known.held[:-1] & ~known.held[1:]
    inferred = int((ends - starts)[counts].sum()) if len(ts) > 1 else 0
    covered = inferred + sum(max(0, min(end, closed) - max(start, opened)) for start, end in known.spans)
    share = covered / (closed - opened)
    problems = (f"{share:.1%} of the session has a live book; at least {least:.1%} is asked for",)
    figures = {
        "session_seconds": (closed - opened) / 1000,
        "covered_seconds": covered / 1000,
        "inferred_seconds": inferred / 1000,
        "coverage": share,
        "snapshots_in_session": int(np.count_nonzero((ts >= opened) & (ts < closed))),
    }
    return CheckResult("coverage", problems if share < least else (), figures)


# ---- row counts against the ingest's own figures


@dataclass(frozen=True, slots=True)
class IngestSays:
    """What the recording side knows of a symbol.

    newest is the last-value hash's time and number, None if there is none. A run that began and had its last figures on
    the day in question has `stored`, the snapshots it stored, and the unix ms between which it did. open_interval is
    the interval that goes on, if one does.
    """

    newest: StreamId | None = None
    stored: int | None = None
    stored_from: int = 0
    stored_to: int = 0
    open_interval: SubscriptionInterval | None = None


def check_counts(ts: Array, seq: Array, gaps: Sequence[Gap], says: IngestSays, day_ends: int) -> CheckResult:
    """The archive holds what the ingest reports as stored: the newest seq, and how many. day_ends is unix ms.

    More than that it may hold: Redis may have been restored from an older backup.
    """
    problems = []
    newest = StreamId(int(ts[-1]), int(seq[-1])) if len(ts) else None
    behind = says.newest is not None and (newest is None or newest < says.newest)
    if behind and says.newest is not None and says.newest.ts < day_ends:
        problems.append(f"the newest snapshot is {newest or 'none'}; in Redis it is {says.newest}")
    figures: dict[str, int | float] = {"rows": len(ts), "newest_seq": newest.seq if newest else 0}
    if says.newest is not None:
        figures["newest_seq_in_redis"] = says.newest.seq
    if says.stored is not None:
        kept = int(np.count_nonzero((ts >= says.stored_from) & (ts <= says.stored_to)))
        gone = sum(gap.size for gap in gaps if says.stored_from <= gap.next_ts <= says.stored_to)
        figures |= {"ingest_stored": says.stored, "kept_of_that_run": kept, "missing_of_that_run": gone}
        if kept + gone < says.stored:
            problems.append(f"the ingest has stored {says.stored}; {kept} are kept, and {gone} known to be missing")
    return CheckResult("row_counts", tuple(problems), figures)


# ---- alerts


def check_alerts(kept: Collection[StreamId], in_redis: Sequence[StreamId], settled_ms: int) -> CheckResult:
    """Every alert that the stream still has is kept. One from `settled_ms` (unix ms) on may still wait for its file."""
    missing = [entry for entry in in_redis if entry not in kept]
    lost = [entry for entry in missing if entry.ts < settled_ms]
    problems = _some(f"the alert {entry} is in Redis and not in the archive" for entry in lost)
    figures = {"kept": len(kept), "in_redis": len(in_redis), "waiting": len(missing) - len(lost)}
    return CheckResult("alerts_kept", problems, figures)


def _some(problems: Iterable[str]) -> tuple[str, ...]:
    listed = list(problems)
    more = (f"and {len(listed) - _MOST_NAMED} more",) if len(listed) > _MOST_NAMED else ()
    return (*listed[:_MOST_NAMED], *more)
