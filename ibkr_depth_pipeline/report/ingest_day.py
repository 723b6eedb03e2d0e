"""An ingest's day, from the history of its figures. Pure.

Counts of a run only grow, so what happened between two states is their difference. A state counts from the moment at
which it was written until the run's next one, if that comes soon enough; else the ingest was silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.report.timeline import Array, Bins

SILENT_MS = 15_000
"""Figures are written every 2 s, and their heartbeat in Redis expires after as long."""
CONNECTED, SUSPENDED, DISCONNECTED = "connected", "suspended", "disconnected"


class Event(NamedTuple):
    """A number of events at one moment (unix ms)."""

    ts: int
    many: int


def total(events: Sequence[Event]) -> int:
    """How many in all."""
    return sum(event.many for event in events)


class StateInterval(NamedTuple):
    """A connection state from `start` to `end`, in unix ms."""

    state: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class IngestRun:
    """A run of the ingest, by its last figures of that date; counts are since the run started.

    Times are unix ms, ended_ts 0 if its end is not on record. `dropped` are rows, by reason.
    """

    run_id: str
    host: str
    pid: int
    started_ts: int
    heard_ts: int
    ended_ts: int
    rows: int
    connections: int
    refused_309: int
    lost: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class IngestDay:
    """An ingest's day as the page shows it.

    `symbols` are those it was to record. held_ms: for each that was subscribed, for how long in each bin it was.
    lag_p50, lag_p99: ms from a row's arrival to Redis' answer, the worst state of each bin; NaN if there was none.
    """

    name: str
    symbols: Sequence[str]
    runs: Sequence[IngestRun]
    stretches: Sequence[StateInterval]
    refused_309: Sequence[Event]
    reconnects: Sequence[Event]
    lost: Sequence[Event]
    write_failures: Sequence[Event]
    lag_p50: Array
    lag_p99: Array
    held_ms: Mapping[str, Array]


def ingest_day(name: str, table: Any, bins: Bins, day_start: int) -> IngestDay | None:
    """Sum up a table of figures (archive.figures.SCHEMA), in order; None for an empty one. day_start is unix ms."""
    if not table.num_rows:
        return None
    runs = [_RunStates(part, day_start) for part in _by_run(table)]
    runs.sort(key=lambda run: int(run.ts[0]))
    return IngestDay(
        name=name,
        symbols=sorted({symbol for run in runs for symbol in run.symbols()}),
        runs=[run.summary() for run in runs],
        stretches=sorted((each for run in runs for each in run.stretches()), key=lambda each: each.start),
        refused_309=_events(runs, "refused_309"),
        reconnects=_events(runs, "reconnects"),
        lost=_events(runs, "lost"),
        write_failures=_events(runs, "write_failures"),
        lag_p50=_worst(runs, "lag_p50_ms", bins),
        lag_p99=_worst(runs, "lag_p99_ms", bins),
        held_ms=_held(runs, bins),
    )


def _by_run(table: Any) -> Iterator[Any]:
    run_ids = np.array(table["run_id"].to_pylist())
    for run_id in np.unique(run_ids):
        yield table.filter(pa.array(run_ids == run_id)).combine_chunks()


class _RunStates:
    """The states of one run, in order."""

    def __init__(self, table: Any, day_start: int) -> None:
        self._table = table
        self._day_start = day_start
        self.ts: Array = self._moments("written_ts")
        silent = np.diff(self.ts) > SILENT_MS
        self.until = np.append(np.where(silent, self.ts[:-1], self.ts[1:]), self.ts[-1])

    def _moments(self, name: str) -> Array:
        found: Array = self._table[name].cast(pa.int64()).to_numpy()
        return found

    def column(self, name: str) -> Array:
        """A number of each state; NaN if there was none."""
        found: Array = self._table[name].cast(pa.float64()).to_numpy()
        return found

    def steps(self, name: str) -> Iterator[Event]:
        """When a count grew, and by how much. What it was when the day began happened before."""
        values = self.column(name).astype(np.int64)
        began_today = int(self._moments("started_ts")[0]) >= self._day_start
        grown = np.diff(values, prepend=0 if began_today else values[:1])
        for at in np.flatnonzero(grown > 0).tolist():
            yield Event(int(self.ts[at]), int(grown[at]))

    def stretches(self) -> Iterator[StateInterval]:
        """How it stood with the gateway; times of the same state that touch each other are one."""
        connected = self._table["connected"].to_numpy()
        suspended = self._table["suspended"].to_numpy()
        states = np.where(~connected, DISCONNECTED, np.where(suspended, SUSPENDED, CONNECTED)).tolist()
        held: StateInterval | None = None
        for state, start, end in zip(states, self.ts.tolist(), self.until.tolist(), strict=True):
            if held is not None and held.state == state and held.end == start:
                held = held._replace(end=end)
                continue
            if held is not None and held.end > held.start:
                yield held
            held = StateInterval(state, start, end)
        if held is not None and held.end > held.start:
            yield held

    def subscribed(self) -> tuple[Array, Array]:
        """Which symbol was subscribed in which state: names, and numbers of states."""
        lists = self._table["symbols"].combine_chunks()
        symbols = lists.flatten()
        number = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy())
        chosen = symbols.field("subscribed").to_numpy(zero_copy_only=False)
        return symbols.field("symbol").to_numpy(zero_copy_only=False)[chosen], number[chosen]

    def symbols(self) -> Iterator[str]:
        """The symbols it was to record; rows of no known symbol stand under `unknown`."""
        last = self._table["symbols"][self._table.num_rows - 1].as_py()
        return (symbol["symbol"] for symbol in last if symbol["symbol"] != "unknown")

    def summary(self) -> IngestRun:
        """The run, by its last state."""
        last = self._table.slice(self._table.num_rows - 1).to_pylist()[0]
        dropped: Counter[str] = Counter()
        for symbol in last["symbols"]:
            dropped.update(dict(symbol["dropped"]))
        return IngestRun(
            run_id=last["run_id"],
            host=last["host"],
            pid=last["pid"],
            started_ts=int(self._moments("started_ts")[-1]),
            heard_ts=int(self.ts[-1]),
            ended_ts=int(self._moments("ended_ts")[-1]),
            rows=sum(symbol["rows"] for symbol in last["symbols"]),
            connections=last["connections"],
            refused_309=last["refused_309"],
            lost=last["lost"],
            dropped=dict(dropped.most_common()),
        )


def _events(runs: Sequence[_RunStates], name: str) -> list[Event]:
    return sorted(event for run in runs for event in run.steps(name))


def _worst(runs: Sequence[_RunStates], name: str, bins: Bins) -> Array:
    worst = np.full(bins.count, np.nan)
    for run in runs:
        parts = bins.overlaps(run.ts, run.until)
        values = run.column(name)[parts.interval]
        known = ~np.isnan(values)
        np.fmax.at(worst, parts.bin[known], values[known])
    return worst


def _held(runs: Sequence[_RunStates], bins: Bins) -> dict[str, Array]:
    """A slot counts as held between two states that both have it: what changes in between is not known."""
    held: dict[str, Array] = {}
    for run in runs:
        names, number = run.subscribed()
        for name in sorted(set(names)):
            of_it = number[names == name]
            both = of_it[:-1][np.diff(of_it) == 1]
            ms = bins.time_in(run.ts[both], run.until[both])
            held[name] = held[name] + ms if name in held else ms
    return held
