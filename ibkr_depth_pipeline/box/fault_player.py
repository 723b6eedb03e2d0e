"""Plays faults on the market of a box, one at a time, and reports what came of each."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import assert_never

from ibkr_depth_pipeline.box.alerts import ReceivedAlert
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.faults import FAULTS, FaultName, FaultTrial, MarketState, Page, PlannedFault
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.sink.status import process_mark

_STEADY_STATES = 12
KEYS = "  ".join(f"{kind.key} {name.value}" for name, kind in FAULTS.items())


class FaultPlayer:
    """Begins what is due, ends what has lasted, and measures. `say` gets each line for the person at the terminal.

    `script` has faults by their time; `pages` the links; on_close() is called as a session's hours end. The caller
    reports what happens by the `on_` methods, and calls `tick` several times a second.
    """

    def __init__(
        self,
        gateway: GatewayThread,
        redis: EmbeddedRedis,
        say: Callable[[str], None],
        script: Sequence[PlannedFault] = (),
        pages: Mapping[Page, str] | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._gateway, self._redis, self._say = gateway, redis, say
        self._script = deque(script)
        self._asked: deque[PlannedFault] = deque()
        self._pages, self._on_close = pages or {}, on_close
        self._began: int | None = None  # the first row was stored
        self._state: MarketState | None = None
        self._steady: deque[int] = deque(maxlen=_STEADY_STATES)  # rows missing, while no fault is under way
        self._trial: FaultTrial | None = None
        self.outcomes: list[FaultTrial] = []

    @property
    def recovered(self) -> bool:
        """Whether the market was live again after each fault that is over."""
        return all(trial.live is not None for trial in self.outcomes)

    @property
    def is_done(self) -> bool:
        """Whether no fault is under way or to come."""
        return self._trial is None and not self._asked and not self._script

    def ask(self, fault: PlannedFault) -> None:
        """Play it now, or after the one that is under way."""
        if self._trial is not None:
            self._say(f"Next: {fault.title}; first the outcome of: {self._trial.fault.title}")
        self._asked.append(fault)

    # ---- what happens

    def on_event(self, event: str, at: int, fields: Mapping[str, Any]) -> None:
        """A log line of the ingest, or `run_failure` and `run_success`, at unix ms `at`."""
        if self._trial is not None:
            self._trial.on_event(event, at, fields)

    def on_alert(self, alert: ReceivedAlert) -> None:
        if self._trial is not None:
            self._trial.on_alert(alert.ts, alert.of_trouble)

    def on_state(self, state: MarketState) -> None:
        self._state = state
        if self._began is None and state.newest_row:
            self._began = state.at
        if self._trial is not None:
            self._trial.on_state(state)
        elif state.missing is not None:
            self._steady.append(state.missing)

    # ---- what is done

    def tick(self) -> None:
        """Begin, end or conclude what is due."""
        now = unix_ms()
        if self._trial is None:
            self._begin_next(now)
            return
        trial, lasts = self._trial, self._trial.fault.lasts_secs
        if trial.ended is None and lasts is not None and now >= trial.began + lasts * 1000:
            self._end(trial.fault)
            trial.on_end(unix_ms())
            self._say(f"It is over: {trial.fault.title}")
        if trial.is_over(now):
            self._trial = None
            self._steady = deque([] if trial.missing is None else [trial.missing], maxlen=_STEADY_STATES)
            self.outcomes.append(trial)
            self._say(f"Measured: {trial.fault.title}: {trial.outcome()}")

    def close(self) -> None:
        """End a fault that is under way, so that everything can be taken down."""
        if self._trial is not None and self._trial.ended is None:
            self._end(self._trial.fault)
            self._say(f"Not measured to its end: {self._trial.fault.title}: {self._trial.outcome()}")
        self._trial = None

    def _begin_next(self, now: int) -> None:
        if self._began is None or self._state is None:
            return
        if self._asked:
            self._begin(self._asked.popleft(), self._state)
        elif self._script and now >= self._began + self._script[0].at * 1000:
            self._begin(self._script.popleft(), self._state)

    def _begin(self, fault: PlannedFault, state: MarketState) -> None:
        if fault.name is FaultName.SYMBOL_SILENT and not fault.symbol:
            fault = replace(fault, symbol=next(iter(state.held or tuple(state.newest_rows)), ""))
        before = replace(state, missing=min(self._steady, default=None))
        began = unix_ms()
        self._say(f"Fault: {fault.title}")
        where = self._pages.get(fault.kind.page)
        self._say(f"       See: {fault.kind.look}" + (f": {where}" if where else ""))
        if not self._carry_out(fault, state):
            self._say("       No ingest runs now that could be told from another process; try again.")
            return
        self._trial = FaultTrial(fault, began, before)

    def _carry_out(self, fault: PlannedFault, state: MarketState) -> bool:
        """Begin the fault; False if there is no run to end."""
        match fault.name:
            case FaultName.GATEWAY_AWAY:
                self._gateway.do(lambda gateway: gateway.refuse_connections())
                self._gateway.do(lambda gateway: gateway.drop_connections())
            case FaultName.SLOT_STOLEN:
                self._gateway.do(lambda gateway: gateway.occupy_slots(1))
            case FaultName.SYMBOL_SILENT:
                self._gateway.do(lambda gateway: gateway.pause_rows(fault.symbol))
            case FaultName.REDIS_PAUSED:
                self._redis.pause()
            case FaultName.INGEST_KILLED:
                return _kill_ingest(state)
            case FaultName.SESSION_CLOSED:
                if not state.running:
                    return False
                self._on_close()
                self._gateway.do(lambda gateway: gateway.close_markets())
            case _:
                assert_never(fault.name)
        return True

    def _end(self, fault: PlannedFault) -> None:
        match fault.name:
            case FaultName.GATEWAY_AWAY:
                self._gateway.do(lambda gateway: gateway.listen())
            case FaultName.SLOT_STOLEN:
                self._gateway.do(lambda gateway: gateway.occupy_slots(0))
            case FaultName.SYMBOL_SILENT:
                self._gateway.do(lambda gateway: gateway.resume_rows(fault.symbol))
            case FaultName.REDIS_PAUSED:
                self._redis.resume()
            case FaultName.INGEST_KILLED | FaultName.SESSION_CLOSED:
                pass
            case _:
                assert_never(fault.name)


def _kill_ingest(state: MarketState) -> bool:
    """Kill the process that records, if it is certain that its number still names it."""
    if not state.running or not state.process or process_mark(state.pid) != state.process:
        return False
    os.kill(state.pid, signal.SIGKILL)
    return True
