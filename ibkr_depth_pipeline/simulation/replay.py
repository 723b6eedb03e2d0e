"""A recording as a source for a feed: at its own speed, at a fixed rate, or as fast as it is read. Pure.

A replay keeps its place while nobody follows it; a later follower gets the present book as inserts first. Every
change reaches every follower: a slow one holds the replay up.
"""

from collections.abc import Sequence

from ibkr_depth_pipeline.simulation.options import AtEnd, Pace, ReplayOptions
from ibkr_depth_pipeline.simulation.rows import Change, RowStyle
from ibkr_depth_pipeline.simulation.sources import Step
from ibkr_depth_pipeline.simulation.tape import Moment, Tape

_TOGETHER = 0.001
"""Seconds: changes of a real-speed replay that are no further apart leave in one write."""
_FAST_CHUNK = 100
_WRITES_A_SECOND = 100


class Replay:
    """Plays a tape. Books become the rows between them; recorded rows go out as they were, one batch a write."""

    lossless = True
    quiet = False

    def __init__(self, tape: Tape, options: ReplayOptions) -> None:
        self.book = tape.opening
        self._tape = tape
        self._options = options
        self._place = 0
        self._clock = 0.0

    @property
    def over(self) -> bool:
        return self._options.at_end is AtEnd.STOP and self._place >= len(self._tape.moments)

    def next_step(self) -> Step | None:
        """The next changes that leave together, and how long after the step before."""
        if self.over or not self._tape.moments:
            return None
        if self._options.pace is Pace.REAL:
            return self._real_step()
        if self._options.pace is Pace.FAST:
            return Step(0.0, self._take(1 if self._tape.holds_rows else _FAST_CHUNK))
        together = 1 if self._tape.holds_rows else max(1, round(self._options.rate / _WRITES_A_SECOND))
        changes = self._take(together)
        return Step(len(changes) / self._options.rate, changes)

    def next_changes(self) -> Sequence[Change]:
        return () if self.over else self._take(1)

    def _real_step(self) -> Step:
        start = self._clock
        changes = self._take(1)
        wait = max(0.0, (self._clock - start) / self._options.speed)
        while not self._tape.holds_rows and changes[-1:] and changes[-1].error is None and self._near(self._clock):
            changes += self._take(1)
        return Step(wait, changes)

    def _near(self, clock: float) -> bool:
        """Whether the next change follows so closely that it leaves in the same write."""
        if self._place >= len(self._tape.moments):
            return False
        return (self._tape.moments[self._place].at - clock) / self._options.speed <= _TOGETHER

    def _take(self, count: int) -> list[Change]:
        changes: list[Change] = []
        # An error ends its step: what comes after it may be for another subscription.
        while len(changes) < count and self._tape.moments and not self.over and not (changes and changes[-1].error):
            if self._place >= len(self._tape.moments):
                changes.append(self._to(Moment(0.0, self._tape.opening)))
                self._place = 0
            else:
                changes.append(self._to(self._tape.moments[self._place]))
                self._place += 1
        return changes

    def _to(self, moment: Moment) -> Change:
        change = Change(self.book, moment.book, RowStyle.SHIFT, moment.rows, moment.error)
        self.book, self._clock = moment.book, moment.at
        return change
