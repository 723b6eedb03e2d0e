"""Rotates the few depth subscriptions over the universe, in turns. Pure: `handle(event, now)` returns commands.

All symbols stand in one ring. A turn takes those at its front, as many as the batch holds; when the turn is over they
go to the back. A symbol that was refused for want of a slot stays at the front; one that has no depth leaves the ring
until it is looked at again. A symbol whose turn follows its own turn keeps its subscription.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.rotation.events import (
    Answered,
    BatchResized,
    Cancel,
    Command,
    Connected,
    Deadline,
    Disconnected,
    Doubted,
    Full,
    Halted,
    IdRejected,
    MarkedUnsupported,
    Recheck,
    Rechecked,
    Reconnect,
    Refused,
    ReleaseRaced,
    Resumed,
    RotationEvent,
    Stop,
    Subscribe,
    Suspended,
    TurnEnded,
    TurnStarted,
    WentOn,
)
from ibkr_depth_pipeline.rotation.leftovers import Leftovers
from ibkr_depth_pipeline.rotation.limits import GRANTED_SECS, AfterDrop, BatchSize, ReleasePause
from ibkr_depth_pipeline.rotation.slots import Slot, SlotEvent

RESUME_SECS = 5.0
"""How long a subscription may stay silent after 1102 before it is asked for again (sources disagree on 1102)."""

RESUBSCRIBE_SPACING_SECS = 1.0
"""At least this long between two requests for a symbol whose subscription dies at once, so as not to storm."""

_MOST_PATIENCE = 4  # a symbol that stays silent is asked for again after 1, 2, and then every 4 caps


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """The operator's numbers. Times are in seconds."""

    max_batch: int
    dwell: float
    first_row_cap: float
    cooldown: float
    recovery_turns: int
    unsupported_retry: float


