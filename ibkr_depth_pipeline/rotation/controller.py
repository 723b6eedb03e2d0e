"""Rotates the few depth subscriptions over the universe, in turns. Pure: `handle(event, now)` returns commands.

All symbols stand in one ring. A turn takes those at its front, as many as the batch holds; when the turn is over they
go to the back. A symbol whose slot was refused stays at the front, or, where no slot is held at all, lets others pass;
one that was refused for anything else leaves the ring until it is retried; one whose market is closed, until it opens.
A symbol whose turn follows its own turn keeps its subscription.

The controller composes: `ring` (which symbols come next, the batch, the turn), `slots` (each subscription, also after
its cancel), `slot_allocator` (how many slots, and what a 309 means) and `retry_schedule` (which symbols take turns, and
what is tried again, and when).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from typing_extensions import assert_never

from ibkr_depth_pipeline.model import RequestIdRejected, SlotRefused
from ibkr_depth_pipeline.rotation import events
from ibkr_depth_pipeline.rotation.retry_schedule import Eligibility, Outage, OutageAction, RetrySchedule
from ibkr_depth_pipeline.rotation.ring import ActiveBatch, Ring, Turn, TurnOutlook
from ibkr_depth_pipeline.rotation.slot_allocator import SlotAllocator, SlotReleasedLate
from ibkr_depth_pipeline.rotation.slots import FirstRowBackoff, Orphans, Reconnect, RowDeadlines, Slot, SlotEvent

RESUME_SECS = 5.0
"""How long a subscription may stay silent after 1102 before it is requested again (sources disagree on 1102)."""

RESUBSCRIBE_SPACING_SECS = 1.0
"""The least time between two requests for a symbol whose subscription dies or is rejected at once: no storms."""

VENUE_SPACING_SECS = 0.2
"""The time between a refusal at one venue and the request at the next one."""

LEAKED = "cancelled subscriptions still hold slots"
OUTAGE_GOES_ON = "connectivity was lost (1100), and lines that were asked for again bring nothing"


Commands = list[events.RotationCommand]


class RotationController:
    """Decides who is subscribed. `now`: seconds of a clock that never goes back; request_ids: ids never used before."""

    def __init__(self, symbols: Iterable[str], plan: events.RotationPlan, request_ids: Iterator[int]) -> None:
        self._request_ids = request_ids
        self._ring = Ring(symbols)
        self._retries = RetrySchedule(plan.unsupported_retry)
        self._turn = Turn(plan.dwell, plan.first_row_cap)
        self._allocator = SlotAllocator(plan.max_batch, plan.recovery_turns, plan.cooldown)
        self._silent = FirstRowBackoff(plan.first_row_cap)
        self._orphans = Orphans(plan.late_rows)
        self._outage = Outage(plan.outage)
        self._rows_due = RowDeadlines(plan.first_row_cap, plan.advised_line)
        self._batch = ActiveBatch(self._ring)
        self._eligible = Eligibility(self._ring, self._retries)
        self._connected = self._stopping = False

    # ---- state

    @property
    def batch_size(self) -> int:
        """Most subscriptions at once for now."""
        return self._allocator.batch_size

    @property
    def subscribed(self) -> dict[int, str]:
        """request -> symbol of every subscription held or requested."""
        return {request: slot.symbol for request, slot in self._batch.active.items()}

    @property
    def feed_is_well(self) -> bool:
        """Whether a farm was reported well, or rows came, on this connection, and no trouble stands."""
        return self._retries.feed_is_well

    def has_answered(self, request: int) -> bool:
        """Whether the request is in use and has had a row or a reset."""
        return self._batch.has_answered(request)

    def window_secs(self) -> float:
        """How long it takes until each symbol of weight 1 has had its turn at the current batch size."""
        turns = math.ceil(max(1, len(self._ring)) / self._allocator.batch_size)
        return turns * self._turn_secs()

    @property
    def is_even(self) -> bool:
        """Whether all symbols have the same priority, so that window_secs holds for each."""
        return self._ring.is_even

    def windows_secs(self) -> dict[str, float]:
        """symbol -> from the start of its turn to the start of its next one, at most; of those in the ring."""
        gaps = self._ring.longest_gaps(self._allocator.batch_size)
        return {symbol: (1 + gap) * self._turn_secs() for symbol, gap in gaps.items()}

    def outlook(self) -> dict[str, TurnOutlook]:
        """symbol -> what it is to expect, of those in the ring."""
        return self._batch.outlook(self._allocator.batch_size, self._turn_secs())

    def _turn_secs(self) -> float:
        return self._turn.usual_secs + self._allocator.pause_secs

    def next_deadline(self) -> float | None:
        """When to call handle(events.Deadline(), ...) if nothing else happens before; None: never."""
        times = [self._outage.due] if self._outage.due is not None else []
        if self._may_request():
            dues = (self._rows_due.next_due(), self._turn_due(), self._request_at(), self._eligible.next_retry())
            times += [at for at in dues if at is not None]
        return min(times, default=None)

    def handle(self, event: events.RotationEvent, now: float) -> Commands:
        """Handle `event`. Returns what to do, in order."""
        out: Commands = []
        match event:
            case events.Connected():
                self._connect(event, now, out)
            case events.Disconnected():
                self._disconnect(now)
            case events.Answered():
                self._answer(event, now, out)
            case events.LateRows():
                self._late_rows(event.request, now, out)
            case SlotRefused():
                self._refuse_slot(event.request, now, out)
            case events.Refused():
                self._refuse(event, now, out)
            case events.Advised():
                self._advise(event.request, now)
            case events.FarmsReported():
                self._report_farms(event, now, out)
            case events.Halted():
                self._halt(event.request, now, out)
            case RequestIdRejected():
                self._reject_id(event.request, now, out)
            case events.Suspended():
                self._suspend(now)
            case events.Resumed():
                self._resume(event, now, out)
            case events.Doubted():
                self._doubt(event.secs, now)
            case events.Rechecked():
                out += self._eligible.recheck(event, now)
                self._fill(now, out)
            case events.Wanted():
                self._eligible.want(event)
            case events.Focused():
                self._ring.focus(event.symbols)
            case events.Closed():
                self._close(event.symbol, now, out)
            case events.Opened():
                if self._eligible.open(event.symbol, resolved=event.resolved):
                    self._fill(now, out)
            case events.Removed():
                self._eligible.remove(event.symbol)
                self._leave(event.symbol, now, out)
            case events.Deadline():
                self._advance(now, out)
            case events.Stop():
                self._stop(now, out)
            case _:
                assert_never(event)
        return out

    # ---- connection

    def _connect(self, event: events.Connected, now: float, out: Commands) -> None:
        if self._connected:
            self._forget_subscriptions(now)
        self._connected = True
        self._outage.connected(event.suspended, now)
        self._allocator.begin_with(event.slots, event.release_pause)
        self._allocator.connected(now)
        self._retries.connected(now)
        self._advance(now, out)

    def _disconnect(self, now: float) -> None:
        self._connected = False
        self._outage.disconnected()
        self._retries.disconnected()
        self._forget_subscriptions(now)

    def _forget_subscriptions(self, now: float) -> None:
        self._batch.lose()
        self._orphans.connection_lost()
        self._allocator.released(now)
        self._rows_due.clear()
        self._turn.abandon()

    def _suspend(self, now: float) -> None:
        if self._connected and not self._stopping:
            self._outage.begins(now)

    def _resume(self, event: events.Resumed, now: float, out: Commands) -> None:
        if self._outage.suspended:
            self._rows_due.end_doubts()
        if event.reported or not self._connected:
            self._outage.ends()
        else:
            self._outage.may_be_over(now)
        self._retries.outage_over(now)
        if event.data_lost:
            self._turn.abandon()  # its end may be near, and no request is to be cancelled before its first row
            for slot in list(self._batch.active.values()):
                self._ask_again(slot, now, out)
        else:
            self._doubt(RESUME_SECS, now)
        self._advance(now, out)

    def _report_farms(self, event: events.FarmsReported, now: float, out: Commands) -> None:
        if event.well:
            self._retries.farms_well(now, troubled=event.troubled)
        else:
            self._retries.farms_troubled(now)
        self._advance(now, out)

    def _doubt(self, secs: float, now: float) -> None:
        # One that has never answered has its cap already, and a cancel before its first row may be ignored.
        for request, slot in self._batch.active.items():
            if slot.answered_at is not None:
                self._rows_due.doubt(request, now + secs)

    def _stop(self, now: float, out: Commands) -> None:
        self._stopping = True
        self._outage.ends()
        self._batch.again.clear()
        self._rows_due.clear()
        for slot in list(self._batch.active.values()):
            self._cancel(slot, now, out)

    # ---- answers and errors of one request

    def _answer(self, event: events.Answered, now: float, out: Commands) -> None:
        slot = self._batch.active.get(event.request)
        if slot is None:
            self._late_rows(event.request, now, out)
            return
        self._outage.answered()
        self._rows_due.answered(event.request, slot.symbol)
        self._silent.answered(slot.symbol)
        self._retries.answered(slot.symbol)
        self._ring.granted(slot.symbol)
        slot.on(SlotEvent.ANSWERED)
        if slot.answered_at is None:
            slot.answered_at = now
            self._allocator.answered(event.request)
            self._fill(now, out)

    def _late_rows(self, request: int, now: float, out: Commands) -> None:
        slot = self._orphans.rows_came(request, now)
        if slot is not None:
            out.append(events.Cancel(slot.request, slot.symbol))
            self._allocator.released(now)
            self._retries.disproved(slot.symbol, now)

    def _is_advice(self, request: int, now: float) -> bool:
        """Whether an error is about a line that has had rows: it holds its slot, and goes on unless it falls silent."""
        if not self.has_answered(request):
            return False
        self._rows_due.doubt_advised(request, now)
        return True

    def _refuse_slot(self, request: int, now: float, out: Commands) -> None:
        slot = self._retire(request, SlotEvent.REFUSED)
        if slot is None:
            return
        secs = self._allocator.secs_until_free(slot.request, len(self._batch.active), now)
        if secs is not None:
            out.append(SlotReleasedLate(slot.symbol, secs))
        else:
            self._turn.refused = True
            out.append(self._on_slot_taken(slot.symbol, now))
            if not self._batch.active:
                # it may be about the symbol: others are tried first
                self._ring.let_pass(slot.symbol, self._allocator.batch_size)
        self._abandon_empty_turn()

    def _on_slot_taken(self, symbol: str, now: float) -> events.RotationCommand:
        """Free orphaned subscriptions if a slot is missing that will not come by waiting, or else shrink the batch."""
        if self._orphans.justify_reconnect(now):
            return Reconnect(LEAKED, self._orphans.suspects(now))
        return self._allocator.taken(len(self._batch.active), now, symbol)

    def _abandon_empty_turn(self) -> None:
        if self._batch.is_empty:
            self._turn.abandon()

    def _refuse(self, event: events.Refused, now: float, out: Commands) -> None:
        if self._is_advice(event.request, now):
            return
        slot = self._retire(event.request, SlotEvent.DENIED)
        if slot is None:
            return
        self._orphans.cancelled(slot, now)
        out.append(events.Cancel(slot.request, slot.symbol))  # in case it holds a line all the same
        self._allocator.was_free()  # the gateway checks for a slot before it checks the contract
        if event.elsewhere:
            self._subscribe_later(slot.symbol, now + VENUE_SPACING_SECS)
        else:
            out += self._eligible.set_aside(slot.symbol, event.reason, now, resolvable=True)
        self._abandon_empty_turn()
        self._fill(now, out)

    def _advise(self, request: int, now: float) -> None:
        if request in self._batch.active and not self._is_advice(request, now):
            self._rows_due.advise(request, self._batch.active[request].symbol, now)

    def _halt(self, request: int, now: float, out: Commands) -> None:
        slot = self._batch.active.get(request)
        if slot is not None:
            self._ask_again(slot, now, out)
            self._advance(now, out)

    def _reject_id(self, request: int, now: float, out: Commands) -> None:
        if self.has_answered(request):  # it may hold its slot all the same
            self._ask_again(self._batch.active[request], now, out)
            self._advance(now, out)
            return
        slot = self._retire(request, SlotEvent.REFUSED)
        if slot is not None:
            self._subscribe_later(slot.symbol, self._again_at(slot, now))
            self._advance(now, out)

    # ---- symbols that leave

    def _close(self, symbol: str, now: float, out: Commands) -> None:
        self._eligible.close(symbol)
        for slot in [slot for slot in self._batch.active.values() if slot.symbol == symbol]:
            if slot.answered_at is not None:  # else at the turn's end, as a cancel before the first row may be ignored
                self._allocator.giving_back(len(self._batch.active))
                self._cancel(slot, now, out)
        self._leave(symbol, now, out)

    def _leave(self, symbol: str, now: float, out: Commands) -> None:
        self._batch.again.pop(symbol, None)
        self._abandon_empty_turn()
        self._advance(now, out)

    # ---- time

    def _advance(self, now: float, out: Commands) -> None:
        step = self._outage.step(now)
        if step is OutageAction.RESUBSCRIBE:
            out.append(events.OutageEndAssumed())
            self._resume(events.Resumed(data_lost=True, reported=False), now, out)
        elif step is OutageAction.RECONNECT:
            out.append(Reconnect(OUTAGE_GOES_ON))
        if not self._may_request():
            return
        out += self._eligible.retry(now)
        out += [events.AdviceConfirmed(request) for request in self._rows_due.take_refused(now)]
        for request in self._rows_due.silent(now):
            self._ask_again(self._batch.active[request], now, out)
        due = self._turn_due()
        if due is not None and now >= due:
            self._end_turn(now, out)
        self._fill(now, out)

    # ---- turns

    def _end_turn(self, now: float, out: Commands) -> None:
        served = self._batch.end_turn(self._allocator.batch_size)
        out.append(events.TurnEnded(self._turn.number, tuple(served), self._turn.end(now), self._turn.refused))
        if not self._turn.refused:
            out += self._allocator.turn_without_refusal()
        self._cancel_served(now, out)

    def _cancel_served(self, now: float, out: Commands) -> None:
        """Cancel what does not go on in the next turn."""
        following = self._batch.following(self._allocator.batch_size)
        self._allocator.giving_back(len(self._batch.active))
        for slot in list(self._batch.active.values()):
            if slot.symbol not in following or self._silent.is_over(slot, now):
                self._cancel(slot, now, out)

    def _turn_due(self) -> float | None:
        """When the turn is over, never within a cooldown; None: no turn."""
        due = self._turn.due(self._batch.active.values(), awaited=bool(self._batch.again))
        return None if due is None else max(due, self._allocator.quiet_until)

    def _fill(self, now: float, out: Commands) -> None:
        """Subscribe up to the batch size, if slots may be requested now."""
        if not self._may_request() or now < self._allocator.free_at:
            return
        self._allocator.stayed_silent(self._batch.active.values(), now)
        chosen = self._batch.choose(
            self._allocator.at_once, self._allocator.most_new(now), self._allocator.batch_size, now
        )
        if not self._turn.is_on and (chosen or self._batch.active):
            self._turn.begin(now)
            symbols = (*self._batch.symbols(), *chosen)
            out.append(events.TurnStarted(self._turn.number, symbols, self._allocator.batch_size))
        if chosen:
            self._allocator.asked([self._subscribe(symbol, now, out) for symbol in chosen], now)

    def _request_at(self) -> float | None:
        """When `_fill` has something to do, if nothing else happens before; None: never."""
        free_at = self._allocator.free_at
        if self._batch.active and not self._turn.is_on:
            return free_at  # its turn begins
        most = self._allocator.at_once
        if len(self._batch.active) >= most:
            granted_at = self._allocator.granted_at(self._batch.active.values())
            return max(free_at, granted_at) if granted_at > -math.inf else None
        return self._batch.next_at(most, self._allocator.batch_size, free_at)

    def _may_request(self) -> bool:
        return self._connected and not self._outage.suspended and not self._stopping

    # ---- single subscriptions

    def _subscribe(self, symbol: str, now: float, out: Commands) -> int:
        request = next(self._request_ids)
        self._batch.active[request] = Slot(request, symbol, requested_at=now)
        out.append(events.Subscribe(request, symbol))
        return request

    def _cancel(self, slot: Slot, now: float, out: Commands) -> None:
        self._retire(slot.request, SlotEvent.CANCELLED)
        self._orphans.cancelled(slot, now)
        self._allocator.released(now)
        out.append(events.Cancel(slot.request, slot.symbol))

    def _ask_again(self, slot: Slot, now: float, out: Commands) -> None:
        """Replace a subscription that is or seems dead; the cancel makes sure that it holds no slot."""
        self._allocator.giving_back(len(self._batch.active))
        self._cancel(slot, now, out)
        self._subscribe_later(slot.symbol, self._again_at(slot, now))

    def _subscribe_later(self, symbol: str, at: float) -> None:
        if not self._eligible.is_absent(symbol):
            self._batch.again[symbol] = at

    @staticmethod
    def _again_at(slot: Slot, now: float) -> float:
        return max(now, slot.requested_at + RESUBSCRIBE_SPACING_SECS)

    def _retire(self, request: int, event: SlotEvent) -> Slot | None:
        """Take a request out of the turn. None if it is not in it any more."""
        self._rows_due.forget(request)
        slot = self._batch.active.pop(request, None)
        if slot is not None:
            slot.on(event)
        elif event in (SlotEvent.REFUSED, SlotEvent.DENIED):
            self._orphans.refused(request)
        return slot
