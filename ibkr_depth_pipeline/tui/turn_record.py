"""The subscriptions of the last minutes, of all symbols: who held a slot when, and what was observed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ibkr_depth_pipeline.reader import NewTurns
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.tui.observed import Stretch, stretch_of
from ibkr_depth_pipeline.tui.state import KEPT_MS

SILENT_MS = 5_000
"""An open subscription of which the recorder has published nothing for so long does not go on, as far as is known."""


@dataclass
class _Turns:
    cursor: str
    ended: list[SubscriptionInterval] = field(default_factory=list)
    open: SubscriptionInterval | None = None


class TurnRecord:
    """What the reader's `turns_since` has given so far, by symbol."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turns] = {}

    def cursors(self, symbols: Iterable[str], now_ms: int) -> dict[str, str]:
        """What to ask the reader with; a symbol that is new is read from KEPT_MS ago on."""
        return {
            symbol: self._turns.setdefault(symbol, _Turns(str(max(0, now_ms - KEPT_MS)))).cursor for symbol in symbols
        }

    def take(self, news: Mapping[str, NewTurns], now_ms: int) -> None:
        """The reader's answer, at unix ms `now_ms` of the recorder's clock."""
        for symbol, new in news.items():
            turns = self._turns[symbol]
            turns.cursor, turns.open = new.cursor, new.open
            turns.ended += new.ended
            while turns.ended and _last_moment(turns.ended[0]) < now_ms - KEPT_MS:
                del turns.ended[0]

    def newest(self, symbol: str) -> Stretch | None:
        """The last time in which the symbol's book was observed, as far as it is published."""
        turns = self._turns.get(symbol)
        if turns is None:
            return None
        both = [turns.open, *reversed(turns.ended)]
        return next((found for each in both if each is not None and (found := stretch_of(each))), None)

    def goes_on(self, symbol: str, now_ms: int) -> bool:
        """Whether a subscription of the symbol is open now."""
        turns = self._turns.get(symbol)
        return turns is not None and turns.open is not None and now_ms - _last_moment(turns.open) < SILENT_MS

    def lanes(self, now_ms: int, holders: Collection[str]) -> dict[str, list[list[Any]]]:
        """Of each subscription its request, first row, end (unix ms, None for what has not been) and why it ended.

        holders: the symbols that hold a slot. The turns of two symbols are read at different times, and one that is
        over stands as open for a moment: no others go on.
        """
        lanes = {
            symbol: [_lane(each) for each in turns.ended] + self._open_lane(symbol, now_ms, symbol in holders)
            for symbol, turns in self._turns.items()
        }
        return {symbol: lane for symbol, lane in lanes.items() if lane}

    def _open_lane(self, symbol: str, now_ms: int, holds_slot: bool) -> list[list[Any]]:
        turn = self._turns[symbol].open
        if turn is None:
            return []
        end = None if holds_slot and self.goes_on(symbol, now_ms) else _last_moment(turn)
        return [[turn.requested, turn.first_row, end, ""]]


def _lane(turn: SubscriptionInterval) -> list[Any]:
    return [turn.requested, turn.first_row, _last_moment(turn), turn.end.value if turn.end is not None else ""]


def _last_moment(turn: SubscriptionInterval) -> int:
    return max(turn.requested, turn.until or 0)
