"""The symbols in the order of their turns, and those that stand aside since they have no depth. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice


class Ring:
    """Who comes next. A symbol is in the ring or aside, never both; retry_secs is how long it stands aside."""

    def __init__(self, symbols: Iterable[str], retry_secs: float) -> None:
        self._ring = deque(symbols)
        self._retry_secs = retry_secs
        self._aside: dict[str, float] = {}  # symbol -> when to look at it again

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

    def set_aside(self, symbol: str, now: float) -> None:
        """It has no depth. It need not have been in the ring."""
        if symbol in self._ring:
            self._ring.remove(symbol)
        self._aside[symbol] = now + self._retry_secs

    def take_in(self, symbol: str) -> None:
        """It has depth, and is not in the ring: it joins at the back."""
        self._aside.pop(symbol, None)
        self._ring.append(symbol)

    def rechecks(self) -> list[float]:
        """When the symbols that stand aside are to be looked at again."""
        return list(self._aside.values())

    def due_for_recheck(self, now: float) -> list[str]:
        """Those to be looked at again now; each is named once, and after retry_secs anew should no answer come."""
        due = [symbol for symbol, at in self._aside.items() if at <= now]
        for symbol in due:
            self._aside[symbol] = now + self._retry_secs
        return due
