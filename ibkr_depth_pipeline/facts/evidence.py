"""What experiments share: their limits, the lines and errors seen so far, the findings, and their commands. Pure.

An experiment is a generator. It yields commands, which the carrier (session.py) carries out, and is sent their results;
between two of them `Evidence` grows by what the gateway sends. Times are seconds of the carrier's monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import JsonValue

from ibkr_depth_pipeline.facts.assumptions import BY_FACT
from ibkr_depth_pipeline.model import DepthRow, Instrument

NO_SLOT_CODES = (309, 101)
BOOK_RESET = 317
WARNINGS = range(2100, 2170)
"""Codes that refuse nothing, also with the id of a request (docs/ibkr-market-depth.md, "Error codes")."""
PERMISSIONS = 2152
MOST_ROWS = 200_000
"""Rows of a line that are kept; later ones are counted only."""


@dataclass(frozen=True, slots=True)
class FactLimits:
    """How long experiments wait, in seconds, and how much they try. The whole run ends after `total`."""

    total: float = 300.0
    first_row: float = 15.0
    """Longest wait for the first row of a line."""
    granted: float = 2.0
    """A request that met no error for so long has its slot."""
    advice: float = 3.0
    """How long rows are awaited after an error that may be advice."""
    farms: float = 3.0
    watch: float = 20.0
    """How long the lines of the venues are watched."""
    compare: float = 2.0
    """How long a line is compared with a fresh one."""
    late_rows: float = 5.0
    """How long rows are awaited after a cancel."""
    release: float = 15.0
    """Longest wait for a slot that was given back, by a cancel or with the connection."""
    most_slots: int = 10
    most_venues: int = 12


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error message as it came; request -1 names none."""

    at: float
    request: int
    code: int
    text: str

    @property
    def as_json(self) -> dict[str, JsonValue]:
        """Code and text, the id of the request in it replaced by `{request_id}`."""
        return {"code": self.code, "text": self.text.replace(str(self.request), "{request_id}")}


class TimedRow(NamedTuple):
    """A row of depth; `number` counts the rows of all lines in the order in which they came."""

    number: int
    at: float
    row: DepthRow


@dataclass(slots=True, eq=False)
class ObservedLine:
    """One depth subscription: what was requested, and what came of it. Time inf: not yet."""

    request: int
    instrument: Instrument
    rows_asked: int
    sent_at: float = math.inf
    cancelled_at: float = math.inf
    last_row_at: float = -math.inf
    rows: list[TimedRow] = field(default_factory=list)
    row_count: int = 0
    first_row_at: float = math.inf
    errors: list[ErrorMessage] = field(default_factory=list)

    @property
    def place(self) -> str:
        """SYMBOL@VENUE."""
        return f"{self.instrument.symbol}@{self.instrument.exchange}"

    def reset(self) -> None:
        """The gateway has emptied the book (317): what follows is an opening again."""
        self.rows.clear()

    @property
    def has_rows(self) -> bool:
        """Whether any row has come."""
        return self.row_count > 0

    @property
    def error(self) -> ErrorMessage | None:
        """The first error before its cancel."""
        return next((each for each in self.errors if each.at < self.cancelled_at), None)

    @property
    def has_no_slot(self) -> bool:
        """Whether it was refused for want of a slot."""
        return not self.has_rows and self.error is not None and self.error.code in NO_SLOT_CODES

    def is_answered(self, now: float, limits: FactLimits) -> bool:
        """Whether a row, or an error that no row follows, has come."""
        if self.has_rows or self.has_no_slot:
            return True
        return self.error is not None and now >= self.error.at + limits.advice


class ExperimentFailed(Exception):
    """An experiment can't go on; the message says why, for the facts that it has not seen."""


# ---- commands, and what their results are


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Send a depth request; with `cancel_at_once` its cancel in the same breath."""

    line: ObservedLine
    cancel_at_once: bool = False


@dataclass(frozen=True, slots=True)
class CancelLine:
    """Send a cancel."""

    line: ObservedLine


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Wait until the condition holds, at most until `until`."""

    condition: Callable[[], bool]
    until: float


@dataclass(frozen=True, slots=True)
class ResolveSymbols:
    """Resolve the contracts of these names. Result: instruments and Unresolved by name."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskClock:
    """Ask for the gateway's time. Result: a ClockSample."""


@dataclass(frozen=True, slots=True)
class ConnectAnew:
    """Close the connection and open it again under the same client id. Result: seconds until it was granted."""


class ClockSample(NamedTuple):
    """Whole unix seconds that the gateway sent, and this host's clock when it was asked and when the answer came."""

    asked_at: float
    told: int
    answered_at: float


