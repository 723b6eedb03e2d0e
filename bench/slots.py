"""How much of the slots' time is spent on live books, and the worst gap in any symbol's coverage.

Twice: the rotation's own controller in simulated time, for hours in a moment; and the recorder for real, beside the
simulated gateway in its own process, from the gateway's journal.
"""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Child
from bench.recorder import CLI, Stage, environment
from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import (
    Answered,
    Cancel,
    Connected,
    Deadline,
    RotationCommand,
    RotationEvent,
    RotationPlan,
    Stop,
    Subscribe,
)
from ibkr_depth_pipeline.simulation import gateway_process

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN", "META", "NVDA", "TSLA", "NFLX")
SLOTS = 3
LATENCY_SECS = 0.05
FIRST_ROW_SECS = 0.3


@dataclass(frozen=True)
class Coverage:
    """A book of `symbol` was live from `start` to `end`, in seconds of the run."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class SlotUse:
    """Times in seconds. ideal_gap is that of the same ring where nothing ever takes time."""

    how: str
    dwell: float
    secs: float
    share: float
    refused_309: int
    worst_gap: float
    ideal_gap: float
    timeline: tuple[Coverage, ...]

    @property
    def gap_ratio(self) -> float:
        return self.worst_gap / self.ideal_gap

    def as_json(self) -> dict[str, Any]:
        fields = ("how", "dwell", "secs", "share", "refused_309", "worst_gap", "ideal_gap", "gap_ratio")
        shown = [[each.symbol, round(each.start, 3), round(each.end, 3)] for each in self.timeline[:60]]
        return {**{name: getattr(self, name) for name in fields}, "timeline": shown}


def ideal_gap(dwell: float) -> float:
    """The worst gap of a ring whose every turn follows the last at once."""
    turns = [position // SLOTS for position in range(len(SYMBOLS) * SLOTS * 2)]
    waits = (turns[at + len(SYMBOLS)] - turns[at] - 1 for at in range(len(SYMBOLS) * SLOTS))
    return max(waits) * dwell


def _use(how: str, dwell: float, secs: float, covered: Iterable[Coverage], refused: int) -> SlotUse:
    timeline = tuple(sorted(covered, key=lambda each: each.start))
    share = sum(each.end - each.start for each in timeline) / (SLOTS * secs)
    return SlotUse(how, dwell, secs, share, refused, _worst_gap(timeline), ideal_gap(dwell), timeline)


def _worst_gap(timeline: Iterable[Coverage]) -> float:
    newest: dict[str, float] = {}
    worst = 0.0
    for each in timeline:
        worst = max(worst, each.start - newest.get(each.symbol, each.start))
        newest[each.symbol] = each.end
    return worst


def modelled(dwell: float, secs: float) -> SlotUse:
    """The pure controller: a request's first row comes after the two delays, a cancelled slot is free at once."""
    return _Model(dwell).run(secs)


class _Model:
    """Simulated time: events of the gateway, and the controller's deadlines."""

    def __init__(self, dwell: float) -> None:
        plan = RotationPlan(SLOTS, dwell, 15.0, 8.0, 4, 3600.0)
        self._controller = RotationController(SYMBOLS, plan, itertools.count(1))
        self._dwell = dwell
        self._coming: list[tuple[float, int]] = []  # first rows: when, request
        self._symbol: dict[int, str] = {}
        self._live_since: dict[int, float] = {}
        self._covered: list[Coverage] = []

    def run(self, secs: float) -> SlotUse:
        self._tell(Connected(), 0.0)
        while (now := self._next()) < secs:
            if self._coming and self._coming[0][0] <= now:
                _, request = heapq.heappop(self._coming)
                if request in self._symbol:
                    self._live_since[request] = now
                    self._tell(Answered(request), now)
            else:
                self._tell(Deadline(), now)
        self._tell(Stop(), secs)
        return _use("controller alone, simulated time", self._dwell, secs, self._covered, 0)

    def _next(self) -> float:
        times = [when for when, _ in self._coming[:1]]
        deadline = self._controller.next_deadline()
        return min([*times, *([] if deadline is None else [deadline])])

    def _tell(self, event: RotationEvent, now: float) -> None:
        for command in self._controller.handle(event, now):
            self._carry_out(command, now)

    def _carry_out(self, command: RotationCommand, now: float) -> None:
        if isinstance(command, Subscribe):
            self._symbol[command.request] = command.symbol
            heapq.heappush(self._coming, (now + LATENCY_SECS + FIRST_ROW_SECS, command.request))
        elif isinstance(command, Cancel):
            symbol = self._symbol.pop(command.request)
            since = self._live_since.pop(command.request, None)
            if since is not None:
                self._covered.append(Coverage(symbol, since, now))


def recorded(stage: Stage, dwell: float, secs: float) -> SlotUse:
    """The recorder itself for `secs` seconds."""
    stage.redis.flush()
    journal = stage.folder / f"journal-{dwell:g}.jsonl"
    arguments = ["--latency", LATENCY_SECS, "--first-row-delay", FIRST_ROW_SECS, "--slots", SLOTS]
    arguments += ["--rows-per-second", 50, "--journal", journal]
    with ExitStack() as stack:
        _, port = stack.enter_context(gateway_process(*map(str, arguments)))
        env = environment(stage, port, SYMBOLS, IBKR_ROTATION_SECS=dwell)
        ingest = stack.enter_context(Child(CLI, env, stage.folder))
        _await_subscription(journal, ingest)
        time.sleep(secs)
        if ingest.stop():
            raise ingest.failed("did not end well")
    return _of_journal(journal, dwell)


def _await_subscription(journal: Path, ingest: Child) -> None:
    deadline = time.monotonic() + 30
    while not (journal.exists() and '"subscribed"' in journal.read_text()):
        if ingest.process.poll() is not None or time.monotonic() > deadline:
            raise ingest.failed("never subscribed")
        time.sleep(0.02)


def _of_journal(journal: Path, dwell: float) -> SlotUse:
    """A book is live from when its first row is here, a latency after it left, until its cancel."""
    began: dict[int, float] = {}
    live: dict[int, tuple[str, float]] = {}
    ended: dict[int, float] = {}
    refused = 0
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        request = entry.get("request_id")
        if entry["kind"] == "subscribed":
            began[request] = entry["at"]
        elif entry["kind"] == "rows":
            live.setdefault(request, (entry["name"], entry["at"] + LATENCY_SECS))
        elif entry["kind"] == "unsubscribed":
            ended[request] = entry["at"]
        refused += entry["kind"] == "error" and entry.get("code") == 309
    start, stop = min(began.values()), max(ended.values())
    covered = [Coverage(name, max(at, start) - start, ended[each] - start) for each, (name, at) in live.items()]
    return _use("recorder, real time", dwell, stop - start, covered, refused)
