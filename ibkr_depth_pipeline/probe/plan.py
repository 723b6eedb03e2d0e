"""Decides what the probe asks the gateway for, and when a symbol's case is closed. Pure; time is given, in seconds.

Every method returns the commands to carry out, in order. The rules about slots are those of docs/ibkr-market-depth.md:
a request that got a 309 holds none and is never cancelled; a cancel goes out after the first row, after a refusal, or
when the wait is over; a cancel before the first row may be ignored, and then the slot is held until the session ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ibkr_depth_pipeline.gateway import events as says
from ibkr_depth_pipeline.model import DepthRow, Instrument
from ibkr_depth_pipeline.probe.commands import Cancel, Commands, LookForIngest, Reconnect, Subscribe
from ibkr_depth_pipeline.probe.gateway_notices import GatewayNotices, one_line
from ibkr_depth_pipeline.probe.limits import ProbeLimits
from ibkr_depth_pipeline.probe.observation import Observation
from ibkr_depth_pipeline.probe.report import GatewayNotice, Outcome, SymbolReport
from ibkr_depth_pipeline.probe.symbol_probe import QUEUED, SymbolProbe
from ibkr_depth_pipeline.rotation.slots import Slot, SlotEvent, SlotState

RACE_SECS = 2.0
"""A 309 so soon after a cancel of our own is a slot that is freed a moment late, not somebody else's."""
RACE_PAUSE_SECS = 0.5

