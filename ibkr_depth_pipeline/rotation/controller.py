"""Rotates the few depth subscriptions over the universe, in turns. Pure: `handle(event, now)` returns commands.

All symbols stand in one ring. A turn takes those at its front, as many as the batch holds; when the turn is over they
go to the back. A symbol that was refused for want of a slot stays at the front; one that was refused for anything else
leaves the ring until it is retried; one whose market is closed, until it opens. A symbol whose turn follows its own
turn keeps its subscription.

This module puts together what others know: `ring` who comes next, `turn` when a turn is over, `supply` how many slots
may be asked for and when, and what a 309 means, `leftovers` which cancels may have been ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.rotation.adaptation import FirstRowBackoff
from ibkr_depth_pipeline.rotation.events import (
    AdviceConfirmed,
    Advised,
    Answered,
    BatchResized,
    Cancel,
    Closed,
    Command,
    Connected,
    Deadline,
    Disconnected,
    Doubted,
    EndOutage,
    FarmsReported,
    Focused,
    Full,
    Halted,
    IdRejected,
    MarkedUnsupported,
    Opened,
    Recheck,
    Rechecked,
    Reconnect,
    Refused,
    ReleaseRaced,
    Removed,
    Resumed,
    ResumeUnsaid,
    RotationEvent,
    Stop,
    Subscribe,
    Suspended,
    TurnEnded,
    TurnStarted,
    Wanted,
    WentOn,
)
from ibkr_depth_pipeline.rotation.orphans import Orphans
from ibkr_depth_pipeline.rotation.outage import Outage, Step
from ibkr_depth_pipeline.rotation.retry_schedule import RetrySchedule
from ibkr_depth_pipeline.rotation.ring import Priority, Ring
from ibkr_depth_pipeline.rotation.slot_allocator import SlotAllocator
from ibkr_depth_pipeline.rotation.slots import Slot, SlotEvent
from ibkr_depth_pipeline.rotation.turn import Turn

RESUME_SECS = 5.0
"""How long a subscription may stay silent after 1102 before it is asked for again (sources disagree on 1102)."""

RESUBSCRIBE_SPACING_SECS = 1.0
"""At least this long between two requests for a symbol whose subscription dies or is rejected at once: no storms."""

ADVICE_SECS = 3.0
"""How long rows are waited for after an error that may be advice about a line which goes on."""

ADVICE_AGAIN_SECS = 1.0
"""The same for a symbol whose last such error was a refusal."""

ADVISED_LINE_SECS = 10.0
"""How long a line that has had rows may stay silent after an error of its own, before it is asked for again."""

VENUE_SPACING_SECS = 0.2
"""Between a refusal at one venue and the request at the next one."""


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """The operator's numbers. Times are in seconds."""

    max_batch: int
    dwell: float
    first_row_cap: float
    cooldown: float
    recovery_turns: int
    unsupported_retry: float
    outage: float = 120.0


@dataclass(frozen=True, slots=True)
class TurnOutlook:
    """share: the part of the time in which the symbol holds a slot. next_secs: until its next turn, roughly; 0: now."""

    share: float
    next_secs: float


