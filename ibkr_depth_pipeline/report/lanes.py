"""Lanes over time, as drawing/lanes.js draws them: spans and marks, of symbols and of an ingest. Pure."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ibkr_depth_pipeline.drawing.alerts import Mark, Span, alert_marks, alert_spans
from ibkr_depth_pipeline.pictures import SlotShares
from ibkr_depth_pipeline.report.charts import number
from ibkr_depth_pipeline.report.day import RecordedDay
from ibkr_depth_pipeline.report.ingest_day import CONNECTED, DISCONNECTED, SUSPENDED, IngestDay, total
from ibkr_depth_pipeline.report.symbol_day import DepthMap, SymbolDay
from ibkr_depth_pipeline.report.timeline import Array, Bins
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval

_KINDS = {CONNECTED: "good", SUSPENDED: "warn", DISCONNECTED: "bad"}
MOST_TURNS = 6_000
"""Subscriptions on the page, some 20 bytes each; of a day with more the lanes are shown by bins."""
_CELLS = " abcdefghijABCDEFGHIJ"
_SHADES = 10


@dataclass(frozen=True, slots=True)
class Lane:
    """What was the case when, and what happened: its name, their sum, and what is drawn.

    cells: a character a bin, below the spans: a to j, a slot was held without a live book for up to so many tenths of
    the bin; A to J, the book was live; a blank, neither. turns: subscriptions to the millisecond, four values each,
    which stand in the place of the cells of their time: ms from the end of the one before to the request, from there
    to the first row (None without one), from there to the end, and why it ended (0: its turn was over).
    """

    name: str
    total: str
    spans: Sequence[Span] = ()
    marks: Sequence[Mark] = ()
    cells: str = ""
    turns: Sequence[int | str | None] = ()
    of_alerts: bool = False

    @property
    def data(self) -> str:
        """As the page's script reads it."""
        return _json({"cells": self.cells, "turns": self.turns, "spans": self.spans, "marks": self.marks})


def slot_lanes(day: RecordedDay) -> list[Lane]:
    """Who held a slot when, a lane a symbol, with the holes in its snapshots."""
    gaps: dict[str, list[Span]] = {symbol.symbol: [] for symbol in day.symbols}
    for gap in day.gaps:
        gaps[gap.symbol].append(_hole(gap, day.bins))
    turns = {symbol.symbol: _turns(day.intervals.get(symbol.symbol, ()), day.bins) for symbol in day.symbols}
    exact = sum(map(len, turns.values())) <= 4 * MOST_TURNS
    return [
        Lane(
            symbol.symbol,
            f"{symbol.coverage:.1%}",
            gaps[symbol.symbol],
            cells=_cells(symbol, held, day.bins),
            turns=turns[symbol.symbol] if exact else (),
        )
        for symbol, held in zip(day.symbols, _held(day), strict=True)
    ]


def _turns(intervals: Sequence[SubscriptionInterval], bins: Bins) -> list[int | str | None]:
    """See Lane."""
    found: list[int | str | None] = []
    before = bins.start
    for each in intervals:
        end = max(each.requested, each.until or 0)
        if end < bins.start or each.requested >= bins.end:
            continue
        wait, lasts = None if each.first_row is None else each.first_row - each.requested, end - each.requested
        reason = "" if each.end is None else each.end.value
        found += [each.requested - before, wait, lasts - (wait or 0), 0 if each.end is EndReason.TURN_OVER else reason]
        before = end
    return found


def alert_lanes(day: RecordedDay) -> list[Lane]:
    """The alerts and all-clears, a lane for all; none if none is kept."""
    alerts = day.tracked_alerts
    return (
        [Lane("Alerts", number(day.troubles), alert_spans(alerts), alert_marks(alerts), of_alerts=True)]
        if alerts
        else []
    )


def _hole(gap: Gap, bins: Bins) -> Span:
    text = f"{number(gap.size)} snapshots missing: {gap.cause.value.replace('_', ' ')}"
    return Span(max(gap.after.ts, bins.start), gap.next_ts, "bad", text)


def _held(day: RecordedDay) -> list[Array]:
    """For how long (ms) each symbol held a slot, by bin; nothing if no figures were kept."""
    none = np.zeros(day.bins.count)
    return [sum((each.held_ms.get(symbol.symbol, none) for each in day.ingests), none) for symbol in day.symbols]


def _cells(symbol: SymbolDay, held: Array, bins: Bins) -> str:
    live_tenths, held_tenths = (
        np.minimum(np.ceil(ms / bins.step * _SHADES), _SHADES).astype(int) for ms in (symbol.live_ms, held)
    )
    shades = np.where(live_tenths > 0, live_tenths + _SHADES, held_tenths)
    return "".join(_CELLS[shade] for shade in shades.tolist())


def slot_shares(day: RecordedDay) -> SlotShares:
    """The same as numbers, for pages that are not ours."""
    live = [symbol.live_ms for symbol in day.symbols]
    return SlotShares(*([np.minimum(1.0, ms / day.bins.step).tolist() for ms in rows] for rows in (live, _held(day))))


def ingest_lanes(ingest: IngestDay, bins: Bins) -> Iterator[Lane]:
    """How it stood with the gateway, and what went wrong."""
    spans = [Span(each.start, each.end, _KINDS[each.state], each.state) for each in ingest.stretches]
    connected = sum(each.end - each.start for each in spans if each.kind == "good")
    known = sum(each.end - each.start for each in spans)
    yield Lane("Connection", f"{connected / known:.1%}" if known else "", spans)
    lanes = (
        ("Errors 309", ingest.refused_309, True),
        ("Reconnects", ingest.reconnects, True),
        ("Lost", ingest.lost, False),
        ("Failed writes", ingest.write_failures, False),
    )
    for name, events, always in lanes:
        if events or always:
            inside = (event for event in events if bins.start <= event.ts < bins.end)
            marks = [Mark(event.ts, "bad", f"{name}: {number(event.many)}") for event in inside]
            yield Lane(name, number(total(events)), marks=marks)


# ---- the map of a symbol's depth


def depth_data(depth: DepthMap, symbol: SymbolDay) -> str:
    """A symbol's depth as the page's script reads it: its grid of prices, best prices a bin, and packed sizes.

    `sizes` are bytes, compressed: of the bids, then of the asks, bin by bin, row by row from the lowest price; 0 for
    nothing, else 1 to 255 from `least` to `most` by their logarithms, which is exact to some percent.
    """
    both = np.stack([depth.bids.T, depth.asks.T])
    there = both[both > 0]
    least, most = (float(there.min()), float(there.max())) if len(there) else (1.0, 1.0)
    with np.errstate(divide="ignore"):
        part = np.log(np.maximum(both, least) / least) / max(np.log(most / least), 1e-9)
    packed = np.where(both > 0, 1 + np.rint(254 * part), 0).astype(np.uint8)
    grid = {"low": depth.grid.low, "high": depth.grid.high, "unit": depth.grid.height, "rows": depth.grid.count}
    best = {name: _prices(side) for name, side in (("bid", symbol.bid), ("ask", symbol.ask))}
    sizes = base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode()
    return _json({"grid": grid, **best, "least": least, "most": most, "sizes": sizes})


def _prices(side: Array) -> list[float | None]:
    return [None if np.isnan(price) else round(price, 8) for price in side.tolist()]


def _json(body: dict[str, Any]) -> str:
    return orjson.dumps(body, default=list).decode()
