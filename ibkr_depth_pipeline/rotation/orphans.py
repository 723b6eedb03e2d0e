"""Tracks orphaned subscriptions: cancelled requests that may hold their slot all the same. Pure.

A gateway may ignore a cancel that comes before the first row: later cancels then answer 310, and the line holds its
slot until the session ends (docs/ibkr-market-depth.md, "Slots"). Only rows that keep coming, or a later 309, show it.
So cancelled requests are remembered for a while; only a new connection certainly frees their slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.rotation.slots import Slot, SlotEvent, SlotState

LATE_ROWS_SECS = 10.0
"""Rows that come so long after the cancel are not in flight any more: the line is on."""

_EFFECTIVE_AFTER = 2
"""Times late_rows: the cancel after an ignored one counts as effective then, since rows would have been noticed."""

RECONNECT_PACE = Backoff(first=60.0, longest=1800.0)
"""Seconds between two reconnects that free slots."""

_KEPT = 256

_UNANSWERED = (SlotState.ABANDONED, SlotState.DENIED)


@dataclass(slots=True)
class _Cancelled:
    slot: Slot
    cancelled_at: float
    patience: float
    suspected_until: float = float("-inf")


class Orphans:
    """Remembers cancelled requests. late_rows: LATE_ROWS_SECS, in a test fewer; `now`: the controller's seconds."""

    def __init__(self, late_rows: float = LATE_ROWS_SECS) -> None:
        self._late_rows = late_rows
        self._left: dict[int, _Cancelled] = {}
        self._pace = RECONNECT_PACE.first
        self._reconnected_at = float("-inf")

    def cancelled(self, slot: Slot, now: float) -> None:
        """Remember a request whose cancel was sent."""
        self._left[slot.request] = _Cancelled(slot, now, self._late_rows)
        if len(self._left) > _KEPT:
            suspected = {left.slot.request for left in self._suspected(now)}
            unsuspected = (request for request in self._left if request not in suspected)
            del self._left[next(unsuspected, next(iter(self._left)))]

    def rows_came(self, request: int, now: float) -> Slot | None:
        """The slot to cancel once more, if any, after rows of a cancelled request came."""
        left = self._left.get(request)
        if left is None:
            return None
        if left.slot.state in _UNANSWERED:  # its first row: a cancel works from now on, if ever
            left.slot.on(SlotEvent.ANSWERED)
            left.suspected_until = now + _EFFECTIVE_AFTER * self._late_rows
        elif now < left.cancelled_at + left.patience:
            return None
        else:
            left.slot.on(SlotEvent.ROWS_WENT_ON)
            left.patience *= 2
        left.slot.on(SlotEvent.CANCELLED)
        left.cancelled_at = now
        return left.slot

    def refused(self, request: int) -> None:
        """Forget a request that the gateway reports to hold no slot, unless it was denied: rows may disprove that."""
        left = self._left.get(request)
        if left is not None and left.slot.state is not SlotState.DENIED:
            del self._left[request]
            left.slot.on(SlotEvent.REFUSED)

    def connection_lost(self) -> None:
        """Forget all: a connection that is gone holds no slot."""
        for left in self._left.values():
            left.slot.on(SlotEvent.LOST)
        self._left.clear()

    def suspects(self, now: float) -> tuple[str, ...]:
        """The symbols of requests that may hold a slot: never answered before their cancel, or still bringing rows."""
        return tuple(left.slot.symbol for left in self._suspected(now))

    def _suspected(self, now: float) -> list[_Cancelled]:
        return [
            left
            for left in self._left.values()
            if left.slot.state not in (SlotState.RELEASED, SlotState.DENIED) or now < left.suspected_until
        ]

    def justify_reconnect(self, now: float) -> bool:
        """Whether a missing slot is reason to reconnect now; if so, it counts as done.

        At most at RECONNECT_PACE; more often while rows prove that a slot is held.
        """
        states = {left.slot.state for left in self._suspected(now)}
        pace = RECONNECT_PACE.first if SlotState.LINGERING in states else self._pace
        since = now - self._reconnected_at
        if not states or since < pace:
            return False
        self._pace = RECONNECT_PACE.longer(self._pace) if since < 2 * self._pace else RECONNECT_PACE.first
        self._reconnected_at = now
        return True
