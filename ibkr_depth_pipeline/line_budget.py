"""How much is logged of what goes wrong elsewhere: all of it, unless it floods. Pure."""

from __future__ import annotations

from collections import Counter

LINES_A_CYCLE = 100

SAME_LINES_A_CYCLE = 5
"""The same of lines that are equal word by word: whoever has read one of them has read all."""


class LineBudget:
    """LINES_A_CYCLE lines of each event between two calls of `renew`, SAME_LINES_A_CYCLE of them equal."""

    def __init__(self) -> None:
        self._logged: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._same: Counter[tuple[str, str]] = Counter()

    def spend(self, event: str, words: str = "") -> bool:
        """Whether one more line of `event` may be logged; `words` are all that it says, "" where none are the same."""
        if self._logged[event] >= LINES_A_CYCLE or (words and self._same[event, words] >= SAME_LINES_A_CYCLE):
            self._left_out[event] += 1
            return False
        self._logged[event] += 1
        if words:
            self._same[event, words] += 1
        return True

    def renew(self) -> dict[str, int]:
        """event -> how many lines of it were left out since the last call; from now on each has its lines again."""
        left_out, self._left_out = self._left_out, Counter()
        self._logged.clear()
        self._same.clear()
        return dict(left_out)
