"""Renders who held a slot when over the last minutes: a character for each part of the time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from ibkr_depth_pipeline.schema.intervals import EndReason
from ibkr_depth_pipeline.tui.ladder import BID

LANE_MS = 5 * 60_000
HEADING = f"slot, last {LANE_MS // 60_000} min"

_EXPECTED = (EndReason.TURN_OVER, EndReason.CONTRACT_CHANGED, EndReason.MARKET_CLOSED, EndReason.STOPPED)
_IN_TURN = {"", *(reason.value for reason in _EXPECTED)}
_WHOLE, _PART, _WAIT, _NONE, _OUT_OF_TURN = "\u2588", "\u258c", "\u2500", "\u00b7", "!"
_ASCII = {_WHOLE: "#", _PART: "+", _WAIT: "-", _NONE: "."}
_STYLES = {_WHOLE: BID, _PART: BID, _WAIT: BID, _NONE: "dim", _OUT_OF_TURN: "bold red"}


def lane(turns: Sequence[Sequence[Any]], width: int, now_ms: int, *, ascii_only: bool) -> Text:
    """`width` characters up to `now_ms`: observed (whole, part), waiting for the first row, no slot, ended out of turn.

    turns: of each subscription its request, first row, end (unix ms, None for what has not been) and why it ended.
    """
    text = Text(no_wrap=True, overflow="crop")
    for mark in _marks(turns, width, now_ms):
        text.append(_ASCII.get(mark, mark) if ascii_only else mark, _STYLES[mark])
    return text


def _marks(turns: Sequence[Sequence[Any]], width: int, now_ms: int) -> Iterator[str]:
    step = LANE_MS / width
    for column in range(width):
        start = now_ms - LANE_MS + column * step
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
