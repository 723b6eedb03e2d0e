"""One depth subscription: its states, by when it must bring rows, and how it may hold its slot after its cancel. Pure.

A gateway may ignore a cancel that comes before the first row: later cancels then answer 310, and the line holds its
slot until the session ends (docs/ibkr-market-depth.md, "Slots"). Only rows that keep coming, or a later 309, show such
an orphaned subscription. So cancelled requests are remembered for a while; only a new connection certainly frees their
slots. Times are the controller's seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.errors import InvalidTransition


class SlotState(Enum):
    """Whether a subscription holds a slot of the account, as far as is known."""

    REQUESTED = "requested"  # requested; only a row or an error will answer
    LIVE = "live"  # the gateway has answered with a row or a reset
    DENIED = "denied"  # refused by an error other than 309, and cancelled: free, unless rows come
    ABANDONED = "abandoned"  # cancelled before any answer: gateways may ignore such a cancel, so it may hold a slot
    RELEASED = "released"  # free; its request id is retired
    LINGERING = "lingering"  # cancelled long ago, and rows keep coming: an orphaned subscription, it holds its slot


class SlotEvent(Enum):
    """An event in the life of a subscription."""

    ANSWERED = "answered"  # a row, or a reset
    REFUSED = "refused"  # an error shows that it holds no slot
    DENIED = "denied"  # any other error before the first row; our cancel makes sure that it holds no slot
    CANCELLED = "cancelled"  # we have sent the cancel
    ROWS_WENT_ON = "rows went on"  # long after the cancel
    LOST = "lost"  # the connection is gone, and every subscription with it


_TRANSITIONS: dict[tuple[SlotState, SlotEvent], SlotState] = {
    (SlotState.REQUESTED, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.REQUESTED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.REQUESTED, SlotEvent.DENIED): SlotState.DENIED,
    (SlotState.REQUESTED, SlotEvent.CANCELLED): SlotState.ABANDONED,
    (SlotState.REQUESTED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.LIVE, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.LIVE, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.LIVE, SlotEvent.CANCELLED): SlotState.RELEASED,
    (SlotState.LIVE, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.DENIED, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.DENIED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.DENIED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.ABANDONED, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.ABANDONED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.ABANDONED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.RELEASED, SlotEvent.ROWS_WENT_ON): SlotState.LINGERING,
    (SlotState.RELEASED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.RELEASED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.LINGERING, SlotEvent.ROWS_WENT_ON): SlotState.LINGERING,
    (SlotState.LINGERING, SlotEvent.CANCELLED): SlotState.LINGERING,
    (SlotState.LINGERING, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.LINGERING, SlotEvent.LOST): SlotState.RELEASED,
}


@dataclass(slots=True)
class Slot:
    """One depth subscription. answered_at: when its first row or reset came."""

    request: int
    symbol: str
    requested_at: float
    answered_at: float | None = None
    state: SlotState = SlotState.REQUESTED

    def on(self, event: SlotEvent) -> None:
        """Change the state by the table. Raises InvalidTransition if the table has no such transition."""
        try:
            self.state = _TRANSITIONS[self.state, event]
        except KeyError:
            raise InvalidTransition(f"request {self.request}: {event.value} while {self.state.value}") from None


# ---- rows that are due


ADVICE_SECS = 3.0
"""How long to wait for rows after an error that may be advice about a line which goes on."""

ADVICE_AGAIN_SECS = 1.0
"""The same for a symbol whose last such error was a refusal."""

ADVISED_LINE_SECS = 10.0
"""How long a line that has had rows may stay silent after an error of its own, before it is requested again."""


class RowDeadlines:
    """By when requests must bring rows, in two tables by request id.

    A doubted request without rows by then is made again; the error of an advised one counts as a refusal.
    first_row_cap: the operator's longest wait for a first row; advised_line: ADVISED_LINE_SECS, in a test fewer.
    """

    def __init__(self, first_row_cap: float, advised_line: float = ADVISED_LINE_SECS) -> None:
        self._first_row_cap = first_row_cap
        self._advised_line = advised_line
        self._doubted: dict[int, float] = {}
        self._advised: dict[int, tuple[float, str]] = {}  # request without rows -> when, symbol
        self._advice_was_refusal: set[str] = set()

    def doubt(self, request: int, at: float) -> None:
        """Expect rows of a request that has had some, by `at` or by an earlier deadline."""
        self._doubted[request] = min(at, self._doubted.get(request, math.inf))

    def doubt_advised(self, request: int, now: float) -> None:
        """Expect rows of a request that has had some, after an error of its own."""
        self.doubt(request, now + self._advised_line)

    def advise(self, request: int, symbol: str, now: float) -> None:
        """Expect rows of a request that has had none, after an error that may be advice."""
        secs = ADVICE_AGAIN_SECS if symbol in self._advice_was_refusal else ADVICE_SECS
        self._advised.setdefault(request, (now + min(secs, self._first_row_cap), symbol))

    def answered(self, request: int, symbol: str) -> None:
        """Rows came."""
        self.forget(request)
        self._advice_was_refusal.discard(symbol)

    def forget(self, request: int) -> None:
        """Expect nothing of the request any more."""
        self._doubted.pop(request, None)
        self._advised.pop(request, None)

    def end_doubts(self) -> None:
        """Expect no rows of doubted requests: nothing could answer meanwhile."""
        self._doubted.clear()

    def clear(self) -> None:
        """Expect nothing."""
        self._doubted.clear()
        self._advised.clear()

    def next_due(self) -> float | None:
        """The next deadline; None: there is none."""
        return min([*self._doubted.values(), *(at for at, _ in self._advised.values())], default=None)

    def take_refused(self, now: float) -> list[int]:
        """The advised requests that brought no row in time; each is returned once."""
        refused = {request: symbol for request, (at, symbol) in self._advised.items() if at <= now}
        for request, symbol in refused.items():
            del self._advised[request]
            self._advice_was_refusal.add(symbol)
        return list(refused)

    def silent(self, now: float) -> list[int]:
        """The doubted requests that brought no row in time."""
        return [request for request, at in self._doubted.items() if at <= now]


_LONGEST_WAIT = 4  # caps: a symbol that stays silent is requested again after 1, 2, and then every 4 of them


class FirstRowBackoff:
    """Back-off for symbols without a first row: the longer one stays silent, the more rarely it is requested again.

    first_row_cap: the first wait for a first row, in seconds.
    """

    def __init__(self, first_row_cap: float) -> None:
        self._backoff = Backoff(first_row_cap, _LONGEST_WAIT * first_row_cap)
        self._fruitless: dict[str, int] = {}  # symbol -> requests repeated since it last answered

    def answered(self, symbol: str) -> None:
        """Reset the back-off: rows came."""
        self._fruitless.pop(symbol, None)

    def is_over(self, slot: Slot, now: float) -> bool:
        """Whether to request a subscription again that has never answered; if so, it counts."""
        if slot.answered_at is not None:
            return False
        times = self._fruitless.get(slot.symbol, 0) + 1
        if now < slot.requested_at + self._backoff.pause(times):
            return False
        self._fruitless[slot.symbol] = times
        return True


# ---- orphaned subscriptions


LATE_ROWS_SECS = 10.0
"""Rows that come so long after the cancel are not in flight any more: the line is on."""

_EFFECTIVE_AFTER = 2
"""Times late_rows: the cancel after an ignored one counts as effective then, since rows would have been noticed."""

RECONNECT_PACE = Backoff(first=60.0, longest=1800.0)
"""Seconds between two reconnects that free slots."""

_KEPT = 256

_UNANSWERED = (SlotState.ABANDONED, SlotState.DENIED)
_FREE = (SlotState.RELEASED, SlotState.DENIED)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the connection and connect again, for `reason`.

    orphaned: the symbols of cancelled requests that seem to hold slots, if only a new connection frees those.
    """

    reason: str
    orphaned: tuple[str, ...] = ()


@dataclass(slots=True)
class _Cancelled:
    slot: Slot
    cancelled_at: float
    patience: float
    suspected_until: float = float("-inf")

    def is_suspected(self, now: float) -> bool:
        return self.slot.state not in _FREE or now < self.suspected_until


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
            unsuspected = (request for request, left in self._left.items() if not left.is_suspected(now))
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
        return [left for left in self._left.values() if left.is_suspected(now)]

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
