"""When snapshots arrived, kept apart from them. Pure.

A snapshot's `ts` does not show it, as that bears the time of a clock that is set forth and back, and never falls. A
mark for each snapshot would cost as much as the books do, so marks are as far apart as they are old: the age of a
snapshot is known to within a thirtieth or a millisecond, and is never taken for less than it is.
"""

from __future__ import annotations

from collections import deque

_FINEST_SECS = 0.001
_MARKS = 64


class Arrivals:
    """Of one symbol. `newest` is when its newest snapshot arrived; None before the first. Times are seconds."""

    __slots__ = ("_marks", "_spacing", "newest")

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()  # (seq, when it arrived), both growing
        self._spacing = _FINEST_SECS
        self.newest: float | None = None

    def note(self, seq: int, now: float, *, alone: bool) -> None:
        """Snapshot `seq` arrives at `now`; alone: none before it waits. The hot path: called for every row."""
        self.newest = now
        marks = self._marks
        if alone:
            marks.clear()
            self._spacing = _FINEST_SECS
        elif marks and now - marks[-1][1] < self._spacing:
            return
        marks.append((seq, now))
        if len(marks) > _MARKS:
            self._marks = deque(mark for at, mark in enumerate(marks) if not at % 2)
            self._spacing *= 2

    def of(self, seq: int) -> float | None:
        """When snapshot `seq` arrived, or a little before that; None if it is older than every mark."""
        found = None
        for number, when in self._marks:
            if number > seq:
                break
            found = when
        return found

    def forget_before(self, seq: int) -> None:
        """Snapshots before `seq` are asked for no more."""
        while len(self._marks) > 1 and self._marks[1][0] <= seq:
            self._marks.popleft()
        if len(self._marks) < _MARKS // 4:
            self._spacing = max(_FINEST_SECS, self._spacing / 2)
