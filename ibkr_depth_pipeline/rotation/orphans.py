"""Cancelled subscriptions that may hold their slot all the same. Pure.

A gateway may ignore a cancel that comes before the first row: later cancels then answer 310, and the line holds its
slot until the session ends (docs/ibkr-market-depth.md, "Slots"). Nothing says so but rows that keep coming, or a 309
later on. So cancelled requests are remembered for a while; only a new connection gets rid of them for certain.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.rotation.slots import Slot, SlotEvent, SlotState

LATE_ROWS_SECS = 10.0
"""Rows that come so long after the cancel are not late any more: the line is on."""

_HEEDED_SECS = 2 * LATE_ROWS_SECS
"""The cancel after an ignored one is taken for heeded after so long: had its rows gone on, that was noticed by then."""

FIRST_PACE_SECS = 60.0
LONGEST_PACE_SECS = 1800.0
"""Between two connections given up for the sake of slots: at first, and when that keeps being needed."""

_KEPT = 256

_UNANSWERED = (SlotState.ABANDONED, SlotState.DENIED)


@dataclass(slots=True)
class _Leftover:
    slot: Slot
    cancelled_at: float
    patience: float
    suspected_until: float = float("-inf")


class Orphans:
    """What is left at the gateway of requests that we gave back. `now` is the controller's seconds."""

    def __init__(self) -> None:
        self._left: dict[int, _Leftover] = {}
        self._pace = FIRST_PACE_SECS
        self._gave_up_at = float("-inf")

    def cancelled(self, slot: Slot, now: float) -> None:
        """The cancel of `slot` was sent."""
        self._left[slot.request] = _Leftover(slot, now, LATE_ROWS_SECS)
        if len(self._left) > _KEPT:
            suspected = {left.slot.request for left in self._suspected(now)}
            unsuspected = (request for request in self._left if request not in suspected)
            del self._left[next(unsuspected, next(iter(self._left)))]

    def rows_came(self, request: int, now: float) -> Slot | None:
        """Rows of a cancelled request have come. The slot to cancel once more, if now is the time for that."""
        left = self._left.get(request)
        if left is None:
            return None
        if left.slot.state in _UNANSWERED:  # its first row: from now on a cancel is heard, if ever
            left.slot.on(SlotEvent.ANSWERED)
            left.suspected_until = now + _HEEDED_SECS
        elif now < left.cancelled_at + left.patience:
            return None
        else:
            left.slot.on(SlotEvent.ROWS_WENT_ON)
            left.patience *= 2
        left.slot.on(SlotEvent.CANCELLED)
        left.cancelled_at = now
        return left.slot

    def refused(self, request: int) -> None:
        """The gateway says that the request holds no slot. Of a denied one that is known; rows may disprove it."""
        left = self._left.get(request)
        if left is not None and left.slot.state is not SlotState.DENIED:
            del self._left[request]
            left.slot.on(SlotEvent.REFUSED)

    def connection_lost(self) -> None:
        """Whatever held a slot holds it no more."""
        for left in self._left.values():
            left.slot.on(SlotEvent.LOST)
        self._left.clear()

    def suspects(self, now: float) -> tuple[str, ...]:
        """The symbols of requests that may hold a slot: never answered before their cancel, or still bringing rows."""
        return tuple(left.slot.symbol for left in self._suspected(now))

    def _suspected(self, now: float) -> list[_Leftover]:
        return [
            left
            for left in self._left.values()
            if left.slot.state not in (SlotState.RELEASED, SlotState.DENIED) or now < left.suspected_until
        ]

    def worth_a_connection(self, now: float) -> bool:
        """Whether a slot that is missing now is reason to connect anew; if so, it is taken for done.

        Once in a while only; more often while rows prove that a slot is held.
        """
        states = {left.slot.state for left in self._suspected(now)}
        pace = FIRST_PACE_SECS if SlotState.LINGERING in states else self._pace
        since = now - self._gave_up_at
        if not states or since < pace:
            return False
        self._pace = min(self._pace * 2, LONGEST_PACE_SECS) if since < 2 * self._pace else FIRST_PACE_SECS
        self._gave_up_at = now
        return True
