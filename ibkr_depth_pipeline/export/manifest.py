"""The manifest of an export: what the file beside it was made of, by which rule, and what is not in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from typing_extensions import assert_never

from ibkr_depth_pipeline.archive.archived_day import ArchivedDay
from ibkr_depth_pipeline.archive.intervals import observed_ms
from ibkr_depth_pipeline.export.archived import Selection, observed
from ibkr_depth_pipeline.export.formats import Content, FormatNotes
from ibkr_depth_pipeline.price_levels import Array
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval

VERSION = 1


@dataclass
class Tally:
    """What was exported so far: how many snapshots or rows, how many of them settled, from and to which unix ms."""

    exported: int = 0
    settled: int = 0
    first_ts: int | None = None
    last_ts: int | None = None

    def count(self, ts: Array, settled: int = 0) -> None:
        """Adds consecutive ones."""
        if len(ts):
            self.exported += len(ts)
            self.settled += settled
            self.first_ts = int(ts[0]) if self.first_ts is None else self.first_ts
            self.last_ts = int(ts[-1])


def manifest(
    archived: ArchivedDay,
    selection: Selection,
    form: Mapping[str, Any],
    notes: FormatNotes,
    tally: Tally,
    *,
    program: str,
    records: int,
    files: list[dict[str, str | int]],
    made: datetime,
) -> dict[str, Any]:
    """Everything that is known of the export. `form` are the format's name and versions."""
    intervals = observed_in(archived, selection)
    return {
        "manifest_version": VERSION,
        "made": made.astimezone(timezone.utc).isoformat(timespec="seconds"),
        "program": {"name": "ibkr_depth_pipeline", "version": program},
        "source": {"archive": archived.store.url, "date": archived.day.isoformat(), "symbol": archived.symbol},
        "format": dict(form),
        "rule": {
            "levels": _rule(selection),
            "content": selection.content.value,
            "snapshots": "settled" if selection.settled_only else "all",
            "from": _moment(selection.first_ms),
            "before": _moment(selection.end_ms),
        },
        "left_out": list(notes.loses),
        "units": _units(intervals),
        "counts": {
            "snapshots_in_archive": archived.snapshots,
            **_counts(selection, tally),
            "records": records,
            "missing": sum(gap.size for gap in archived.gaps),
        },
        "time_range": {"first": _moment(tally.first_ts), "last": _moment(tally.last_ts)},
        "observed_seconds": observed_ms(intervals, selection.first_ms, selection.end_ms) / 1000,
        "intervals": [_interval(each) for each in intervals],
        "holes": [_hole(gap) for gap in archived.gaps],
        "files": files,
    }


def observed_in(archived: ArchivedDay, selection: Selection) -> list[SubscriptionInterval]:
    """The intervals in which the book was observed at some time of the selection."""
    return [
        each
        for each in observed(archived)
        if (each.first_row or 0) < selection.end_ms and (each.until or each.first_row or 0) >= selection.first_ms
    ]


def _counts(selection: Selection, tally: Tally) -> dict[str, int]:
    if selection.content is Content.INCREMENTS:
        return {"rows": tally.exported}
    return {"snapshots": tally.exported, "settled": tally.settled}


def _rule(selection: Selection) -> str:
    match selection.content:
        case Content.LEVELS:
            return "rows of one price are one level: sizes added up, ct is the number of rows; at most ten rows a side"
        case Content.ROWS:
            return "each row of a snapshot is a level, as it stood; at most ten a side"
        case Content.INCREMENTS:
            return "none: rows of depth as the gateway sent them, one record each"
        case _:
            assert_never(selection.content)


def _units(intervals: Iterable[SubscriptionInterval]) -> dict[str, Any]:
    known = list(intervals)
    return {
        "time": "UTC, of receipt by the recorder; IBKR names no exchange time",
        "price": "the contract's currency",
        "size": _values(each.size_unit or "unknown" for each in known),
        "min_size": _values(each.min_size for each in known),
        "size_increment": _values(each.size_increment for each in known),
        "gateway_server_version": _values(each.server_version or None for each in known),
        "venue": _values(each.venue for each in known),
        "con_id": _values(each.con_id or None for each in known),
        "local_symbol": _values(each.local_symbol or None for each in known),
    }


def _values(found: Iterable[Any]) -> list[Any]:
    """Each value once, in order; None is left out."""
    return [each for each in dict.fromkeys(found) if each is not None]


def _interval(each: SubscriptionInterval) -> dict[str, Any]:
    return {
        "subscription": each.subscription or None,
        "recorded": each.subscription != 0,
        "venue": each.venue,
        "con_id": each.con_id or None,
        "first_row": _moment(each.first_row),
        "complete": _moment(each.complete),
        "until": _moment(each.until),
        "first_seq": each.first_seq,
        "last_seq": each.last_seq,
        "rows": each.rows,
        "end": None if each.end is None else each.end.value,
    }


def _hole(gap: Gap) -> dict[str, Any]:
    return {
        "first_seq": gap.first_seq,
        "last_seq": gap.last_seq,
        "after": _moment(gap.after.ts or None),
        "before": _moment(gap.next_ts),
        "cause": gap.cause.value,
    }


def _moment(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
