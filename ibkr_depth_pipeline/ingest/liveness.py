"""Tracks which subscriptions are alive: reports that put them in doubt, rows that prove them, silence, data gaps. Pure.

A dead line is as silent as a quiet one. So a report of trouble puts every subscription in doubt, and so does the
report of its end: lines stay dead after troubles that are over. Only a row that came after the report proves its line
(`LivenessTracker`). Rows may go on all the same, so a gap is the longest pause between two rows from the report to the
row that proves the line (`DataGaps`).

A line may also die without a report. So the rows of every line are counted a few times a second (never row by row), and
what is usual for a symbol is learned from its own gaps, across turns and connections (`SilenceDetector`). A line is
suspect once it is silent for longer than its bound:

- `floor` (IBKR_SILENT_LINE_SECS) at least;
- four times its longest gap of late;
- what its number of gaps can rule out: with k gaps in T seconds, a gap longer than T (p^(-1/k) - 1) has probability p
  if rows come at random.

Silence is measured in market time: its clock runs as fast as the other lines tick, compared with what is usual for
them, and stands still if more than half of them are quiet. So a market that is quiet as a whole is no fault.

`now` is monotonic seconds; times of rows are unix ms.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.ingest.books import LineSample

AILING_SECS = 30.0
"""How long a subscription may stay silent after news of a broken farm or a competing session, if no news of its end
comes, before it is requested again. A blip of three seconds has killed feeds for hours elsewhere."""

CURED_SECS = 5.0
"""The same, once the farm is reported well."""

IN_FLIGHT_SECS = 2.0
"""Rows that come so soon after bad news may have been in flight before it; they prove nothing."""

_AILMENTS = frozenset({2103, 2108, 2110, 10197})
"""Farm status codes about live market data; the others are about historical data."""

_CURED_BY = {2104: frozenset({2103, 2108, 2110})}


class LivenessTracker:
    """Tracks which subscriptions are suspect, by request id. ailing_secs: AILING_SECS, in a test fewer."""

    def __init__(self, ailing_secs: float = AILING_SECS) -> None:
        self._ailing_secs = ailing_secs
        self.awaited: set[int] = set()
        """The requests that are new or in doubt: their next row is awaited. Changed by this tracker alone."""
        self.suspended = False
        """Whether the gateway has reported the loss of IBKR (1100)."""
        self._ailments: set[int] = set()
        self._proof_from = 0.0

    @property
    def ailments(self) -> tuple[int, ...]:
        """The codes of the troubles with live market data that still stand."""
        return tuple(sorted(self._ailments))

    # ---- the connection

    def connecting(self) -> None:
        """Forget the reports on earlier connections: one is being tried, and reports count from now on."""
        self._well_again()
        self._proof_from = 0.0

    def disconnected(self) -> None:
        """Await no request: the connection is gone."""
        self.awaited.clear()

    # ---- one request

    def await_row(self, request: int) -> None:
        """Await the next row of the request: it is new, or in doubt."""
        self.awaited.add(request)

    def forget(self, request: int) -> None:
        """Await no row of the request any more; that proves nothing."""
        self.awaited.discard(request)

    def is_proof(self, now: float) -> bool:
        """Whether a row that comes now proves its line alive."""
        return now >= self._proof_from

    def prove(self, request: int) -> None:
        """Take the request for alive: a row came. If it was the last in doubt, no trouble stands any longer."""
        self.awaited.discard(request)
        if not self.awaited:
            self._ailments.clear()

    # ---- reports that put all `requests` in doubt

    def connectivity_lost(self, requests: Iterable[int], now: float) -> None:
        """Note that the gateway lost IBKR (1100)."""
        self.suspended = True
        self._doubt(requests, now + IN_FLIGHT_SECS)

    def connectivity_restored(self, requests: Iterable[int], now: float) -> None:
        """Note that the gateway found IBKR again (1101, 1102)."""
        self._well_again()
        self._doubt(requests, now)

    def outage_assumed_over(self) -> None:
        """Take the outage for over without a report: lines are requested again, and their first rows awaited."""
        self._well_again()

    def farm_status(self, code: int, requests: Iterable[int], now: float) -> float | None:
        """Note a report on a farm or a competing session (21xx, 10197).

        Returns within how many seconds each request must bring a row, or else be requested again. None: nothing is in
        doubt, as the report is not about live market data, or ends no known trouble.
        """
        cured = self._ailments & _CURED_BY.get(code, frozenset())
        if cured:
            self._ailments -= cured
            self._doubt(requests, now)
            return CURED_SECS
        if code in _AILMENTS:
            self._ailments.add(code)
            self._doubt(requests, now + IN_FLIGHT_SECS)
            return self._ailing_secs
        return None

    def _well_again(self) -> None:
        self.suspended = False
        self._ailments.clear()

    def _doubt(self, requests: Iterable[int], proof_from: float) -> None:
        self.awaited.update(requests)
        self._proof_from = proof_from


# ---- gaps


@dataclass(frozen=True, slots=True)
class DataGap:
    """A time in which a symbol's data was missing: the longest pause between two rows, unix ms."""

    symbol: str
    cause: str
    code: int
    since: int
    until: int

    @property
    def secs(self) -> float:
        """Its length in seconds."""
        return max(0, self.until - self.since) / 1000


