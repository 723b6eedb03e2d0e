"""Who held a slot when, as the polls of the ingest's figures show it. Pure."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

KEPT_MS = 15 * 60_000


class SlotHistory:
    """The last minutes of slots, by symbol."""

    def __init__(self) -> None:
        self._held: dict[str, list[list[Any]]] = {}

    def note(self, holders: Set[str], ts: int) -> bool:
        """`holders` hold a slot at unix ms `ts`. Returns whether that has changed."""
        changed = False
        for symbol, turns in self._held.items():
            if turns and turns[-1][1] is None and symbol not in holders:
                turns[-1][1] = ts
                changed = True
        for symbol in holders:
            turns = self._held.setdefault(symbol, [])
            if not turns or turns[-1][1] is not None:
                turns.append([ts, None])
                changed = True
        for turns in self._held.values():
            while turns and turns[0][1] is not None and turns[0][1] < ts - KEPT_MS:
                del turns[0]
        return changed

    def lanes(self) -> dict[str, list[list[Any]]]:
        """From and until of each turn, unix ms; until is None while it goes on."""
        return self._held