class RotationController:
    """See the module. `now` is any clock that never goes back, in seconds; request_ids yields ids never used before."""

    def __init__(self, symbols: Iterable[str], plan: RotationPlan, request_ids: Iterator[int]) -> None:
        self._ring = deque(symbols)
        self._plan = plan
        self._request_ids = request_ids
        self._size = BatchSize(plan.max_batch, plan.recovery_turns)
        self._pause = ReleasePause()
        self._active: dict[int, Slot] = {}
        self._leftovers = Leftovers()
        self._after_drop = AfterDrop()
        self._fruitless: dict[str, int] = {}  # symbol -> how often it was asked for anew since it last answered
        self._again: dict[str, float] = {}  # symbol of this turn -> when to subscribe to it again
        self._doubted: dict[int, float] = {}  # request -> when to ask anew if it stays silent
        self._unsupported: dict[str, float] = {}  # symbol -> when to look at it again
        self._asked: list[int] = []  # the requests of the last filling, in order
        self._refused: set[int] = set()  # those of them that met a 309
        self._held = plan.max_batch  # how many we held when we last gave one back
        self._quiet_until = -math.inf
        self._connected = self._suspended = self._stopping = False
        self._turn = 0
        self._turn_started: float | None = None
        self._turn_refused = False
        self._last_turn_secs = 0.0

    # ---- what can be asked of it

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._size.value

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription held or asked for."""
        return {request: slot.symbol for request, slot in self._active.items()}

    def window_secs(self) -> float:
        """How long it takes until each symbol has had its turn, for the batch size in force."""
        turns = math.ceil(max(1, len(self._ring)) / self._size.value)
        return turns * (max(self._plan.dwell, self._last_turn_secs) + self._pause.secs)

    def next_deadline(self) -> float | None:
        """When to call handle(Deadline(), ...) if nothing else happens before; None: never."""
        times = list(self._unsupported.values())
        if self._connected and not self._suspended and not self._stopping:
            times += self._doubted.values()
            times += [max(at, self._gate()) for at in self._again.values()]
            due = self._turn_due()
            if due is not None:
                times.append(due)
            if self._has_room() or (self._active and due is None):
                times.append(max(self._gate(), self._granted_at()))
        return min(times, default=None)

    def handle(self, event: RotationEvent, now: float) -> list[Command]:
        """Take note of `event` and say what to do about it, in order."""
        commands: list[Command] = []
        _HANDLERS[type(event)](self, event, now, commands)
        return commands

    # ---- connection

    def _connect(self, event: Connected, now: float, out: list[Command]) -> None:
        if self._connected:
            self._disconnect(Disconnected(), now, out)
        self._connected, self._suspended = True, False
        # A gateway may still count the subscriptions of a connection that broke, this process's or the last one's.
        self._held = self._size.value
        self._after_drop.connected(now)
        self._fill(now, out)

    def _disconnect(self, event: Disconnected, now: float, out: list[Command]) -> None:
        self._connected = False
        for slot in self._active.values():
            slot.on(SlotEvent.LOST)
        self._active.clear()
        self._leftovers.connection_lost()
        self._pause.released(now)
        self._again.clear()
        self._doubted.clear()
        self._turn_started = None

    def _suspend(self, event: Suspended, now: float, out: list[Command]) -> None:
        self._suspended = True

    def _resume(self, event: Resumed, now: float, out: list[Command]) -> None:
        self._suspended = False
        if event.data_lost:
            for slot in list(self._active.values()):
                self._ask_again(slot, now, out)
        else:
            self._doubt(Doubted(RESUME_SECS), now, out)
        self._advance(now, out)

    def _doubt(self, event: Doubted, now: float, out: list[Command]) -> None:
        # One that has never answered has its cap already, and a cancel before its first row may be ignored.
        for request, slot in self._active.items():
            if slot.answered_at is not None:
                self._doubted[request] = min(now + event.secs, self._doubted.get(request, math.inf))

    def _stop(self, event: Stop, now: float, out: list[Command]) -> None:
        self._stopping = True
        self._again.clear()
        self._doubted.clear()
        for slot in list(self._active.values()):
            self._cancel(slot, now, out)

    # ---- what the gateway says of one request

    def _answer(self, event: Answered, now: float, out: list[Command]) -> None:
        slot = self._active.get(event.request)
        if slot is None:
            self._went_on(WentOn(event.request), now, out)
            return
        self._doubted.pop(event.request, None)
        self._fruitless.pop(slot.symbol, None)
        slot.on(SlotEvent.ANSWERED)
        if slot.answered_at is None:
            slot.answered_at = now
            self._pause.proven()
            self._after_drop.granted()
            self._fill(now, out)

    def _went_on(self, event: WentOn, now: float, out: list[Command]) -> None:
        slot = self._leftovers.rows_came(event.request, now)
        if slot is not None:
            out.append(Cancel(slot.request, slot.symbol))
            self._pause.released(now)

    def _full(self, event: Full, now: float, out: list[Command]) -> None:
        slot = self._retire(event.request, SlotEvent.REFUSED)
        if slot is None:
            return
        secs = self._secs_until_free(slot.request, now)
        if secs is not None:
            out.append(ReleaseRaced(slot.symbol, secs))
        elif self._leftovers.worth_a_connection(now):
            self._turn_refused = True
            out.append(Reconnect(self._leftovers.suspects()))
        else:
            self._shrink(slot.symbol, now, out)
        self._refused.add(slot.request)
        self._break_off_empty_turn()

    def _secs_until_free(self, request: int, now: float) -> float | None:
        """Where a 309 means slots that are free again soon: in how many seconds to ask again. None: they are taken."""
        if not self._may_be_late_release(request):
            return None
        secs = self._after_drop.refused(now)
        if secs is not None:
            self._quiet_until = max(self._quiet_until, now + secs)
            return secs
        return self._pause.secs if self._taught_just_now(now) or self._pause.learn(now) else None

    def _shrink(self, symbol: str, now: float, out: list[Command]) -> None:
        self._turn_refused = True
        self._quiet_until = now + self._plan.cooldown
        previous = self._size.value
        self._size.shrink()
        out.append(BatchResized(self._size.value, previous, symbol))

    def _may_be_late_release(self, request: int) -> bool:
        """Whether this 309 can mean that the gateway has not freed yet what we gave back.

        Not if we ask for more than we held; and as the gateway takes requests in order, not if one that was asked for
        before this one, in the same filling, was granted.
        """
        if request not in self._asked or len(self._active) + 1 > self._held:
            return False
        return all(earlier in self._refused for earlier in self._asked[: self._asked.index(request)])

    def _taught_just_now(self, now: float) -> bool:
        return bool(self._refused) and self._pause.free_at > now

    def _break_off_empty_turn(self) -> None:
        if not self._active and not self._again:
            self._turn_started = None

    def _refuse(self, event: Refused, now: float, out: list[Command]) -> None:
        slot = self._retire(event.request, SlotEvent.REFUSED)
        if slot is not None:
            self._after_drop.granted()  # the gateway looks for a slot before it looks at the contract
            self._set_aside(slot.symbol, event.reason, now, out)
            self._break_off_empty_turn()
            self._fill(now, out)

    def _halt(self, event: Halted, now: float, out: list[Command]) -> None:
        slot = self._active.get(event.request)
        if slot is not None:
            self._ask_again(slot, now, out)
            self._advance(now, out)

    def _reject_id(self, event: IdRejected, now: float, out: list[Command]) -> None:
        slot = self._retire(event.request, SlotEvent.REFUSED)
        if slot is not None:
            self._again[slot.symbol] = now
            self._advance(now, out)

    def _recheck(self, event: Rechecked, now: float, out: list[Command]) -> None:
        if event.symbol in self._ring:
            return
        if event.supported:
            self._unsupported.pop(event.symbol, None)
            self._ring.append(event.symbol)
            self._fill(now, out)
        else:
            self._set_aside(event.symbol, event.reason, now, out)

    # ---- time

    def _advance(self, now: float, out: list[Command]) -> None:
        for symbol in [symbol for symbol, at in self._unsupported.items() if at <= now]:
            self._unsupported[symbol] = now + self._plan.unsupported_retry  # in case the answer never comes
            out.append(Recheck(symbol))
        if not self._connected or self._suspended or self._stopping:
            return
        for request in [request for request, at in self._doubted.items() if at <= now]:
            self._ask_again(self._active[request], now, out)
        due = self._turn_due()
        if due is not None and now >= due:
            self._end_turn(now, out)
        self._fill(now, out)

    def _deadline(self, event: Deadline, now: float, out: list[Command]) -> None:
        self._advance(now, out)

    # ---- turns

    def _end_turn(self, now: float, out: list[Command]) -> None:
        on = set(self._symbols_on())
        served = [symbol for symbol in self._ring if symbol in on]
        self._held = len(self._active)
        self._last_turn_secs = now - (now if self._turn_started is None else self._turn_started)
        out.append(TurnEnded(self._turn, tuple(served), self._last_turn_secs, self._turn_refused))
        if not self._turn_refused:
            previous = self._size.value
            self._size.turn_without_refusal()
            if self._size.value != previous:
                out.append(BatchResized(self._size.value, previous))
        for symbol in served:
            self._ring.remove(symbol)
            self._ring.append(symbol)
        following = set(list(self._ring)[: self._size.value])
        self._again.clear()
        for slot in list(self._active.values()):
            if slot.symbol not in following or self._waited_enough(slot, now):
                self._cancel(slot, now, out)
        self._turn_started = None

    def _waited_enough(self, slot: Slot, now: float) -> bool:
        """Whether a subscription that could go on is to be made anew, since it has never answered."""
        if slot.answered_at is not None:
            return False
        times = self._fruitless.get(slot.symbol, 0)
        patience = self._plan.first_row_cap * min(2**times, _MOST_PATIENCE)
        if now < slot.requested_at + patience:
            return False
        self._fruitless[slot.symbol] = times + 1
        return True

    def _fill(self, now: float, out: list[Command]) -> None:
        """Subscribe up to the batch size, if now is the time to subscribe at all."""
        if not self._connected or self._suspended or self._stopping or now < self._gate():
            return
        if self._after_drop.trying and self._active and now >= self._granted_at():
            self._after_drop.granted()
        most = 1 if self._after_drop.trying else self._size.value
        free = max(0, most - len(self._active))
        chosen = [symbol for symbol, at in self._again.items() if at <= now][:free]
        for symbol in chosen:
            del self._again[symbol]
        busy = self._symbols_on()
        room = max(0, most - len(busy) - len(chosen))
        waiting = (symbol for symbol in self._ring if symbol not in busy and symbol not in chosen)
        chosen += [symbol for symbol, _ in zip(waiting, range(room), strict=False)]
        if chosen:
            self._asked, self._refused = [], set()
        if self._turn_started is None and (chosen or self._active):
            self._turn, self._turn_started, self._turn_refused = self._turn + 1, now, False
            out.append(TurnStarted(self._turn, (*self._symbols_on(), *chosen), self._size.value))
        for symbol in chosen:
            self._subscribe(symbol, now, out)

    def _turn_due(self) -> float | None:
        """When every subscription has had its dwell, or its time to answer; never within a cooldown. None: no turn.

        Subscriptions that join or die within the turn can't draw it out for ever.
        """
        started, plan = self._turn_started, self._plan
        if started is None or not self._active:
            return None
        dues = [
            max(slot.requested_at, started) + plan.first_row_cap
            if slot.answered_at is None
            else max(slot.answered_at, started) + plan.dwell
            for slot in self._active.values()
        ]
        return max(min(max(dues), started + plan.first_row_cap + plan.dwell), self._quiet_until)

    def _gate(self) -> float:
        return max(self._quiet_until, self._pause.free_at)

    def _granted_at(self) -> float:
        """When, of the one request that tries whether slots are free, silence says that they are."""
        if not self._after_drop.trying:
            return -math.inf
        return max((slot.requested_at + GRANTED_SECS for slot in self._active.values()), default=-math.inf)

    def _has_room(self) -> bool:
        return min(self._size.value, len(self._ring)) > len(self._active) + len(self._again)

    def _symbols_on(self) -> list[str]:
        return [*(slot.symbol for slot in self._active.values()), *self._again]

    # ---- single subscriptions

    def _subscribe(self, symbol: str, now: float, out: list[Command]) -> None:
        request = next(self._request_ids)
        self._active[request] = Slot(request, symbol, requested_at=now)
        self._asked.append(request)
        out.append(Subscribe(request, symbol))

    def _cancel(self, slot: Slot, now: float, out: list[Command]) -> None:
        self._retire(slot.request, SlotEvent.CANCELLED)
        self._leftovers.cancelled(slot, now)
        self._pause.released(now)
        out.append(Cancel(slot.request, slot.symbol))

    def _ask_again(self, slot: Slot, now: float, out: list[Command]) -> None:
        """Replace a subscription that is dead or seems so; the cancel makes sure that it holds no slot."""
        self._held = len(self._active)
        self._cancel(slot, now, out)
        self._again[slot.symbol] = max(now, slot.requested_at + RESUBSCRIBE_SPACING_SECS)

    def _retire(self, request: int, event: SlotEvent) -> Slot | None:
        """Take a request out of the turn. None if it is not in it any more."""
        self._doubted.pop(request, None)
        slot = self._active.pop(request, None)
        if slot is not None:
            slot.on(event)
        elif event is SlotEvent.REFUSED:
            self._leftovers.refused(request)
        return slot

    def _set_aside(self, symbol: str, reason: str, now: float, out: list[Command]) -> None:
        if symbol in self._ring:
            self._ring.remove(symbol)
        self._unsupported[symbol] = now + self._plan.unsupported_retry
        out.append(MarkedUnsupported(symbol, reason, self._plan.unsupported_retry))


_HANDLERS: dict[type, Callable[[Any, Any, float, list[Command]], None]] = {
    Connected: RotationController._connect,
    Disconnected: RotationController._disconnect,
    Answered: RotationController._answer,
    WentOn: RotationController._went_on,
    Full: RotationController._full,
    Refused: RotationController._refuse,
    Halted: RotationController._halt,
    IdRejected: RotationController._reject_id,
    Suspended: RotationController._suspend,
    Resumed: RotationController._resume,
    Doubted: RotationController._doubt,
    Rechecked: RotationController._recheck,
    Deadline: RotationController._deadline,
    Stop: RotationController._stop,
}
