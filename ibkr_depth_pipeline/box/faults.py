"""The faults that a box plays, and the measurement of each: noticed, alerted, live again, rows lost. Pure.

All times are unix ms. What is observed comes from Redis, the ingest's log, the alerts that arrive, and the gateway's
own count of the rows that it sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

GIVE_UP_MS = 300_000
"""So long after the end of a fault the market counts as not recovered."""

SETTLE_MS = 3_000
"""After the market is live again, until the rows are counted: what is under way arrives."""

ALERT_MS = 20_000
"""After the market is live again, an alert can still come: a tick of the slowest sensor, and its delivery."""


class FaultName(str, Enum):
    """As --fault and scripts spell them."""

    GATEWAY_AWAY = "gateway_away"
    SLOT_STOLEN = "slot_stolen"
    REDIS_PAUSED = "redis_paused"
    INGEST_KILLED = "ingest_killed"
    SYMBOL_SILENT = "symbol_silent"
    SESSION_CLOSED = "session_closed"


class Page(str, Enum):
    """The pages that show a fault."""

    MARKET = "market"
    CHECKS = "checks"
    PLOTS = "plots"
    RUNS = "runs"


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault is to the person at the terminal.

    `secs`: how long it lasts by default, None if it only happens. `noticed_by`: the log lines of the ingest, or the
    endings of its run (`run_failure`, `run_success`), by which it is noticed. `alerts`: whether an alert is expected.
    """

    key: str
    what: str
    look: str
    page: Page
    noticed_by: frozenset[str]
    secs: float | None = None
    alerts: bool = True


FAULTS: Mapping[FaultName, FaultKind] = {
    FaultName.GATEWAY_AWAY: FaultKind(
        "g",
        "the gateway goes away",
        "the check `heartbeat` of the feed fails and names the gateway",
        Page.CHECKS,
        frozenset({"connection_lost"}),
        30.0,
    ),
    FaultName.SLOT_STOLEN: FaultKind(
        "s",
        "another program takes a slot",
        "309s: rotations shrink to the slots that are left, and grow again",
        Page.MARKET,
        frozenset({"slot_refused", "slot_released_late"}),
        30.0,
        alerts=False,
    ),
    FaultName.REDIS_PAUSED: FaultKind(
        "r",
        "Redis stops answering",
        "the page stands still and says so; then all that was received meanwhile is there",
        Page.MARKET,
        frozenset({"redis_write_failed"}),
        10.0,
        alerts=False,
    ),
    FaultName.INGEST_KILLED: FaultKind(
        "k",
        "the ingest's process is killed",
        "its run fails, and Dagster starts another",
        Page.RUNS,
        frozenset({"run_failure"}),
    ),
    FaultName.SYMBOL_SILENT: FaultKind(
        "m",
        "one symbol falls silent",
        "its age grows while the others tick; it is asked for again, then its heartbeat expires",
        Page.MARKET,
        frozenset({"line_silent", "line_asked_again", "depth_refused", "symbol_skipped"}),
        60.0,
    ),
    FaultName.SESSION_CLOSED: FaultKind(
        "c",
        "the session's time is over",
        "the markets' hours end: the run drains, is a success and sums the day up; the next day begins with its probe",
        Page.PLOTS,
        frozenset({"markets_closed"}),
        alerts=False,
    ),
}