@dataclass(slots=True)
class _Open:
    cause: str
    code: int
    newest: int  # row, unix ms
    since: int = 0
    until: int = 0

    def row(self, ts: int) -> None:
        if ts - self.newest >= self.until - self.since:
            self.since, self.until = self.newest, ts
        self.newest = ts

    def clock_stepped(self, step_ms: int) -> None:
        self.newest += step_ms
        if self.until:
            self.since, self.until = self.since + step_ms, self.until + step_ms


class DataGaps:
    """The open gaps, by symbol, each from an interruption to the row that proves the line. The first cause counts."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def open(self, last_rows: Iterable[tuple[str, int]], cause: str, code: int = 0) -> None:
        """Open a gap for each symbol from its last row on, unix ms, unless one is open."""
        for symbol, since in last_rows:
            self._open.setdefault(symbol, _Open(cause, code, since))

    def row(self, symbol: str, ts: int) -> None:
        """Note a row of the symbol that proves nothing yet."""
        if symbol in self._open:
            self._open[symbol].row(ts)

    def close(self, symbol: str, until: int) -> DataGap | None:
        """Close the gap at the row that proves the symbol's line. None: there is none."""
        opened = self._open.pop(symbol, None)
        if opened is None:
            return None
        opened.row(until)
        return DataGap(symbol, opened.cause, opened.code, opened.since, opened.until)

    def clock_stepped(self, step_ms: int) -> None:
        """Move the open gaps along with a clock that was set by so many ms."""
        for opened in self._open.values():
            opened.clock_stepped(step_ms)

    @property
    def missing(self) -> dict[str, str]:
        """symbol -> cause, of every open gap."""
        return {symbol: opened.cause for symbol, opened in self._open.items()}


# ---- silence


GAP_FACTOR = 4.0
IMPROBABLE = 1e-6
LONGEST_BOUND_SECS = 3600.0
"""After so long any line is asked for again; one that is as quiet as that by its own past is not called silent."""

NEW_LINE_FLOORS = 8
"""How many floors a line may be silent that has never sent a row after its opening image: there is nothing to compare
with, so it is only asked for again, and not called silent."""

BUSY_LINE_FLOORS = 2
"""Most floors that a line may be silent which had rows nearly all the time so far, however short that was; it is called
silent where that was a floor at least."""

LONE_LINE_PACE = 1 / 40
"""How fast the clock runs where no other line can be compared with: such a line is only asked for again, and rarely."""

_TICKING = 0.1  # share of its usual pace below which a line counts as quiet
_UNLEARNING_FACTOR = 500
_REFERENCE_ROWS = 7.5  # a line with so many rows in a floor is evidence about the market
_MEMORY_FLOORS = 120
_TICKS_OF_A_LIVE_LINE = 3


class SilentLine(NamedTuple):
    """A line to request again. proven: its silence is a fault, as others tick and it used to; else it may be quiet."""

    request: int
    symbol: str
    secs: float
    proven: bool


@dataclass(slots=True)
class _Habits:
    """What is usual for one symbol. Seconds are market time; both counts fade, so that the day's course counts."""

    heard: float = 0.0
    ticks: float = 0.0
    longest: float = 0.0
    fast: float = 0.0  # rows a second of late
    slow: float = 0.0  # rows a second as a rule
    measured: float = 0.0  # for how many seconds the rates were
    asked: int = 0  # how often it was asked for again in vain

    def tick(self, gap: float, memory: float, period: float) -> None:
        """Rows came after `gap` seconds."""
        kept = math.exp(-(gap + period) / memory)
        self.heard = self.heard * kept + max(gap, period)
        self.ticks = self.ticks * kept + 1
        self.longest *= math.exp(-(gap + period) / (4 * memory))
        if gap > 1.5 * period:
            self.longest = max(self.longest, gap)

    def measure(self, rate: float, dt: float, fast_secs: float, slow_secs: float) -> None:
        """So many rows came a second in the last `dt` seconds."""
        self.measured += dt
        at_first = min(1.0, dt / self.measured)
        self.fast += (rate - self.fast) * max(1 - math.exp(-dt / fast_secs), at_first)
        if self.slow and self.pace < _TICKING:  # a night must not make quiet usual
            self.slow += (rate - self.slow) * (1 - math.exp(-dt / (slow_secs * _UNLEARNING_FACTOR)))
        else:
            self.slow += (rate - self.slow) * max(1 - math.exp(-dt / slow_secs), at_first)

    @property
    def pace(self) -> float:
        """How the rate of late compares with the usual one, from 0 to 1; its root, as bursts are usual as well."""
        return math.sqrt(min(1.0, self.fast / self.slow)) if self.slow else 0.0


@dataclass(slots=True)
class _Line:
    symbol: str
    rows: int = 0
    silence: float = 0.0  # market seconds
    ticks: int = 0
    suspect: bool = False


