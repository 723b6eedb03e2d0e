"""What the page gets, as JSON. Each message is encoded once, for all viewers. Pure.

Texts from Redis (names, venues, reasons) are data: the page shows them as text and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ibkr_depth_pipeline.drawing.alerts import alert_marks, alert_rows, alert_spans
from ibkr_depth_pipeline.schema.alerts import TrackedAlert
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.tui.observed import Stretch, TileSpan, book_of
from ibkr_depth_pipeline.tui.state import Lanes, Liveness, SymbolLine, WatchState
from ibkr_depth_pipeline.web.viewers import ALERTS, FRAME, LANES, STATE

ROW_FIELDS = (
    *("symbol", "state", "venue", "bid", "ask", "age", "slot", "next", "coverage", "rate", "closed_until", "reason"),
)
"""A row of the universe's table, in the order in which its values are sent."""


def state_message(state: WatchState, now_ms: int) -> bytes:
    """The universe and its ingest; `now_ms` is the recorder's clock, unix ms."""
    feed = state.health.feed if state.health is not None else None
    rows = [_row(line, now_ms) for line in state.lines]
    return _json({"k": STATE, "now": now_ms, "problem": state.problem, "feed": _feed(feed), "rows": rows})


def _row(line: SymbolLine, now_ms: int) -> list[Any]:
    bid = line.book.best_bid if line.book else None
    ask = line.book.best_ask if line.book else None
    return [
        line.symbol,
        line.liveness.name.lower(),
        line.venue,
        bid.price if bid else None,
        ask.price if ask else None,
        _age_secs(line, now_ms),
        line.holds_slot,
        line.next_turn_secs,
        line.coverage,
        line.rows_per_sec,
        line.closed_until,
        line.reason,
    ]


def _age_secs(line: SymbolLine, now_ms: int) -> float | None:
    """Since the last row. The ingest's figures, which it is from, are up to two seconds old; the book may be newer."""
    if line.age_secs is None or line.book is None or line.liveness is Liveness.UNKNOWN:
        return line.age_secs
    return min(line.age_secs, max(0, now_ms - line.book.ts) / 1000)


def _feed(feed: IngestHealth | None) -> dict[str, Any]:
    if feed is None:
        return {}
    figures = feed.figures
    counts = {} if figures is None else _counts(figures)
    return {"name": feed.name, "running": feed.running, "problem": feed.problem, "counts": counts}


def _counts(figures: Any) -> dict[str, Any]:
    return {
        "batch": figures.batch_size,
        "turns": figures.turns,
        "309s": figures.refused_309,
        "reconnects": figures.reconnects,
        "lost": figures.lost,
    }


def lanes_message(lanes: Lanes, now_ms: int) -> bytes:
    """Who held a slot when."""
    return _json({"k": LANES, "now": now_ms, "lanes": lanes})


MOST_ALERTS = 200
"""The newest that the page gets."""


def alerts_message(alerts: Sequence[TrackedAlert], now_ms: int) -> bytes:
    """The alerts in order of their time, and the lane that they make."""
    shown = alerts[-MOST_ALERTS:]
    lane = {"spans": alert_spans(shown), "marks": alert_marks(shown)}
    return _json({"k": ALERTS, "now": now_ms, "alerts": alert_rows(shown), "lane": lane})


@dataclass(frozen=True, slots=True)
class LiveEdge:
    """The newest of a symbol: its book, the stretch in which it is or was last observed, None if it never was.

    goes_on: whether a subscription is open.
    """

    symbol: str
    number: int
    book: DepthSnapshot | None
    observed: Stretch | None
    goes_on: bool
    rows_per_sec: float


def frame_message(edge: LiveEdge, now_ms: int) -> bytes:
    """A frame of the heat map; `now_ms` is the recorder's clock, unix ms. Complete in itself."""
    body = {
        "k": FRAME,
        "now": now_ms,
        "symbol": edge.symbol,
        "n": edge.number,
        "venue": edge.book.venue if edge.book else "",
        "book": book_of(edge.book) if edge.book else None,
        "from": edge.observed.start if edge.observed else None,
        "to": edge.observed.end if edge.observed else None,
        "open": edge.goes_on,
        "rate": round(edge.rows_per_sec, 1),
    }
    return _json(body)


def tile_message(symbol: str, span: TileSpan, columns: Sequence[Any], oldest: int | None) -> bytes:
    """A piece of the heat map's past; `oldest` is how far back the stream reaches, unix ms."""
    body = {"symbol": symbol, "step": span.step, "number": span.number, "columns": columns, "oldest": oldest}
    return _json(body)


def _json(body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(body, default=list)  # a level is a named tuple, which orjson does not take for a tuple