BY_KEY = {kind.key: name for name, kind in FAULTS.items()}


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault to play, `at` seconds after the first row was stored. `secs` None: as long as it usually lasts."""

    name: FaultName
    at: float = 0.0
    secs: float | None = None
    symbol: str = ""

    @property
    def kind(self) -> FaultKind:
        return FAULTS[self.name]

    @property
    def lasts_secs(self) -> float | None:
        """How long it lasts; None if it only happens."""
        return self.kind.secs if self.kind.secs is None or self.secs is None else self.secs

    @property
    def title(self) -> str:
        """It in a few words: `the gateway goes away for 30 s`."""
        what = self.kind.what.replace("one symbol", self.symbol) if self.symbol else self.kind.what
        return what if self.lasts_secs is None else f"{what} for {self.lasts_secs:g} s"


@dataclass(frozen=True, slots=True)
class MarketState:
    """What Redis showed at unix ms `at`.

    `run_id` and `pid` are of the ingest that published last; `missing` is how many rows the gateway had sent that Redis
    did not have, without those that the ingest drops because their request was cancelled; None if that is not known.
    """

    at: int
    running: bool = False
    problem: str = ""
    run_id: str = ""
    run_started_ts: int = 0
    pid: int = 0
    process: str = ""
    batch_size: int = 0
    stored: int = 0
    newest_rows: Mapping[str, int] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    fresh: int = 0
    missing: int | None = None

    @property
    def newest_row(self) -> int:
        """When the newest row of all symbols came; 0 for never."""
        return max(self.newest_rows.values(), default=0)


class FaultTrial:
    """One fault from its beginning until the market is live again, and what was measured.

    The caller reports what happens, and asks `is_over`; `began` with the state before it.
    """

    def __init__(self, fault: PlannedFault, began: int, before: MarketState) -> None:
        self.fault, self.began, self._before = fault, began, before
        lasts = fault.lasts_secs
        self.ended: int | None = began if lasts is None else None
        self.noticed: int | None = None
        self.alerted: int | None = None
        self.live: int | None = None
        self._missing: list[int] = []

    # ---- what happens

    def on_event(self, event: str, at: int, fields: Mapping[str, Any]) -> None:
        """A log line of the ingest, or the end of its run."""
        if self.noticed is not None or event not in self.fault.kind.noticed_by or at < self.began:
            return
        if self.fault.symbol and fields.get("symbol") not in (self.fault.symbol, None):
            return
        self.noticed = at

    def on_alert(self, at: int, of_trouble: bool) -> None:
        if of_trouble and self.alerted is None:
            self.alerted = at

    def on_end(self, at: int) -> None:
        """The fault is over; the market may take its time."""
        self.ended = at

    def on_state(self, state: MarketState) -> None:
        if self.noticed is None and self.fault.symbol and self.fault.symbol in state.stale:
            self.noticed = state.at
        if self.live is None and self._is_live(state):
            self.live = state.at
        if self.live is not None and state.at >= self.live + SETTLE_MS // 2 and state.missing is not None:
            self._missing.append(state.missing)

    def _is_live(self, state: MarketState) -> bool:
        if self.ended is None or state.at < self.ended or not state.running:
            return False
        if self.fault.lasts_secs is None:
            return state.run_id != self._before.run_id and state.newest_row > state.run_started_ts
        if self.fault.name is FaultName.SLOT_STOLEN:
            return state.batch_size >= self._before.batch_size
        if self.fault.symbol:
            return state.newest_rows.get(self.fault.symbol, 0) > self.ended
        return state.newest_row > self.ended

    # ---- the outcome

    def is_over(self, now: int) -> bool:
        """Whether all that can be measured was."""
        if self.ended is None:
            return False
        if self.live is None:
            return now >= self.ended + GIVE_UP_MS
        waits_for_alert = self.fault.kind.alerts and self.alerted is None and now < self.live + ALERT_MS
        return now >= self.live + SETTLE_MS and not waits_for_alert

    @property
    def missing(self) -> int | None:
        """As `MarketState.missing`, after the fault; rows that are under way at a moment count only then."""
        return min(self._missing, default=None)

    @property
    def rows_lost(self) -> int | None:
        """Rows that the gateway sent and Redis lacks; None if they were not counted."""
        if self._before.missing is None or self.missing is None:
            return None
        return max(0, self.missing - self._before.missing)

    def outcome(self) -> str:
        """What was measured, in one line."""
        lost = self.rows_lost
        parts = [
            f"noticed after {self._after(self.noticed)}",
            f"alert after {self._after(self.alerted)}" if self.alerted or self.fault.kind.alerts else "no alert needed",
            self._live_again(),
            f"rows lost: {'not counted' if lost is None else f'{lost:,}'}",
        ]
        return ", ".join(parts)

    def _live_again(self) -> str:
        if self.live is None or self.ended is None:
            return f"not live again within {GIVE_UP_MS // 1000} s"
        again = "all slots again" if self.fault.name is FaultName.SLOT_STOLEN else "live again"
        text = f"{again} after {self._after(self.live)}"
        return text if self.ended == self.began else f"{text} ({(self.live - self.ended) / 1000:.1f} s after its end)"

    def _after(self, at: int | None) -> str:
        return "(never)" if at is None else f"{max(0, at - self.began) / 1000:.1f} s"
