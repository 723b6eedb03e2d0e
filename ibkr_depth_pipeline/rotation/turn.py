"""The turn under way: since when, and when it is over. Pure; `now` is the controller's seconds."""

from __future__ import annotations

from collections.abc import Collection

from ibkr_depth_pipeline.rotation.slots import Slot


class Turn:
    """The turn under way, if one is.

    Seconds: dwell is how long a subscription lasts from its first row on, first_row_cap how long that row may take.
    """

    def __init__(self, dwell: float, first_row_cap: float) -> None:
        self._dwell = dwell
        self._first_row_cap = first_row_cap
        self._started_at: float | None = None
        self._last_secs = 0.0
        self.number = 0
        """Which turn it is, or the last one was; the first is 1."""
        self.refused = False
        """Whether a 309 that nobody waits out fell into it."""

    @property
    def is_on(self) -> bool:
        """Whether one is under way."""
        return self._started_at is not None

    @property
    def usual_secs(self) -> float:
        """How long a turn takes, judged by the last one."""
        return max(self._dwell, self._last_secs)

    def begin(self, now: float) -> None:
        """The next one begins."""
        self._started_at = now
        self.number += 1
        self.refused = False

    def end(self, now: float) -> float:
        """It is over. How many seconds it took."""
        assert self._started_at is not None
        self._last_secs = now - self._started_at
        self._started_at = None
        return self._last_secs

    def break_off(self) -> None:
        """It came to nothing; its length says nothing of turns."""
        self._started_at = None

    def due(self, slots: Collection[Slot], *, awaited: bool = False) -> float | None:
        """When every one of its subscriptions has had its dwell, or its time to answer. None: no turn.

        Subscriptions that join or die within the turn can't draw it out for ever; nor can those that are still to be
        made anew where there are no others (`awaited`).
        """
        started = self._started_at
        if started is None or not (slots or awaited):
            return None
        dues = [
            max(slot.requested_at, started) + self._first_row_cap
            if slot.answered_at is None
            else max(slot.answered_at, started) + self._dwell
            for slot in slots
        ]
        return min([started + self._first_row_cap + self._dwell, *([max(dues)] if dues else [])])