_CODES: dict[type, int] = {
    says.SlotRefused: 309,
    says.CancelRejected: 310,
    says.DepthHalted: 316,
    says.BookReset: 317,
    says.RequestIdRejected: 322,
}


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
        self._room = limits.slots
        self._not_before = 0.0
        self._waits_for_shell = False
        self._last_cancel = float("-inf")
        self._starving_since: float | None = None
        self._notices = GatewayNotices()

    # ---- what there is to know

    @property
    def is_over(self) -> bool:
        """Whether it has begun and every symbol has its outcome."""
        return self._begun and all(trial.is_over for trial in self._probes.values())

    @property
    def notices(self) -> tuple[GatewayNotice, ...]:
        """What the gateway said that concerns no symbol, each once, good news left out."""
        return self._notices.notices

    def report(self, symbol: str) -> SymbolReport | None:
        """The symbol as it stands now; None for one that is not probed."""
        trial = self._probes.get(symbol)
        return trial.report(self._limits.full_rows) if trial else None

    def next_deadline(self) -> float | None:
        """When `deadline` is to be called, unless something happens before; None while only events count."""
        times = [trial.due(self._limits) for trial in self._active()]
        if self._queue and not self._waits_for_shell and len(times) < self._room:
            times.append(max(self._not_before, min(trial.not_before for trial in self._queue)))
        return min(times, default=None)

    # ---- what happens

    def begin(self, instruments: Iterable[Instrument], now: float) -> Commands:
        """These are to be probed, each symbol once. Events may have come before."""
        self._begun = True
        self._probes = {instrument.symbol: SymbolProbe(instrument) for instrument in instruments}
        self._queue.extend(self._probes.values())
        return self._end_all(Outcome.NO_ANSWER, self._lost, now) if self._lost else self._fill(now)

    def deadline(self, now: float) -> Commands:
        """`next_deadline` has come."""
        return self._judge(self._active(), now) + self._fill(now)

    def row(self, request: int, row: DepthRow, now: float) -> Commands:
        """A row of any request, retired ones included."""
        slot = self._slots.get(request)
        if slot is None or slot.state is SlotState.RELEASED:
            return []
        was = slot.state
        slot.on(SlotEvent.ANSWERED)
        if was in (SlotState.ABANDONED, SlotState.DENIED):  # the early cancel was ignored; this one counts
            return [self._cancel(slot, now)]
        trial = self._probes[slot.symbol]
        if was is SlotState.REQUESTED:
            slot.answered_at = now
            self._starving_since = None
            trial.answered()
            trial.venues.granted(now)
        if trial.observation is not None:
            trial.observation.apply(row, now)
        commands = self._judge([trial], now)
        return commands + self._fill(now) if commands else []

    def handle(self, event: says.GatewayEvent, now: float) -> Commands:
        """Anything else the gateway says."""
        slot = self._slots.get(getattr(event, "request", None) or 0)
        code = _CODES.get(type(event), getattr(event, "code", 0))
        denied = slot is not None and slot.state is SlotState.DENIED and isinstance(event, says.CancelRejected)
        if slot is not None and code and not denied:  # the answer to the cancel of a refused request says nothing
            self._probes[slot.symbol].saw(code)
        if slot is None or not isinstance(event, says.Notice):  # a symbol's own notice is among its codes
            self._notices.hear(event)
        answer = _ANSWERS.get(type(event))
        # The rest, a rejected cancel above all, is noted and no more: an ignored early cancel goes on holding its slot.
        held = None if slot is None or slot.state is SlotState.RELEASED else slot
        return [] if answer is None else answer(self, event, held, now)

    def ingest_looked_for(self, running: bool | None, now: float) -> Commands:
        """The answer to LookForIngest; None: it can't be known. Then nothing more is asked for: it may be an ingest."""
        self._waits_for_shell = False
        if running:
            return self._end_all(Outcome.VENUE_ONLY, "resolved; not subscribed, an ingest holds the slots", now)
        if running is None:
            reason = "every slot is taken (309), perhaps by an ingest: without Redis that is unknown, so no second try"
            return self._end_all(Outcome.NO_SLOT, reason, now)
        self._not_before = now + self._limits.retry_pause
        return self._fill(now)

    def reconnected(self, now: float) -> Commands:
        """The answer to Reconnect."""
        self._waits_for_shell = False
        return self._fill(now)

    def give_up(self, reason: str, now: float) -> None:
        """The gateway is gone for good: no symbol still under way gets an answer."""
        self._lost = reason
        self._lose_slots()
        self._end_all(Outcome.NO_ANSWER, reason, now)

    def stop(self, now: float) -> Commands:
        """The operator ends the probe: cancel what is subscribed, close every case."""
        return self._end_all(Outcome.INTERRUPTED, "interrupted", now)

    # ---- the gateway's answers, by type of event; slot is None where none that may still be held is meant

    def _slot_refused(self, event: says.SlotRefused, slot: Slot | None, now: float) -> Commands:
        if slot is None or slot.state is SlotState.LIVE:  # about a line that has had rows it is advice
            return []
        was = slot.state
        slot.on(SlotEvent.REFUSED)
        if was is not SlotState.REQUESTED:
            return []
        self._probes[slot.symbol].back_in_line(f"{QUEUED} (309)")
        self._queue.appendleft(self._probes[slot.symbol])
        if now - self._last_cancel < RACE_SECS:
            self._not_before = now + RACE_PAUSE_SECS
            return []
        held = len(self._active())
        self._room = max(1, held)
        return [] if held else self._starve(now)

    def _starve(self, now: float) -> Commands:
        """Refused with nothing of our own in the way, as far as we know."""
        if any(slot.state is SlotState.ABANDONED for slot in self._slots.values()):
            self._lose_slots()
            self._waits_for_shell = True
            return [Reconnect()]
        if self._starving_since is None:
            self._starving_since = now
        waited = now - self._starving_since
        if waited >= self._limits.patience:
            reason = f"no slot in {waited:.0f} s: other clients of the account hold every one (309)"
            return self._end_all(Outcome.NO_SLOT, reason, now)
        self._waits_for_shell = True
        return [LookForIngest()]

    def _depth_refused(self, event: says.DepthRefused, slot: Slot | None, now: float) -> Commands:
        if slot is None or slot.state in (SlotState.LIVE, SlotState.DENIED):
            return []
        if slot.state is SlotState.ABANDONED:
            slot.on(SlotEvent.REFUSED)
            return []
        trial = self._probes[slot.symbol]
        reason = f"{event.code}: {one_line(event.text)}"
        if event.is_advisory:
            trial.advised(reason, now)
            return []
        return self._refused(trial, slot, reason, now, elsewhere=event.concerns_venue) + self._fill(now)

    def _refused(self, trial: SymbolProbe, slot: Slot, reason: str, now: float, *, elsewhere: bool = True) -> Commands:
        """The request is cancelled, should it hold a line all the same; its place is free at once."""
        slot.on(SlotEvent.DENIED)
        self._starving_since = None
        is_well = self._notices.farm_is_well and not self._notices.trouble
        if not trial.is_over and trial.refused(reason, now, self._limits, is_well=is_well, elsewhere=elsewhere):
            self._queue.appendleft(trial)
        return [Cancel(slot.request, slot.symbol)]

    def _farms_reported(self, event: says.FarmStatus, slot: Slot | None, now: float) -> Commands:
        if event.healthy:
            for trial in self._queue:
                trial.not_before = now
        return self._fill(now)

    def _subscription_died(
        self, event: says.DepthHalted | says.RequestIdRejected, slot: Slot | None, now: float
    ) -> Commands:
        if slot is not None:
            slot.on(SlotEvent.REFUSED)
            self._restart(self._probes[slot.symbol], _CODES[type(event)], now)
        return self._fill(now)

    def _reset(self, event: says.BookReset, slot: Slot | None, now: float) -> Commands:
        seen = None if slot is None else self._probes[slot.symbol].observation
        if seen is not None:
            seen.reset(now)
        return []

    def _restored(self, event: says.ConnectivityRestored, slot: Slot | None, now: float) -> Commands:
        if not event.data_lost:
            return []
        lost = self._active()
        self._lose_slots()
        for trial in lost:
            self._restart(trial, 1101, now)
        return self._fill(now)

    def _gone(self, event: says.ConnectionLost | says.SocketPortReset, slot: Slot | None, now: float) -> Commands:
        self.give_up(f"the connection to the gateway was lost: {one_line(event.text)}", now)
        return []

    # ---- steps

    def _fill(self, now: float) -> Commands:
        commands: Commands = []
        while self._may_ask(now):
            trial = next((trial for trial in self._queue if trial.not_before <= now), None)
            if trial is None:
                break
            self._queue.remove(trial)
            slot = Slot(next(self._request_ids), trial.symbol, now)
            self._slots[slot.request] = slot
            limits = self._limits
            trial.requested(slot, Observation(trial.instrument.exchange, limits.rows, limits.full_rows, now))
            commands.append(Subscribe(slot.request, trial.instrument))
        return commands

    def _may_ask(self, now: float) -> bool:
        return not self._waits_for_shell and now >= self._not_before and len(self._active()) < self._room

    def _active(self) -> list[SymbolProbe]:
        return [trial for trial in self._probes.values() if trial.slot is not None and not trial.is_over]

    def _judge(self, trials: Iterable[SymbolProbe], now: float) -> Commands:
        """End those whose book is there, or whose wait is over."""
        commands: Commands = []
        for trial in trials:
            advice = trial.confirmed_advice(now)
            if advice and trial.slot is not None:
                commands += self._refused(trial, trial.slot, advice, now)
            elif now >= trial.due(self._limits):
                trial.judge(self._limits, self._notices.trouble, now)
                commands += self._end_subscription(trial, now)
        return commands

    def _end_subscription(self, trial: SymbolProbe, now: float) -> Commands:
        slot = trial.slot
        if slot is None or slot.state not in (SlotState.REQUESTED, SlotState.LIVE):
            return []
        return [self._cancel(slot, now)]

    def _cancel(self, slot: Slot, now: float) -> Cancel:
        slot.on(SlotEvent.CANCELLED)
        self._last_cancel = now
        return Cancel(slot.request, slot.symbol)

    def _restart(self, trial: SymbolProbe, code: int, now: float) -> None:
        if not trial.is_over:
            trial.died(code, now)
        if not trial.is_over:
            self._queue.appendleft(trial)

    def _lose_slots(self) -> None:
        for slot in self._slots.values():
            if slot.state is not SlotState.RELEASED:
                slot.on(SlotEvent.LOST)

    def _end_all(self, outcome: Outcome, reason: str, now: float) -> Commands:
        commands: Commands = []
        for trial in self._probes.values():
            if not trial.is_over:
                trial.end(outcome, reason, now)
                commands += self._end_subscription(trial, now)
        self._queue.clear()
        return commands


_ANSWERS: dict[type, Callable[[ProbePlan, Any, Slot | None, float], Commands]] = {
    says.SlotRefused: ProbePlan._slot_refused,
    says.DepthRefused: ProbePlan._depth_refused,
    says.FarmStatus: ProbePlan._farms_reported,
    says.DepthHalted: ProbePlan._subscription_died,
    says.RequestIdRejected: ProbePlan._subscription_died,
    says.BookReset: ProbePlan._reset,
    says.ConnectivityRestored: ProbePlan._restored,
    says.SocketPortReset: ProbePlan._gone,
    says.ConnectionLost: ProbePlan._gone,
}
