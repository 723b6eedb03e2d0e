"""How much is logged of what goes wrong elsewhere: all of it, unless it floods. Pure."""

from __future__ import annotations

from collections import Counter

LINES_A_CYCLE = 100


class LineBudget:
    """LINES_A_CYCLE lines of each event between two calls of `renew`."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()

    def spend(self, event: str) -> bool:
        """Whether one more line of `event` may be logged."""
        self._asked[event] += 1
        return self._asked[event] <= LINES_A_CYCLE

    def renew(self) -> dict[str, int]:
        """event -> how many lines of it were left out since the last call; from now on each has its lines again."""
        asked, self._asked = self._asked, Counter()
        return {event: count - LINES_A_CYCLE for event, count in asked.items() if count > LINES_A_CYCLE}
