"""Decides what the probe requests of the gateway, and when a symbol has its outcome. Pure; `now` is in seconds.

Every method returns the commands to carry out, in order. Slots follow docs/ibkr-market-depth.md, "Slots": a request
that got a 309 holds none and is never cancelled; a cancel follows the first row, a refusal, or the end of the wait; a
cancel before the first row may be ignored, and then the slot is held until the connection ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from typing_extensions import assert_never

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest.effects import RequestDepth
from ibkr_depth_pipeline.model import DepthRow, Instrument
from ibkr_depth_pipeline.probe.gateway_notices import GatewayNotice, GatewayNotices, one_line
from ibkr_depth_pipeline.probe.report import Outcome, SymbolReport
from ibkr_depth_pipeline.probe.symbol_probe import QUEUED, Observation, ProbeLimits, SymbolProbe
from ibkr_depth_pipeline.rotation.events import Cancel
from ibkr_depth_pipeline.rotation.slots import Reconnect, Slot, SlotEvent, SlotState

RACE_SECS = 2.0
"""A 309 so soon after a cancel of our own is a slot that is freed a moment late, not one of another client."""

RACE_PAUSE_SECS = 0.5


@dataclass(frozen=True, slots=True)
class DetectIngest:
    """Other clients hold every slot: find out whether one is an ingest, and call `ingest_detected`."""


ORPHANED = "orphaned subscriptions hold slots, which only a new connection frees"

ProbeCommand = RequestDepth | Cancel | DetectIngest | Reconnect
"""Commands to carry out in order; after Reconnect, call `reconnected`."""
Commands = list[ProbeCommand]


class ProbePlan:
    """The probe of some resolved instruments. request_ids yields ids never used before."""

    def __init__(self, limits: ProbeLimits, request_ids: Iterator[int]) -> None:
        self._limits = limits
        self._request_ids = request_ids
        self._begun = False
        self._lost = ""
        self._probes: dict[str, SymbolProbe] = {}
        self._queue: deque[SymbolProbe] = deque()
        self._slots: dict[int, Slot] = {}
        self._most_active = limits.slots
        self._not_before = 0.0
        self._awaits_shell = False  # the answer to DetectIngest or Reconnect
        self._last_cancel = float("-inf")
        self._no_slot_since: float | None = None
        self._notices = GatewayNotices()

    # ---- state

    @property
    def is_over(self) -> bool:
        """Whether it has begun and every symbol has its outcome."""
        return self._begun and all(probe.is_over for probe in self._probes.values())

    @property
    def notices(self) -> tuple[GatewayNotice, ...]:
        """The gateway's messages that concern no symbol, each once, without recoveries."""
        return self._notices.notices

    def report(self, symbol: str) -> SymbolReport | None:
        """The symbol's current state; None for one that is not probed."""
        probe = self._probes.get(symbol)
        return probe.report(self._limits.full_rows) if probe else None

    def next_deadline(self) -> float | None:
        """When `deadline` is to be called, unless an event comes before; None while only events matter."""
        times = [probe.due(self._limits) for probe in self._active()]
        if self._queue and not self._awaits_shell and len(times) < self._most_active:
            times.append(max(self._not_before, min(probe.not_before for probe in self._queue)))
        return min(times, default=None)

    # ---- inputs

    def begin_with(self, slots: int | None, release_pause: float | None) -> None:
        """Start from what is known of the account's slots; None: nothing. To be called before `begin`."""
        if slots is not None:
            self._most_active = max(1, min(self._most_active, slots))
        if release_pause is not None:
            self._limits = replace(self._limits, release_pause=release_pause)

    def begin(self, instruments: Iterable[Instrument], now: float) -> Commands:
        """Starts the probe of these, each symbol once. Events may have come before."""
        self._begun = True
        self._probes = {instrument.symbol: SymbolProbe(instrument) for instrument in instruments}
        self._queue.extend(self._probes.values())
        return self._end_all(Outcome.NO_ANSWER, self._lost, now) if self._lost else self._fill(now)

    def deadline(self, now: float) -> Commands:
        """`next_deadline` has come."""
        return self._evaluate(self._active(), now) + self._fill(now)

    def row(self, request: int, row: DepthRow, now: float) -> Commands:
        """A row of any request came, retired ones included."""
        slot = self._slots.get(request)
        if slot is None or slot.state is SlotState.RELEASED:
            return []
        was = slot.state
        slot.on(SlotEvent.ANSWERED)
        if was in (SlotState.ABANDONED, SlotState.DENIED):  # the early cancel was ignored; this one counts
            return [self._cancel(slot, now)]
        probe = self._probes[slot.symbol]
        if was is SlotState.REQUESTED:
            slot.answered_at = now
            self._no_slot_since = None
            probe.answered()
            probe.venues.granted()
        if probe.observation is not None:
            probe.observation.apply(row, now)
        commands = self._evaluate([probe], now)
        return commands + self._fill(now) if commands else []

    def handle(self, event: gateway.GatewayEvent, now: float) -> Commands:
        """Any other event of the gateway came."""
        slot = self._slots.get(getattr(event, "request", None) or 0)
        self._record(event, slot)
        held = None if slot is None or slot.state is SlotState.RELEASED else slot
        match event:
            case gateway.SlotRefused():
                return self._slot_refused(held, now)
            case gateway.DepthRefused():
                return self._depth_refused(event, held, now)
            case gateway.FarmStatus():
                return self._farm_reported(event, now)
            case gateway.DepthHalted() | gateway.RequestIdRejected():
                return self._subscription_ended(held, _code_of(event), now)
            case gateway.BookReset():
                return self._book_reset(held, now)
            case gateway.ConnectivityRestored():
                return self._connectivity_restored(event, now)
            case gateway.SocketPortReset() | gateway.ConnectionLost():
                self.give_up(f"the connection to the gateway was lost: {one_line(event.text)}", now)
            case gateway.CancelRejected():  # an ignored early cancel holds its slot all the same
                pass
            case gateway.ConnectivityLost() | gateway.PacingViolation() | gateway.Notice():
                pass
            case gateway.RowReceived() | gateway.RowUnreadable() | gateway.MessageUnreadable():
                pass
            case _:
                assert_never(event)
        return []

    def ingest_detected(self, running: bool | None, now: float) -> Commands:
        """The answer to DetectIngest. None: unknown, so that nothing more is requested, as it may be an ingest."""
        self._awaits_shell = False
        if running:
            return self._end_all(Outcome.VENUE_ONLY, "resolved; not subscribed, an ingest holds the slots", now)
        if running is None:
            reason = "every slot is taken (309), perhaps by an ingest: without Redis that is unknown, so no second try"
            return self._end_all(Outcome.NO_SLOT, reason, now)
        self._not_before = now + self._limits.retry_pause
        return self._fill(now)

    def reconnected(self, now: float) -> Commands:
        """The answer to Reconnect."""
        self._awaits_shell = False
        return self._fill(now)

    def give_up(self, reason: str, now: float) -> None:
        """Ends every symbol that has no outcome yet: the gateway is lost for good."""
        self._lost = reason
        self._lose_slots()
        self._end_all(Outcome.NO_ANSWER, reason, now)

    def stop(self, now: float) -> Commands:
        """Ends the probe for the operator: cancels all subscriptions."""
        return self._end_all(Outcome.INTERRUPTED, "interrupted", now)

    # ---- events of the gateway; slot is None unless the request may hold one

    def _record(self, event: gateway.GatewayEvent, slot: Slot | None) -> None:
        code = _code_of(event)
        answers_refusal = slot is not None and slot.state is SlotState.DENIED
        if slot is not None and code and not (answers_refusal and isinstance(event, gateway.CancelRejected)):
            self._probes[slot.symbol].record_code(code)
        if slot is None or not isinstance(event, gateway.Notice):  # a symbol's own notice is among its codes
            self._notices.record(event)

    def _slot_refused(self, slot: Slot | None, now: float) -> Commands:
        if slot is None or slot.state is SlotState.LIVE:  # advice, as the line has had rows
            return []
        was = slot.state
        slot.on(SlotEvent.REFUSED)
        if was is not SlotState.REQUESTED:
            return []
        self._probes[slot.symbol].requeue(f"{QUEUED} (309)")
        self._queue.appendleft(self._probes[slot.symbol])
        if now - self._last_cancel < RACE_SECS:
            self._not_before = now + RACE_PAUSE_SECS
            return []
        held = len(self._active())
        self._most_active = max(1, held)
        return [] if held else self._no_slot(now)

    def _no_slot(self, now: float) -> Commands:
        """A slot was refused although we hold none, as far as we know."""
        if any(slot.state is SlotState.ABANDONED for slot in self._slots.values()):
            self._lose_slots()
            self._awaits_shell = True
            return [Reconnect(ORPHANED)]
        if self._no_slot_since is None:
            self._no_slot_since = now
        waited = now - self._no_slot_since
        if waited >= self._limits.patience:
            reason = f"no slot in {waited:.0f} s: other clients of the account hold every one (309)"
            return self._end_all(Outcome.NO_SLOT, reason, now)
        self._awaits_shell = True
        return [DetectIngest()]

    def _depth_refused(self, event: gateway.DepthRefused, slot: Slot | None, now: float) -> Commands:
        if slot is None or slot.state in (SlotState.LIVE, SlotState.DENIED):
            return []
        if slot.state is SlotState.ABANDONED:
            slot.on(SlotEvent.REFUSED)
            return []
        probe = self._probes[slot.symbol]
        reason = f"{event.code}: {one_line(event.text)}"
        if event.is_advisory:
            probe.advised(reason, now)
            return []
        return self._refused(probe, slot, reason, now, elsewhere=event.concerns_venue) + self._fill(now)

    def _refused(self, probe: SymbolProbe, slot: Slot, reason: str, now: float, *, elsewhere: bool = True) -> Commands:
        """Cancels the request, in case it holds a line; its place is free at once."""
        slot.on(SlotEvent.DENIED)
        self._no_slot_since = None
        is_well = self._notices.farm_is_well and not self._notices.trouble
        if not probe.is_over and probe.refused(reason, now, self._limits, is_well=is_well, elsewhere=elsewhere):
            self._queue.appendleft(probe)
        return [Cancel(slot.request, slot.symbol)]

    def _farm_reported(self, event: gateway.FarmStatus, now: float) -> Commands:
        if event.healthy:
            for probe in self._queue:
                probe.not_before = now
        return self._fill(now)

    def _subscription_ended(self, slot: Slot | None, code: int, now: float) -> Commands:
        if slot is not None:
            slot.on(SlotEvent.REFUSED)
            self._restart(self._probes[slot.symbol], code, now)
        return self._fill(now)

    def _book_reset(self, slot: Slot | None, now: float) -> Commands:
        observation = None if slot is None else self._probes[slot.symbol].observation
        if observation is not None:
            observation.reset(now)
        return []

    def _connectivity_restored(self, event: gateway.ConnectivityRestored, now: float) -> Commands:
        if not event.data_lost:
            return []
        lost = self._active()
        self._lose_slots()
        for probe in lost:
            self._restart(probe, 1101, now)
        return self._fill(now)

    # ---- steps

    def _fill(self, now: float) -> Commands:
        commands: Commands = []
        while self._may_subscribe(now):
            probe = next((probe for probe in self._queue if probe.not_before <= now), None)
            if probe is None:
                break
            self._queue.remove(probe)
            slot = Slot(next(self._request_ids), probe.symbol, now)
            self._slots[slot.request] = slot
            limits = self._limits
            probe.requested(slot, Observation(probe.instrument.exchange, limits.rows, limits.full_rows, now))
            commands.append(RequestDepth(slot.request, probe.instrument))
        return commands

    def _may_subscribe(self, now: float) -> bool:
        return not self._awaits_shell and now >= self._not_before and len(self._active()) < self._most_active

    def _active(self) -> list[SymbolProbe]:
        return [probe for probe in self._probes.values() if probe.slot is not None and not probe.is_over]

    def _evaluate(self, probes: Iterable[SymbolProbe], now: float) -> Commands:
        """Ends those whose book is complete, or whose wait is over."""
        commands: Commands = []
        for probe in probes:
            advice = probe.confirmed_advice(now)
            if advice and probe.slot is not None:
                commands += self._refused(probe, probe.slot, advice, now)
            elif now >= probe.due(self._limits):
                probe.evaluate(self._limits, self._notices.trouble, now)
                commands += self._end_subscription(probe, now)
        return commands

    def _end_subscription(self, probe: SymbolProbe, now: float) -> Commands:
        slot = probe.slot
        if slot is None or slot.state not in (SlotState.REQUESTED, SlotState.LIVE):
            return []
        return [self._cancel(slot, now)]

    def _cancel(self, slot: Slot, now: float) -> Cancel:
        slot.on(SlotEvent.CANCELLED)
        self._last_cancel = now
        if self._limits.release_pause:
            self._not_before = max(self._not_before, now + self._limits.release_pause)
        return Cancel(slot.request, slot.symbol)

    def _restart(self, probe: SymbolProbe, code: int, now: float) -> None:
        if not probe.is_over:
            probe.halted(code, now)
        if not probe.is_over:
            self._queue.appendleft(probe)

    def _lose_slots(self) -> None:
        for slot in self._slots.values():
            if slot.state is not SlotState.RELEASED:
                slot.on(SlotEvent.LOST)

    def _end_all(self, outcome: Outcome, reason: str, now: float) -> Commands:
        commands: Commands = []
        for probe in self._probes.values():
            if not probe.is_over:
                probe.end(outcome, reason, now)
                commands += self._end_subscription(probe, now)
        self._queue.clear()
        return commands


def _code_of(event: gateway.GatewayEvent) -> int:
    """The code under which the report lists an event of a request; 0 for other events."""
    match event:
        case gateway.SlotRefused():
            return 309
        case gateway.CancelRejected():
            return 310
        case gateway.DepthHalted():
            return 316
        case gateway.BookReset():
            return 317
        case gateway.RequestIdRejected():
            return 322
        case gateway.DepthRefused() | gateway.Notice():
            return event.code
        case _:
            return 0