FactCommand = RequestLine | CancelLine | WaitFor | ResolveSymbols | AskClock | ConnectAnew
Steps = Generator[FactCommand, Any, None]


# ---- the evidence


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one fact. at_least: the true value may be larger."""

    seen: JsonValue
    note: str = ""
    at_least: bool = False


@dataclass(slots=True)
class Evidence:
    """All that was seen so far. The carrier sets `now` before it goes on with an experiment."""

    limits: FactLimits
    request_ids: Iterator[int]
    symbols: tuple[str, ...]
    rows_asked: int
    spare_symbols: tuple[str, ...] = ()
    """Further names, whose contracts fill the account's slots."""
    now: float = 0.0
    server_version: int = 0
    greeting_secs: float = 0.0
    details_secs: float | None = None
    instruments: dict[str, Instrument] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    """symbol -> when its market opens, of those whose market is closed."""
    lines: dict[int, ObservedLine] = field(default_factory=dict)
    errors: list[ErrorMessage] = field(default_factory=list)
    refusing: set[str] = field(default_factory=set)
    """Venues that have refused a symbol for another reason than its slot."""
    findings: dict[str, Finding] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """fact -> why it was not seen."""
    _rows: int = 0

    # ---- inputs

    def row(self, request: int, row: DepthRow, now: float) -> None:
        """A row came."""
        line = self.lines.get(request)
        if line is None:
            return
        self._rows += 1
        line.row_count += 1
        line.first_row_at = min(line.first_row_at, now)
        line.last_row_at = now
        if len(line.rows) < MOST_ROWS:
            line.rows.append(TimedRow(self._rows, now, row))

    def error(self, message: ErrorMessage) -> None:
        """An error message came."""
        self.errors.append(message)
        line = self.lines.get(message.request)
        if line is not None and message.code == BOOK_RESET:
            line.reset()
        elif line is not None and message.code not in WARNINGS:
            line.errors.append(message)

    # ---- findings

    def find(self, fact: str, seen: JsonValue, note: str = "", *, at_least: bool = False) -> None:
        """Record what was seen of a fact."""
        assert fact in BY_FACT
        self.findings[fact] = Finding(seen, note, at_least)

    def fail(self, facts: Iterable[str], why: str) -> None:
        """Record why facts were not seen; those that were stay as they are."""
        for fact in facts:
            self.reasons.setdefault(fact, why)

    # ---- steps that experiments share

    @property
    def contracts(self) -> list[Instrument]:
        """The resolved instruments, each contract once, those asked for first."""
        return list({each.con_id: each for each in self.instruments.values()}.values())

    @property
    def why_no_contract(self) -> str:
        """Why no contract can be requested."""
        closed = "; ".join(f"{name} opens {when}" for name, when in self.closed.items())
        return f"the market is closed: {closed}" if closed else "no symbol has a contract with depth"

    def open(
        self, instrument: Instrument, *, cancel_at_once: bool = False
    ) -> Generator[FactCommand, Any, ObservedLine]:
        """Request a line."""
        line = ObservedLine(next(self.request_ids), instrument, self.rows_asked)
        self.lines[line.request] = line
        yield RequestLine(line, cancel_at_once)
        return line

    def granted(self, line: ObservedLine) -> Generator[FactCommand, Any, bool]:
        """Wait until it is known whether the line has a slot, and return that."""
        yield WaitFor(lambda: line.is_answered(self.now, self.limits), self._granted_at(line))
        if line.error is not None and not line.has_no_slot:
            yield from self.answered(line)
        return not line.has_no_slot

    def _granted_at(self, line: ObservedLine) -> float:
        return line.sent_at + self.limits.granted

    def answered(self, line: ObservedLine) -> Steps:
        """Wait until a row, or an error that no row follows, has come; at most for first_row."""
        yield WaitFor(lambda: line.is_answered(self.now, self.limits), line.sent_at + self.limits.first_row)

    def cancel(self, lines: Iterable[ObservedLine]) -> Steps:
        """Cancel lines once they have had their first row, so that no cancel is ignored; wait at most for first_row."""
        for line in lines:
            if line.cancelled_at < math.inf or line.has_no_slot:
                continue
            yield from self.answered(line)
            yield CancelLine(line)

    def pause(self, secs: float) -> Steps:
        """Let so many seconds pass."""
        yield WaitFor(lambda: False, self.now + secs)

    def slot_free(self) -> float:
        """Seconds after a cancel at which its slot is free for certain, as far as known."""
        found = self.findings.get("slot_free_secs")
        return float(str(found.seen)) if found is not None else 0.0
