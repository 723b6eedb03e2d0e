"""Slots and turns. Pure; times are the controller's seconds.

`Slot` is the life of one depth subscription, as a table; `ActiveBatch` the subscriptions of now, and which symbols of
the ring join them; `Turn` the turn under way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from ibkr_depth_pipeline.errors import InvalidTransition
from ibkr_depth_pipeline.rotation.ring import Ring


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


@dataclass(frozen=True, slots=True)
class TurnOutlook:
    """share: the part of the time in which the symbol holds a slot. next_secs: until its next turn, roughly; 0: now."""

    share: float
    next_secs: float


class ActiveBatch:
    """The subscriptions that are held or requested, and which symbols of the ring join them."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self.active: dict[int, Slot] = {}
        """request -> slot, of every subscription held or requested."""
        self.again: dict[str, float] = {}
        """symbol of this turn -> when to request it again."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is subscribed or to be requested again."""
        return not self.active and not self.again

    def symbols(self) -> list[str]:
        """The symbols of this turn: subscribed, or to be requested again."""
        return [*(slot.symbol for slot in self.active.values()), *self.again]

    def has_answered(self, request: int) -> bool:
        """Whether the request is in use and has had a row or a reset."""
        slot = self.active.get(request)
        return slot is not None and slot.answered_at is not None

    def lose(self) -> None:
        """Drop every subscription: the connection is gone."""
        for slot in self.active.values():
            slot.on(SlotEvent.LOST)
        self.active.clear()
        self.again.clear()

    def end_turn(self, slots: int) -> list[str]:
        """The symbols of this turn: those of the ring, which have been served, then those that leave it."""
        on = self.symbols()
        served = [symbol for symbol in self._ring.in_order(slots) if symbol in on]
        self._ring.served(served, slots)
        return served + [symbol for symbol in on if symbol not in self._ring]

    def following(self, size: int) -> set[str]:
        """The symbols of the next turn; of those to request again, only they are kept."""
        following = self._ring.front(size)
        self.again = {symbol: at for symbol, at in self.again.items() if symbol in following}
        return following

    def choose(self, most: int, most_new: int, slots: int, now: float) -> list[str]:
        """The symbols to subscribe to now: those to request again first, then the next ones of the ring.

        most: subscriptions at once; most_new: requests together; slots: the batch size.
        """
        free = min(max(0, most - len(self.active)), most_new)
        chosen = [symbol for symbol, at in self.again.items() if at <= now][:free]
        for symbol in chosen:
            del self.again[symbol]
        busy = {*self.symbols(), *chosen}
        return chosen + self._ring.following(min(most - len(busy), most_new - len(chosen)), busy, slots)

    def next_at(self, most: int, slots: int, free_at: float) -> float | None:
        """When `choose` has a symbol, if slots are free from free_at on; None: never."""
        busy = self.symbols()
        if self._ring.following(min(1, most - len(busy)), busy, slots):
            return free_at
        again_at = min(self.again.values(), default=None)
        return None if again_at is None else max(free_at, again_at)

    def outlook(self, slots: int, turn_secs: float) -> dict[str, TurnOutlook]:
        """symbol -> what it is to expect, for each in the ring."""
        shares, on = self._ring.shares(slots), set(self.symbols())
        waiting = [symbol for symbol in self._ring.in_order(slots) if symbol not in on]
        free = max(1, slots - len(self._ring.pins(slots)))
        turns = {symbol: 1 + at // free for at, symbol in enumerate(waiting)}
        return {symbol: TurnOutlook(share, turns.get(symbol, 0) * turn_secs) for symbol, share in shares.items()}


class Turn:
    """The turn under way, if any: since when, and when it is over.

    dwell: how long a subscription lasts from its first row on; first_row_cap: how long that row may take.
    """

    def __init__(self, dwell: float, first_row_cap: float) -> None:
        self._dwell = dwell
        self._first_row_cap = first_row_cap
        self._started_at: float | None = None
        self._last_secs = 0.0
        self.number = 0
        """The number of this turn, or of the last one; the first is 1."""
        self.refused = False
        """Whether the batch shrank in it."""

    @property
    def is_on(self) -> bool:
        """Whether a turn is under way."""
        return self._started_at is not None

    @property
    def usual_secs(self) -> float:
        """The expected length of a turn, judged by the last one."""
        return max(self._dwell, self._last_secs)

    def begin(self, now: float) -> None:
        """Begin the next turn."""
        self._started_at = now
        self.number += 1
        self.refused = False

    def end(self, now: float) -> float:
        """End the turn. Returns how many seconds it took."""
        assert self._started_at is not None
        self._last_secs = now - self._started_at
        self._started_at = None
        return self._last_secs

    def abandon(self) -> None:
        """Drop the turn; its length does not count."""
        self._started_at = None

    def due(self, slots: Collection[Slot], *, awaited: bool = False) -> float | None:
        """When each of its subscriptions has had its dwell, or its time to answer. None: no turn.

        Subscriptions that join or die within the turn do not extend it past cap and dwell. awaited: some are still to
        be requested again, so that the turn counts even without a subscription.
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