class SilenceDetector:
    """Learns each symbol's usual silence. floor: seconds; first_row_secs: how long a first row may take;
    image_rows: rows that open a book.

    Call `sample` every `period` seconds or so. What is learned of a symbol stays for the run.
    """

    def __init__(self, *, floor: float, first_row_secs: float, image_rows: int) -> None:
        self.period = min(1.0, max(0.02, floor / 15))
        self._floor = floor
        self._first_row_secs = max(first_row_secs, floor)
        self._image_rows = image_rows
        self._habits: dict[str, _Habits] = {}
        self._lines: dict[int, _Line] = {}
        self._sampled_at: float | None = None
        self.silent: dict[str, float] = {}
        """symbol -> when it was found silent while others are not; until a row of it comes."""

    def restart(self) -> None:
        """The connection is new, or was in trouble: silence is counted from now on."""
        self._lines.clear()
        self.silent.clear()

    def forget(self, request: int) -> None:
        """The subscription is over. What it has sent counts, but for a silence that was no usual one."""
        line = self._lines.pop(request, None)
        if line is not None and line.rows and not line.suspect:
            self._habits[line.symbol].heard += line.silence

    def usual_silence(self, symbol: str) -> float:
        """The longest gap of the symbol of late, in seconds."""
        return self._habits[symbol].longest if symbol in self._habits else 0.0

    def sample(self, lines: Collection[LineSample], now: float) -> list[SilentLine]:
        """The lines that are silent for too long; each is named once in every bound, which doubles each time."""
        before, self._sampled_at = self._sampled_at, now
        for request in self._lines.keys() - {each.request for each in lines}:
            self.forget(request)
        dt = (
            0.0 if before is None else min(max(0.0, now - before), 4 * self.period)
        )  # a process that slept received nothing
        fresh = [(each, self._take(each, dt)) for each in lines]
        found = []
        for each, line in fresh:
            if each.doubted:
                line.silence = 0.0
                continue
            pace, others = self._market(each.request)
            line.silence += dt * pace
            if line.silence > self._bound(line):
                found.append(self._suspect(each, line, others, now))
        return found

    # ---- one line

    def _take(self, sample: LineSample, dt: float) -> _Line:
        """Count the rows that came since the last sample."""
        line = self._lines.setdefault(sample.request, _Line(sample.symbol))
        habits = self._habits.setdefault(sample.symbol, _Habits())
        later = max(0, sample.rows - max(line.rows, self._image_rows))  # than the rows that open the book
        if dt and line.rows:
            habits.measure(later / dt, dt, self._floor / 4, self._floor * 40)
        if sample.rows > line.rows:
            if later:
                habits.tick(line.silence, self._floor * _MEMORY_FLOORS, self.period)
                line.ticks += 1
                if line.ticks >= _TICKS_OF_A_LIVE_LINE:
                    habits.asked = 0
            line.silence, line.suspect, line.rows = 0.0, False, sample.rows
            self.silent.pop(sample.symbol, None)
        return line

    def _bound(self, line: _Line) -> float:
        """How many market seconds this line may be silent now."""
        habits = self._habits[line.symbol]
        return Backoff(self._usual_bound(line, habits), LONGEST_BOUND_SECS).pause(habits.asked + 1)

    def _is_proven(self, line: _Line) -> bool:
        """Whether its silence of now is a fault beyond doubt: its own past is long enough to decide that."""
        habits = self._habits[line.symbol]
        if not line.rows:
            return True
        return habits.heard >= self._floor and line.silence > self._usual_bound(line, habits)

    def _usual_bound(self, line: _Line, habits: _Habits) -> float:
        if not line.rows:
            return self._first_row_secs
        if not habits.ticks:
            return NEW_LINE_FLOORS * self._floor
        heard = max(habits.heard, self.period)
        ruled_out = heard * (math.exp(min(50.0, -math.log(IMPROBABLE) / habits.ticks)) - 1)
        if habits.ticks * self.period >= heard / 2:
            ruled_out = min(ruled_out, BUSY_LINE_FLOORS * self._floor)
        return max(self._floor, ruled_out, GAP_FACTOR * habits.longest)

    def _suspect(self, sample: LineSample, line: _Line, others: bool, now: float) -> SilentLine:
        habits = self._habits[sample.symbol]
        proven = others and self._is_proven(line)
        found = SilentLine(sample.request, sample.symbol, line.silence, proven)
        habits.asked += 1
        line.suspect, line.silence = True, 0.0
        if proven:
            self.silent.setdefault(sample.symbol, now)
        return found

    # ---- the market

    def _market(self, request: int) -> tuple[float, bool]:
        """How fast market time runs for a line, from 0 to 1, and whether there are others to compare it with."""
        paces = [self._habits[line.symbol].pace for other, line in self._lines.items() if self._tells(other, request)]
        if not paces:
            return LONE_LINE_PACE, False
        ticking = sum(pace > _TICKING for pace in paces)
        return (sum(paces) / len(paces) if 2 * ticking >= len(paces) else 0.0), True

    def _tells(self, other: int, request: int) -> bool:
        line = self._lines[other]
        slow = self._habits[line.symbol].slow
        return other != request and line.rows > 0 and not line.suspect and slow * self._floor >= _REFERENCE_ROWS