class RotationController:
    """See the module. `now` is any clock that never goes back, in seconds; request_ids yields ids never used before."""

    def __init__(self, symbols: Iterable[str], plan: RotationPlan, request_ids: Iterator[int]) -> None:
        self._plan = plan
        self._request_ids = request_ids
        self._ring = Ring(symbols)
        self._retries = RetrySchedule(plan.unsupported_retry)
        self._turn = Turn(plan.dwell, plan.first_row_cap)
        self._supply = SlotAllocator(plan.max_batch, plan.recovery_turns, plan.cooldown)
        self._patience = FirstRowBackoff(plan.first_row_cap)
        self._leftovers = Orphans()
        self._outage = Outage(plan.outage)
        self._active: dict[int, Slot] = {}
        self._again: dict[str, float] = {}  # symbol of this turn -> when to subscribe to it again
        self._doubted: dict[int, float] = {}  # request -> when to ask anew if it stays silent
        self._advised: dict[int, float] = {}  # request without rows -> when its error counts as a refusal
        self._advice_was_refusal: set[str] = set()
        self._closed: set[str] = set()
        self._removed: set[str] = set()
        self._connected = self._stopping = False

    # ---- what can be asked of it

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._supply.batch_size

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription held or asked for."""
        return {request: slot.symbol for request, slot in self._active.items()}

    @property
    def feed_is_well(self) -> bool:
        """Whether a farm was said to be well, or rows came, on this connection, and no trouble stands."""
        return self._retries.feed_is_well

    def has_answered(self, request: int) -> bool:
        """Whether the request is in use and has had a row or a reset."""
        slot = self._active.get(request)
        return slot is not None and slot.answered_at is not None

    def window_secs(self) -> float:
        """How long it takes until each symbol of weight 1 has had its turn, for the batch size in force."""
        turns = math.ceil(max(1, len(self._ring)) / self._supply.batch_size)
        return turns * (self._turn.usual_secs + self._supply.pause_secs)

    @property
    def is_even(self) -> bool:
        """Whether all symbols have the same wishes: then window_secs is everyone's."""
        return self._ring.is_even

    def windows_secs(self) -> dict[str, float]:
        """symbol -> from the start of a turn of its own to the start of its next one, at most; of those in the ring."""
        secs = self._turn.usual_secs + self._supply.pause_secs
        gaps = self._ring.longest_gaps(self._supply.batch_size)
        return {symbol: (1 + gap) * secs for symbol, gap in gaps.items()}

    def outlook(self) -> dict[str, TurnOutlook]:
        """symbol -> what it is to expect, of those in the ring."""
        slots = self._supply.batch_size
        shares, on = self._ring.shares(slots), set(self._symbols_on())
        waiting = [symbol for symbol in self._ring.in_order(slots) if symbol not in on]
        free = max(1, slots - len(self._ring.pins(slots)))
        turns = {symbol: 1 + at // free for at, symbol in enumerate(waiting)}
        secs = self._turn.usual_secs + self._supply.pause_secs
        return {symbol: TurnOutlook(share, turns.get(symbol, 0) * secs) for symbol, share in shares.items()}

    def next_deadline(self) -> float | None:
        """When to call handle(Deadline(), ...) if nothing else happens before; None: never."""
        times = [self._outage.due] if self._outage.due is not None else []
        if self._may_ask():
            times += self._doubted.values()
            times += self._advised.values()
            times += [at for at in (self._turn_due(), self._request_at()) if at is not None]
            retry = self._retries.next_due(self._is_alone())
            if retry is not None:
                times.append(retry)
        return min(times, default=None)

    def handle(self, event: RotationEvent, now: float) -> list[Command]:
        """Take note of `event` and say what to do about it, in order."""
        commands: list[Command] = []
        _HANDLERS[type(event)](self, event, now, commands)
        return commands

    # ---- connection

    def _connect(self, event: Connected, now: float, out: list[Command]) -> None:
        if self._connected:
            self._forget_subscriptions(now)
        self._connected = True
        self._outage.connected(event.suspended, now)
        self._supply.connected(now)
        self._retries.connected(now)
        self._advance(now, out)

    def _disconnect(self, event: Disconnected, now: float, out: list[Command]) -> None:
        self._connected = False
        self._outage.disconnected()
        self._retries.disconnected()
        self._forget_subscriptions(now)

    def _forget_subscriptions(self, now: float) -> None:
        for slot in self._active.values():
            slot.on(SlotEvent.LOST)
        self._active.clear()
        self._leftovers.connection_lost()
        self._supply.released(now)
        self._again.clear()
        self._doubted.clear()
        self._advised.clear()
        self._turn.break_off()

    def _suspend(self, event: Suspended, now: float, out: list[Command]) -> None:
        if self._connected and not self._stopping:
            self._outage.begins(now)

    def _resume(self, event: Resumed, now: float, out: list[Command]) -> None:
        if self._outage.suspended:
            self._doubted.clear()  # nothing could answer meanwhile
        if event.said or not self._connected:
            self._outage.ends()
        else:
            self._outage.is_doubted(now)
        self._retries.outage_over(now)
        if event.data_lost:
            self._turn.break_off()  # its end may be near or past, and nothing is to be cancelled before its first row
            for slot in list(self._active.values()):
                self._ask_again(slot, now, out)
        else:
            self._doubt(Doubted(RESUME_SECS), now, out)
        self._advance(now, out)

    def _note_farms(self, event: FarmsReported, now: float, out: list[Command]) -> None:
        if event.well:
            self._retries.farms_well(now, troubled=event.troubled)
        else:
            self._retries.farms_troubled(now)
        self._advance(now, out)

    def _doubt(self, event: Doubted, now: float, out: list[Command]) -> None:
        # One that has never answered has its cap already, and a cancel before its first row may be ignored.
        for request, slot in self._active.items():
            if slot.answered_at is not None:
                self._doubted[request] = min(now + event.secs, self._doubted.get(request, math.inf))

    def _stop(self, event: Stop, now: float, out: list[Command]) -> None:
        self._stopping = True
        self._outage.ends()
        self._again.clear()
        self._doubted.clear()
        self._advised.clear()
        for slot in list(self._active.values()):
            self._cancel(slot, now, out)

    # ---- what the gateway says of one request

    def _answer(self, event: Answered, now: float, out: list[Command]) -> None:
        slot = self._active.get(event.request)
        if slot is None:
            self._went_on(WentOn(event.request), now, out)
            return
        self._doubted.pop(event.request, None)
        self._outage.answered()
        self._advised.pop(event.request, None)
        self._patience.answered(slot.symbol)
        self._retries.answered(slot.symbol)
        self._advice_was_refusal.discard(slot.symbol)
        slot.on(SlotEvent.ANSWERED)
        if slot.answered_at is None:
            slot.answered_at = now
            self._supply.answered(event.request)
            self._fill(now, out)

    def _went_on(self, event: WentOn, now: float, out: list[Command]) -> None:
        slot = self._leftovers.rows_came(event.request, now)
        if slot is not None:
            out.append(Cancel(slot.request, slot.symbol))
            self._supply.released(now)
            self._retries.disproved(slot.symbol, now)

    def _is_advice(self, request: int, now: float) -> bool:
        """Whether an error is about a line that has had rows: it holds its slot, and goes on unless it falls silent."""
        if not self.has_answered(request):
            return False
        self._doubted[request] = min(now + ADVISED_LINE_SECS, self._doubted.get(request, math.inf))
        return True

    def _full(self, event: Full, now: float, out: list[Command]) -> None:
        slot = self._retire(event.request, SlotEvent.REFUSED)
        if slot is None:
            return
        secs = self._supply.secs_until_free(slot.request, len(self._active), now)
        if secs is not None:
            out.append(ReleaseRaced(slot.symbol, secs))
        else:
            self._turn.refused = True
            out.append(self._make_do(slot.symbol, now))
        self._break_off_empty_turn()

    def _make_do(self, symbol: str, now: float) -> Command:
        """A slot is missing that will not come by waiting: get rid of what we left behind, or ask for fewer."""
        if self._leftovers.worth_a_connection(now):
            return Reconnect(self._leftovers.suspects(now))
        previous = self._supply.batch_size
        self._supply.taken(len(self._active), now)
        return BatchResized(self._supply.batch_size, previous, symbol)

    def _break_off_empty_turn(self) -> None:
        if not self._active and not self._again:
            self._turn.break_off()

    def _refuse(self, event: Refused, now: float, out: list[Command]) -> None:
        if self._is_advice(event.request, now):
            return
        slot = self._retire(event.request, SlotEvent.DENIED)
        if slot is None:
            return
        self._leftovers.cancelled(slot, now)
        out.append(Cancel(slot.request, slot.symbol))  # should it hold a line all the same, the line ends
        self._supply.was_free()  # the gateway looks for a slot before it looks at the contract
        if event.elsewhere:
            self._subscribe_later(slot.symbol, now + VENUE_SPACING_SECS)
        else:
            self._set_aside(slot.symbol, event.reason, now, out, resolvable=True)
        self._break_off_empty_turn()
        self._fill(now, out)

    def _advise(self, event: Advised, now: float, out: list[Command]) -> None:
        if event.request in self._active and not self._is_advice(event.request, now):
            was_refusal = self._active[event.request].symbol in self._advice_was_refusal
            secs = min(ADVICE_AGAIN_SECS if was_refusal else ADVICE_SECS, self._plan.first_row_cap)
            self._advised.setdefault(event.request, now + secs)

    def _halt(self, event: Halted, now: float, out: list[Command]) -> None:
        slot = self._active.get(event.request)
        if slot is not None:
            self._ask_again(slot, now, out)
            self._advance(now, out)

    def _reject_id(self, event: IdRejected, now: float, out: list[Command]) -> None:
        if self.has_answered(event.request):  # it may hold its slot all the same
            self._ask_again(self._active[event.request], now, out)
            self._advance(now, out)
            return
        slot = self._retire(event.request, SlotEvent.REFUSED)
        if slot is not None:
            self._subscribe_later(slot.symbol, self._again_at(slot, now))
            self._advance(now, out)

    def _recheck(self, event: Rechecked, now: float, out: list[Command]) -> None:
        if event.symbol in self._ring or self._is_absent(event.symbol):
            return
        if not event.supported:
            self._set_aside(event.symbol, event.reason, now, out, resolvable=False)
            return
        if event.symbol in self._retries:
            self._take_back(event.symbol)
        else:
            self._ring.take_in(event.symbol)
        self._fill(now, out)

    def _take_back(self, symbol: str) -> None:
        self._retries.resolved(symbol)
        self._ring.take_back(symbol)

    # ---- what is wished, and whose market is open

    def _want(self, event: Wanted, now: float, out: list[Command]) -> None:
        self._removed.discard(event.symbol)
        self._ring.set_priority(event.symbol, Priority(event.weight, event.pinned))

    def _focus(self, event: Focused, now: float, out: list[Command]) -> None:
        self._ring.focus(event.symbols)

    def _open(self, event: Opened, now: float, out: list[Command]) -> None:
        self._closed.discard(event.symbol)
        if self._is_absent(event.symbol):
            return
        if event.symbol not in self._ring and event.symbol not in self._retries:
            self._ring.take_in(event.symbol)
        self._fill(now, out)

    def _close(self, event: Closed, now: float, out: list[Command]) -> None:
        self._closed.add(event.symbol)
        self._leave(event.symbol)
        self._ring.remove(event.symbol)
        for slot in [slot for slot in self._active.values() if slot.symbol == event.symbol]:
            if slot.answered_at is not None:  # else at the turn's end, as a cancel before the first row may be ignored
                self._supply.giving_back(len(self._active))
                self._cancel(slot, now, out)
        self._break_off_empty_turn()
        self._advance(now, out)

    def _remove(self, event: Removed, now: float, out: list[Command]) -> None:
        self._closed.discard(event.symbol)
        self._removed.add(event.symbol)
        self._leave(event.symbol)
        self._ring.forget(event.symbol)
        self._break_off_empty_turn()
        self._advance(now, out)

    def _leave(self, symbol: str) -> None:
        self._retries.forget(symbol)
        self._again.pop(symbol, None)

    def _is_absent(self, symbol: str) -> bool:
        return symbol in self._closed or symbol in self._removed

    # ---- time

    def _advance(self, now: float, out: list[Command]) -> None:
        step = self._outage.step(now)
        if step is Step.ASK_AGAIN:
            out.append(ResumeUnsaid())
            self._resume(Resumed(data_lost=True, said=False), now, out)
        elif step is Step.RECONNECT:
            out.append(EndOutage())
        if not self._may_ask():
            return
        self._retry(now, out)
        for request in [request for request, at in self._advised.items() if at <= now]:
            del self._advised[request]
            self._advice_was_refusal.add(self._active[request].symbol)
            out.append(AdviceConfirmed(request))
        for request in [request for request, at in self._doubted.items() if at <= now]:
            self._ask_again(self._active[request], now, out)
        due = self._turn_due()
        if due is not None and now >= due:
            self._end_turn(now, out)
        self._fill(now, out)

    def _retry(self, now: float, out: list[Command]) -> None:
        for symbol, resolve in self._retries.due(now, self._is_alone()):
            if resolve:
                out.append(Recheck(symbol))
            else:
                self._ring.take_back(symbol)

    def _is_alone(self) -> bool:
        """Whether every symbol is refused for now."""
        return not len(self._ring)

    def _deadline(self, event: Deadline, now: float, out: list[Command]) -> None:
        self._advance(now, out)

    # ---- turns

    def _end_turn(self, now: float, out: list[Command]) -> None:
        on, slots = self._symbols_on(), self._supply.batch_size
        served = [symbol for symbol in self._ring.in_order(slots) if symbol in on]
        leaving = [symbol for symbol in on if symbol not in self._ring]
        out.append(TurnEnded(self._turn.number, (*served, *leaving), self._turn.end(now), self._turn.refused))
        if not self._turn.refused:
            self._grow(out)
        self._ring.served(served, slots)
        self._make_way(now, out)

    def _grow(self, out: list[Command]) -> None:
        previous = self._supply.batch_size
        self._supply.turn_without_refusal()
        if self._supply.batch_size != previous:
            out.append(BatchResized(self._supply.batch_size, previous))

    def _make_way(self, now: float, out: list[Command]) -> None:
        """Give back what is not to go on in the next turn."""
        following = self._ring.front(self._supply.batch_size)
        self._again = {symbol: at for symbol, at in self._again.items() if symbol in following}
        self._supply.giving_back(len(self._active))
        for slot in list(self._active.values()):
            if slot.symbol not in following or self._patience.runs_out(slot, now):
                self._cancel(slot, now, out)

    def _turn_due(self) -> float | None:
        """When the turn is over; never within a cooldown. None: no turn."""
        due = self._turn.due(self._active.values(), awaited=bool(self._again))
        return None if due is None else max(due, self._supply.quiet_until)

    def _fill(self, now: float, out: list[Command]) -> None:
        """Subscribe up to the batch size, if now is the time to subscribe at all."""
        if not self._may_ask() or now < self._supply.free_at:
            return
        self._supply.stayed_silent(self._active.values(), now)
        chosen = self._choose(now)
        if not self._turn.is_on and (chosen or self._active):
            self._turn.begin(now)
            out.append(TurnStarted(self._turn.number, (*self._symbols_on(), *chosen), self._supply.batch_size))
        if chosen:
            self._supply.asked([self._subscribe(symbol, now, out) for symbol in chosen], now)

    def _choose(self, now: float) -> list[str]:
        """Whom to subscribe to now: those to be asked for again first, then who comes next."""
        most, most_new = self._supply.at_once, self._supply.most_new(now)
        free = min(max(0, most - len(self._active)), most_new)
        chosen = [symbol for symbol, at in self._again.items() if at <= now][:free]
        for symbol in chosen:
            del self._again[symbol]
        busy = {*self._symbols_on(), *chosen}
        return chosen + self._ring.following(
            min(most - len(busy), most_new - len(chosen)), busy, self._supply.batch_size
        )

    def _request_at(self) -> float | None:
        """When `_fill` has something to do, if nothing else happens before; None: not by itself."""
        free_at = self._supply.free_at
        if self._active and not self._turn.is_on:
            return free_at  # its turn begins
        most = self._supply.at_once
        if len(self._active) >= most:
            granted_at = self._supply.granted_at(self._active.values())
            return max(free_at, granted_at) if granted_at > -math.inf else None
        busy = self._symbols_on()
        if self._ring.following(min(1, most - len(busy)), busy, self._supply.batch_size):
            return free_at
        again_at = min(self._again.values(), default=None)
        return None if again_at is None else max(free_at, again_at)

    def _may_ask(self) -> bool:
        return self._connected and not self._outage.suspended and not self._stopping

    def _symbols_on(self) -> list[str]:
        return [*(slot.symbol for slot in self._active.values()), *self._again]

    # ---- single subscriptions

    def _subscribe(self, symbol: str, now: float, out: list[Command]) -> int:
        request = next(self._request_ids)
        self._active[request] = Slot(request, symbol, requested_at=now)
        out.append(Subscribe(request, symbol))
        return request

    def _cancel(self, slot: Slot, now: float, out: list[Command]) -> None:
        self._retire(slot.request, SlotEvent.CANCELLED)
        self._leftovers.cancelled(slot, now)
        self._supply.released(now)
        out.append(Cancel(slot.request, slot.symbol))

    def _ask_again(self, slot: Slot, now: float, out: list[Command]) -> None:
        """Replace a subscription that is dead or seems so; the cancel makes sure that it holds no slot."""
        self._supply.giving_back(len(self._active))
        self._cancel(slot, now, out)
        self._subscribe_later(slot.symbol, self._again_at(slot, now))

    def _subscribe_later(self, symbol: str, at: float) -> None:
        if not self._is_absent(symbol):
            self._again[symbol] = at

    @staticmethod
    def _again_at(slot: Slot, now: float) -> float:
        return max(now, slot.requested_at + RESUBSCRIBE_SPACING_SECS)

    def _retire(self, request: int, event: SlotEvent) -> Slot | None:
        """Take a request out of the turn. None if it is not in it any more."""
        self._doubted.pop(request, None)
        self._advised.pop(request, None)
        slot = self._active.pop(request, None)
        if slot is not None:
            slot.on(event)
        elif event in (SlotEvent.REFUSED, SlotEvent.DENIED):
            self._leftovers.refused(request)
        return slot

    def _set_aside(self, symbol: str, reason: str, now: float, out: list[Command], *, resolvable: bool) -> None:
        if self._is_absent(symbol):
            return
        self._ring.remove(symbol)
        secs = self._retries.refused(symbol, now, resolvable=resolvable)
        out.append(MarkedUnsupported(symbol, reason, secs))


_HANDLERS: dict[type, Callable[[Any, Any, float, list[Command]], None]] = {
    Connected: RotationController._connect,
    Disconnected: RotationController._disconnect,
    Answered: RotationController._answer,
    WentOn: RotationController._went_on,
    Full: RotationController._full,
    Refused: RotationController._refuse,
    Advised: RotationController._advise,
    FarmsReported: RotationController._note_farms,
    Halted: RotationController._halt,
    IdRejected: RotationController._reject_id,
    Suspended: RotationController._suspend,
    Resumed: RotationController._resume,
    Doubted: RotationController._doubt,
    Rechecked: RotationController._recheck,
    Wanted: RotationController._want,
    Focused: RotationController._focus,
    Closed: RotationController._close,
    Opened: RotationController._open,
    Removed: RotationController._remove,
    Deadline: RotationController._deadline,
    Stop: RotationController._stop,
}
