"""What an ingest publishes of itself in Redis: its figures, as JSON under one key. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which process records. No two runs share a `run_id`; `started_ts` is unix ms.

    `process` is the mark of the process (process_mark), "" if none is known.
    """

    run_id: str
    host: str
    pid: int
    started_ts: int
    process: str = ""


@dataclass(frozen=True, slots=True)
class StandbyFigures:
    """An ingest that stands by: it has a connection of its own, and waits for the lease. `since_ts` is unix ms.

    resolved: of how many of its `symbols` the contract is known, or why there is none. reserve: what it takes over it
    gives back.
    """

    run: RunIdentity
    since_ts: int
    connected: bool = False
    client_id: int = 0
    resolved: int = 0
    symbols: int = 0
    reserve: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether it could record at once."""
        return self.connected and self.resolved >= self.symbols

    def to_json(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(self)

    @classmethod
    def of_json(cls, text: bytes) -> StandbyFigures | None:
        """Read what `to_json` wrote, of this version or a near one; None if it can't be read."""
        try:
            return _STANDBY_ADAPTER.validate_json(text)
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class SymbolFigures:
    """One symbol, since the run started. `lost` are snapshots that the buffer's bound dropped.

    row_age_ms is for how long its last row had been here when the figures were written, by a clock that never steps;
    None if this run had none. live_ms is for how long its book was live; bid0 and ask0 are the best prices then, 0.0 if
    a side was empty.
    trouble is what is wrong with its line now, "" if nothing is known to be; silent, out_of_step and asked_again count
    how often its line was silent while others were not, its book out of step, and its subscription made again.
    share is the part of the time that it is to hold a slot, next_turn_secs the time until its next turn, roughly (0: it
    has one, None: it takes no turns). contract is IBKR's local symbol, expiry its last trade date (YYYYMMDD, or empty);
    hours names which hours count; closed_until is the unix ms at which its market opens, 0 while it is open or nothing
    is known of it; focus says who asked for it. Its first row since it joined, or since its market opened, is due until
    first_due_ts, unix ms; 0 once it has come.
    """

    subscribed: bool = False
    last_row_ts: int = 0
    rows: int = 0
    live_ms: int = 0
    bid0: float = 0.0
    ask0: float = 0.0
    snapshots: int = 0
    newest_seq: int = 0
    lost: int = 0
    refused_309: int = 0
    venue: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""
    silent: int = 0
    out_of_step: int = 0
    asked_again: int = 0
    row_age_ms: int | None = None
    weight: int = 1
    pinned: bool = False
    share: float = 0.0
    next_turn_secs: float | None = None
    con_id: int = 0
    contract: str = ""
    expiry: str = ""
    hours: str = ""
    closed_until: int = 0
    first_due_ts: int = 0
    focus: str = ""


@dataclass(frozen=True, slots=True)
class ClockFigures:
    """The clock of the ingest's host. Each step of more than a second counts; step_ms is the newest, for 10 minutes.

    ts_ahead_ms: how far the newest `ts` of any symbol is ahead of the clock, 0 if not by more than a second: it stands
    for so long. gateway_ms is the gateway's clock minus the host's, give or take gateway_error_ms; None if not known.
    """

    steps: int = 0
    step_ms: int = 0
    ts_ahead_ms: int = 0
    gateway_ms: int | None = None
    gateway_error_ms: int | None = None

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        said = []
        if self.step_ms:
            said.append(f"the clock of the ingest's host was set by {self.step_ms / 1000:+.1f} s")
        if self.ts_ahead_ms:
            said.append(f"ts stands for {self.ts_ahead_ms / 1000:.0f} s, as newest ids are ahead of the clock")
        return "; ".join(said)


@dataclass(frozen=True, slots=True)
class FactsFigures:
    """What ibkr_gateway_facts had found of the gateway when the run first connected: where the rotation began.

    `file` is "" if there was none, or no connection yet. Each value is None if it was not found; its `_ts` is the unix
    ms at which it was seen. `problem` says why the file was ignored, else "".
    """

    file: str = ""
    slots: int | None = None
    slots_ts: int | None = None
    release_pause_secs: float | None = None
    release_pause_ts: int | None = None
    problem: str = ""


LATENCY_BOUNDS_SECS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""The upper bounds of the buckets of a latency, each inclusive; what took longer has a bucket of its own."""


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """How many blocks were stored within each bound, since the run began, and the sum of their latencies in seconds.

    `counts` has one number per bound of LATENCY_BOUNDS_SECS and one for what took longer; they are not cumulative.
    """

    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_SECS) + 1)
    sum_secs: float = 0.0


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """A run and its symbols. Sizes are bytes, `_ts` unix ms, lags milliseconds from row to Redis.

    ended_ts is 0 while the run goes on. `ailments` are the codes of the data farms' troubles that still stand.
    pacing_violations counts the gateway's 100s. universe_problem is why the newest universe is not in force, else "".
    size_changes says of which symbols the unit of sizes changed in the last ten minutes, and how.
    up_ms is how long the run had recorded, by a clock that never steps; None if not known. standby: it does not record
    but stands by. standbys_ready: how many others stand by for it, ready to record; None if none is configured.
    """

    run: RunIdentity
    written_ts: int
    ended_ts: int = 0
    connected: bool = False
    suspended: bool = False
    ailments: tuple[int, ...] = ()
    batch_size: int = 0
    connections: int = 0
    reconnects: int = 0
    turns: int = 0
    refused_309: int = 0
    pacing_violations: int = 0
    buffer_bytes: int = 0
    buffer_bound: int = 0
    buffer_entries: int = 0
    lost: int = 0
    write_failures: int = 0
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    clock: ClockFigures = field(default_factory=ClockFigures)
    universe_problem: str = ""
    size_changes: str = ""
    up_ms: int | None = None
    standby: bool = False
    standbys_ready: int | None = None
    facts: FactsFigures = field(default_factory=FactsFigures)
    symbols: Mapping[str, SymbolFigures] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(self)

    @classmethod
    def of_json(cls, text: bytes | None) -> FeedFigures | None:
        """Read what `to_json` wrote, of this version or a near one; None if it can't be read."""
        try:
            return None if text is None else _ADAPTER.validate_json(text)
        except ValidationError:
            return None

    @property
    def run_ms(self) -> int:
        """How old the run was when the figures were written, in ms."""
        return self.written_ts - self.run.started_ts if self.up_ms is None else self.up_ms

    @property
    def buffer_share(self) -> float:
        """How full the buffer is, from 0 to 1."""
        return self.buffer_bytes / self.buffer_bound if self.buffer_bound else 0.0


_ADAPTER = TypeAdapter(FeedFigures)
_STANDBY_ADAPTER = TypeAdapter(StandbyFigures)
