"""The symbols in the order of their turns. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice


class Ring:
    """Who comes next. Refused symbols are not in the ring (retry_schedule.py)."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._ring = deque(symbols)

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ring)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ring

    # ---- turns

    def front(self, count: int) -> set[str]:
        """The `count` symbols at the front."""
        return set(islice(self._ring, count))

    def following(self, count: int, busy: Collection[str]) -> list[str]:
        """The first `count` that are not busy, in order; none if count is negative."""
        return list(islice((symbol for symbol in self._ring if symbol not in busy), max(0, count)))

    def served(self, symbols: Iterable[str]) -> None:
        """These have had their turn: they go to the back, in this order."""
        for symbol in symbols:
            self._ring.remove(symbol)
            self._ring.append(symbol)

    # ---- symbols without depth

    def remove(self, symbol: str) -> None:
        """It has no turn until it is taken in again. It need not have been in the ring."""
        if symbol in self._ring:
            self._ring.remove(symbol)

    def take_in(self, symbol: str) -> None:
        """It is not in the ring, and is to have turns: it joins at the back."""
        self._ring.append(symbol)

    def take_back(self, symbol: str) -> None:
        """It lost its turn to a refusal: it comes next."""
        if symbol not in self._ring:
            self._ring.appendleft(symbol)
