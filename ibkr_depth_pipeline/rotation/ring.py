"""The symbols in the order of their turns, the batch that is subscribed, and the turn under way. Pure.

The order is a weighted round robin, with pins that keep a slot.

Symbols of one weight form a queue: the served go to its back. Which queue serves next is decided by earliest eligible
virtual deadline first: a queue's lag grows by its share of the slots with each slot that is given away, and shrinks
by one when the slot is its own; among the queues with a positive lag the one whose lag would reach one first is served.
So the turns of a symbol are spaced evenly, and with one weight the ring is a plain queue.

Within a turn each symbol has at most one slot; what a heavy symbol can't use of its share goes to the others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ibkr_depth_pipeline.rotation.slots import Slot, SlotEvent

_NO_LAG = 1e-9
"""A lag that is not larger is rounding."""


@dataclass(frozen=True, slots=True)
class Priority:
    """weight: turns for each one of a symbol of weight 1. pinned: it keeps a slot, as far as slots are to spare."""

    weight: int = 1
    pinned: bool = False


_PLAIN = Priority()


class Ring:
    """Who comes next. Refused symbols are not in the ring (retry_schedule.py).

    `slots`: how many subscriptions there may be at once; pins hold at most all but one of them, unless there are only
    pins, and a slot for each. A pin that holds none takes its turns as its weight says.
    """

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._queues: dict[int, deque[str]] = {}
        self._lags: dict[int, float] = {}
        self._weight_of: dict[str, int] = {}  # those in the ring
        self._priorities: dict[str, Priority] = {}  # those that are not plain, in the ring or not
        self._focused: tuple[str, ...] = ()
        self._passed: dict[str, int] = {}  # symbol -> how many it let pass the last time
        for symbol in symbols:
            self.take_in(symbol)

    def __len__(self) -> int:
        return len(self._weight_of)

    def __iter__(self) -> Iterator[str]:
        return self.in_order(0)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._weight_of

    # ---- turns

    def in_order(self, slots: int) -> Iterator[str]:
        """Each symbol once: the pins that hold a slot, then the others by their next turn."""
        pins = self.pins(slots)
        yield from pins
        members = self._members(pins)
        rates = _rates(members, slots - len(pins))
        lags = dict(self._lags)
        waiting = {weight: iter(self._queues[weight]) for weight in members}
        for _ in range(len(self) - len(pins)):
            weight = _next_served(lags, rates, [weight for weight, count in members.items() if count])
            _serve(lags, rates, weight)
            members[weight] -= 1
            yield next(symbol for symbol in waiting[weight] if symbol not in pins)

    def pins(self, slots: int) -> list[str]:
        """The symbols that keep a slot, those in focus first."""
        wanted = [*self._focused, *(symbol for symbol, priority in self._priorities.items() if priority.pinned)]
        pinned = [symbol for symbol in dict.fromkeys(wanted) if symbol in self]
        return pinned[: max(0, slots if len(pinned) == len(self) <= slots else slots - 1)]

    def front(self, slots: int) -> set[str]:
        """The symbols that are to have the slots."""
        return set(islice(self.in_order(slots), slots))

    def following(self, count: int, busy: Collection[str], slots: int) -> list[str]:
        """The first `count` that are not busy, in order; none if count is negative."""
        if count <= 0:
            return []
        return list(islice((symbol for symbol in self.in_order(slots) if symbol not in busy), count))

    def served(self, symbols: Iterable[str], slots: int) -> None:
        """Send symbols that have had their turn together to the back, in this order."""
        pins = self.pins(slots)
        rates = _rates(self._members(pins), slots - len(pins))
        for symbol in symbols:
            weight = self._weight_of[symbol]
            self._queues[weight].remove(symbol)
            self._queues[weight].append(symbol)
            if symbol not in pins:
                _serve(self._lags, rates, weight)

    def let_pass(self, symbol: str, slots: int) -> None:
        """Let the symbol behind it come first; each further time one more, until it is granted a slot."""
        if symbol not in self:
            return
        self._passed[symbol] = places = self._passed.get(symbol, 0) + 1
        weight = self._weight_of[symbol]
        queue, pins = self._queues[weight], self.pins(slots)
        place = queue.index(symbol) + places
        queue.remove(symbol)
        queue.insert(place, symbol)
        if place > len(queue) - 1:  # those of other weights are next
            _serve(self._lags, _rates(self._members(pins), slots - len(pins)), weight)

    def granted(self, symbol: str) -> None:
        """Note that it has a slot: it lets one pass the next time."""
        self._passed.pop(symbol, None)

    # ---- how often

    @property
    def is_even(self) -> bool:
        """Whether the ring is a plain queue."""
        return len(self._queues) <= 1 and not self._focused and not any(map(_is_pinned, self._priorities.values()))

    def longest_gaps(self, slots: int) -> dict[str, int]:
        """symbol -> at most so many turns lie between two of its own; 0: it is always on. Of each in the ring."""
        pins = self.pins(slots)
        members = self._members(pins)
        of_weight = {weight: _longest_gap(members, weight, max(1, slots - len(pins))) for weight in members}
        return {symbol: 0 if symbol in pins else of_weight[weight] for symbol, weight in self._weight_of.items()}

    def shares(self, slots: int) -> dict[str, float]:
        """symbol -> the part of the time that it is to hold a slot, for each in the ring."""
        pins = self.pins(slots)
        members = self._members(pins)
        of_weight = _time_shares(members, max(1, slots - len(pins)))
        return {symbol: 1.0 if symbol in pins else of_weight[self._weight_of[symbol]] for symbol in self._weight_of}

    # ---- what is wished

    def set_priority(self, symbol: str, priority: Priority) -> None:
        """Set a priority from now on; the symbol need not be in the ring."""
        self._priorities.pop(symbol, None)
        if priority != _PLAIN:
            self._priorities[symbol] = priority
        if symbol in self and self._weight_of[symbol] != priority.weight:
            self.remove(symbol)
            self.take_in(symbol)

    def focus(self, symbols: Iterable[str]) -> None:
        """Pin these before all others, instead of those before; they need not be in the ring."""
        self._focused = tuple(symbols)

    def forget(self, symbol: str) -> None:
        """Take a symbol out of the ring, and forget its priority."""
        self.remove(symbol)
        self._priorities.pop(symbol, None)

    # ---- symbols without depth

    def remove(self, symbol: str) -> None:
        """Take a symbol out until it is taken in again. It need not have been in the ring."""
        weight = self._weight_of.pop(symbol, None)
        if weight is None:
            return
        self._queues[weight].remove(symbol)
        if not self._queues[weight]:
            del self._queues[weight]
            lag = self._lags.pop(weight)
            for other in self._lags:
                self._lags[other] += lag / len(self._lags)

    def take_in(self, symbol: str) -> None:
        """Let a symbol that is not in the ring join at the back."""
        self._queue_for(symbol).append(symbol)

    def take_back(self, symbol: str) -> None:
        """Let a symbol that lost its turn to a refusal come next, of those of its weight."""
        if symbol not in self:
            self._queue_for(symbol).appendleft(symbol)

    def _queue_for(self, symbol: str) -> deque[str]:
        weight = self._weight_of[symbol] = self._priorities.get(symbol, _PLAIN).weight
        self._lags.setdefault(weight, 0.0)
        return self._queues.setdefault(weight, deque())

    def _members(self, pins: Collection[str]) -> dict[int, int]:
        """weight -> how many symbols of it take turns, those with none left out."""
        counts = {weight: len(queue) for weight, queue in self._queues.items()}
        for symbol in pins:
            counts[self._weight_of[symbol]] -= 1
        return {weight: count for weight, count in counts.items() if count}


def _is_pinned(priority: Priority) -> bool:
    return priority.pinned


def _rates(members: Mapping[int, int], slots: int) -> dict[int, float]:
    """weight -> which part of the slots its queue is to have; the parts make one."""
    slots = max(1, min(slots, sum(members.values())))
    shares = _time_shares(members, slots)
    return {weight: count * shares[weight] / slots for weight, count in members.items()}


def _next_served(lags: Mapping[int, float], rates: Mapping[int, float], waiting: Sequence[int]) -> int:
    """The weight whose queue is served next: of those that wait and are due, the one that is overdue first."""
    if len(waiting) == 1:
        return waiting[0]
    due = [weight for weight in waiting if lags[weight] + rates[weight] > _NO_LAG] or waiting
    return min(due, key=lambda weight: (round((1 - lags[weight]) / (rates[weight] or _NO_LAG), 6), -weight))


def _serve(lags: dict[int, float], rates: Mapping[int, float], served: int) -> None:
    for weight, rate in rates.items():
        lags[weight] += rate
    lags[served] -= 1


def _time_shares(members: Mapping[int, int], slots: int) -> dict[int, float]:
    """weight -> the part of the time that a symbol of it is on. What one can't use of its share goes to the others."""
    shares: dict[int, float] = {}
    left = dict(members)
    while left:
        total = sum(weight * count for weight, count in left.items())
        full = [weight for weight in left if weight * slots >= total]
        if not full:
            return {**shares, **{weight: weight * slots / total for weight in left}}
        for weight in full:
            shares[weight] = 1.0
            slots -= left.pop(weight)
        if slots <= 0:
            return {**shares, **dict.fromkeys(left, 0.0)}
    return shares


def _longest_gap(members: Mapping[int, int], weight: int, slots: int) -> int:
    """In turns. A queue waits for its share of the slots and, as the lags are below one, at most one share more."""
    if len(members) <= 1:
        return max(0, math.ceil(members.get(weight, 1) / slots) - 1)
    total = sum(each * count for each, count in members.items())
    return max(0, math.ceil((total / weight + 2 * total / (weight * members[weight])) / slots))


# ---- the batch and its turn


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
