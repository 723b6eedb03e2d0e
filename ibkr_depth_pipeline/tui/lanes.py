"""Renders who held a slot when over the last minutes: a character for each part of the time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from ibkr_depth_pipeline.schema.alerts import AlertKind, TrackedAlert
from ibkr_depth_pipeline.schema.intervals import EndReason
from ibkr_depth_pipeline.tui.ladder import BID
from ibkr_depth_pipeline.tui.state import KEPT_MS, Lanes, SymbolLine

LANE_MS = 5 * 60_000
HEADING = f"slot, last {LANE_MS // 60_000} min"

_EXPECTED = (EndReason.TURN_OVER, EndReason.CONTRACT_CHANGED, EndReason.MARKET_CLOSED, EndReason.STOPPED)
_IN_TURN = {"", *(reason.value for reason in _EXPECTED)}
_WHOLE, _PART, _WAIT, _NONE, _OUT_OF_TURN = "\u2588", "\u258c", "\u2500", "\u00b7", "!"
_ASCII = {_WHOLE: "#", _PART: "+", _WAIT: "-", _NONE: "."}
_ALERT_STYLES = {"!": "bold red", "+": "green", _WAIT: "red", _NONE: "dim"}
_LONGEST_NAME = 24
_STYLES = {_WHOLE: BID, _PART: BID, _WAIT: BID, _NONE: "dim", _OUT_OF_TURN: "bold red"}


def lane(turns: Sequence[Sequence[Any]], width: int, now_ms: int, *, ascii_only: bool, span_ms: int = LANE_MS) -> Text:
    """`width` characters up to `now_ms`: observed (whole, part), waiting for the first row, no slot, ended out of turn.

    turns: of each subscription its request, first row, end (unix ms, None for what has not been) and why it ended.
    """
    text = Text(no_wrap=True, overflow="crop")
    for mark in _marks(turns, width, now_ms, span_ms):
        text.append(_ASCII.get(mark, mark) if ascii_only else mark, _STYLES[mark])
    return text


def _marks(turns: Sequence[Sequence[Any]], width: int, now_ms: int, span_ms: int) -> Iterator[str]:
    step = span_ms / width
    for column in range(width):
        start = now_ms - span_ms + column * step
        within = [turn for turn in turns if turn[0] < start + step and (turn[2] is None or turn[2] >= start)]
        yield _mark(within, start, start + step)


def _mark(turns: Sequence[Sequence[Any]], start: float, end: float) -> str:
    if any(until is not None and start <= until < end and why not in _IN_TURN for _, _, until, why in turns):
        return _OUT_OF_TURN
    observed = sum(
        max(0.0, min(end, end if until is None else until) - max(start, first))
        for _, first, until, _ in turns
        if first is not None
    )
    if observed > 0:
        return _WHOLE if observed >= (end - start) / 2 else _PART
    return _WAIT if turns else _NONE


# ---- the lanes alone


def lanes_page(
    lines: Sequence[SymbolLine],
    selected: str,
    lanes: Lanes,
    alerts: Sequence[TrackedAlert],
    width: int,
    room: int | None,
    now_ms: int,
    zoom: int,
    *,
    ascii_only: bool,
) -> Iterator[Text]:
    """Of each symbol its name and its lane over the rest of the width, the selected one among them; last the alerts.

    zoom times LANE_MS is shown, as far as the turns are kept.
    """
    span_ms = min(zoom * LANE_MS, KEPT_MS)
    names = min(_LONGEST_NAME, max([len("alerts"), *(len(line.symbol) for line in lines)])) + 2
    wide = max(1, width - names)
    yield Text(f"{'':{names}}{_heading(span_ms, wide)}", "bold", no_wrap=True, overflow="crop")
    shown = lines if room is None else _around(lines, selected, max(0, room - 2))
    for line in shown:
        here = line.symbol == selected
        name = Text(f"{'>' if here else ' '}{line.symbol}"[: names - 1].ljust(names), "reverse" if here else "")
        yield name + lane(lanes.get(line.symbol, ()), wide, now_ms, ascii_only=ascii_only, span_ms=span_ms)
    yield Text(" alerts".ljust(names)) + _alert_lane(alerts, wide, now_ms, span_ms, ascii_only)


def _heading(span_ms: int, width: int) -> str:
    long = f"who held a slot when, last {span_ms // 60_000} min"
    return long if len(long) <= width else f"last {span_ms // 60_000} min"


def _around(lines: Sequence[SymbolLine], selected: str, count: int) -> Sequence[SymbolLine]:
    at = next((number for number, line in enumerate(lines) if line.symbol == selected), 0)
    first = max(0, min(at - count // 2, len(lines) - count))
    return lines[first : first + count]


def _alert_lane(alerts: Sequence[TrackedAlert], width: int, now_ms: int, span_ms: int, ascii_only: bool) -> Text:
    """A `!` for trouble, a `+` for an all-clear or a notice, a line while a trouble lasts."""
    text, step = Text(no_wrap=True, overflow="crop"), span_ms / width
    for column in range(width):
        start = now_ms - span_ms + column * step
        raised = [each.alert.kind for each in alerts if start <= each.alert.ts < start + step]
        lasts = any(each.until is not None and each.alert.ts < start + step and start < each.until for each in alerts)
        mark = "!" if AlertKind.TROUBLE in raised else "+" if raised else _WAIT if lasts else _NONE
        text.append(_ASCII.get(mark, mark) if ascii_only else mark, _ALERT_STYLES[mark])
    return text
