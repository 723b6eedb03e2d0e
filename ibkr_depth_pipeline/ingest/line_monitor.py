"""Inspects live lines outside the hot path: silent ones (liveness.py), and books out of step with the gateway's. Pure.

A book that lost a row, got one twice or had a side sent again stays wrong without a report. It shows sooner or later:
its prices are out of order, a level stands twice, it is crossed. All of that is normal for a moment, in the middle of a
price move; so only a fault that every check finds for a while counts, and only if rows came meanwhile (or for longer,
if not).

A dropped row is judged at once: the loss of an insert or a delete, or of a row that may have been one, shifts every row
below it. The loss of an update leaves one level wrong until its next update, so updates count only when they are lost
again and again, as do rows past the end: single ones are harmless (IBKR's own Java sample passes over them).

A line that is found is requested again, with a back-off; until the next subscription brings rows the symbol is in
trouble, and its heartbeat is not renewed. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.ingest.books import BookState, LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.liveness import LivenessTracker, SilenceDetector
from ibkr_depth_pipeline.model import DepthOperation, Levels, RowFault

CHECK_SECS = 0.25
"""How often books are checked."""

PERSISTENT_SECS = 2.0
PERSISTENT_CHECKS = 8
"""A fault that each of so many checks in so many seconds finds is no price move under way."""

STANDING_SECS = 6.0
"""The same for a book without rows meanwhile: the rest of a move may be on its way."""

SETTLED_SECS = 1.0
"""How long after the first check a book's opening image is complete."""

LOST_ROWS = 3.0
"""Too many lost updates and rows past the end; one is forgiven every FORGIVEN_SECS. Deletes weigh less."""
FORGIVEN_SECS = 10.0
_WEIGHT_OF_DELETE = 0.2

RESUBSCRIBE_PACE = Backoff(first=5.0, longest=3600.0, factor=4.0)
"""Seconds between two requests for a symbol whose book looks wrong."""

UNSORTED = "prices out of order"
REPEATED = "a level stands twice"
CROSSED = "crossed"
INSERT_LOST = "an insert was dropped"
DELETE_LOST = "a delete was dropped"
ROW_LOST = "a row of unknown operation was dropped"
ROWS_LOST = "rows past the end or unreadable again and again"

_PAST = (RowFault.PAST_END, RowFault.PAST_REQUESTED)


def shape_fault(bids: Levels, asks: Levels) -> str:
    """What is wrong with the levels of a book's sides, "" if nothing. Several names at one price are in order."""
    if any(a[0] < b[0] for a, b in pairwise(bids)) or any(a[0] > b[0] for a, b in pairwise(asks)):
        return UNSORTED
    if any(len({(price, name) for price, _, name in side}) < len(side) for side in (bids, asks)):
        return REPEATED
    return ""


def is_crossed(bids: Levels, asks: Levels) -> bool:
    """Whether the best prices meet (locked) or more."""
    return bool(bids and asks) and bids[0][0] >= asks[0][0]


@dataclass(slots=True)
class _Fault:
    """A fault that every check has found since `since`, when so many rows had come."""

    since: float
    rows: int
    checks: int = 0


@dataclass(slots=True)
class _Book:
    first_seen: float
    rows: int = -1  # at the newest check
    shape: _Fault | None = None
    crossed: _Fault | None = None
    settled: bool = False
    repeats: bool = False  # its opening image shows a name twice at a price: so this venue does
    lost: float = 0.0
    lost_at: float = 0.0


class BookIntegrity:
    """Judges whether live books are in step. crossed_secs: how long a book may be crossed or locked."""

    def __init__(self, crossed_secs: float) -> None:
        self._crossed_secs = crossed_secs
        self._books: dict[int, _Book] = {}

    def forget(self, request: int) -> None:
        """Forget a book that was emptied."""
        self._books.pop(request, None)

    def keep(self, requests: Set[int]) -> None:
        """Forget all books but these."""
        for request in self._books.keys() - requests:
            del self._books[request]

    def is_due(self, request: int, rows: int) -> bool:
        """Whether the book is to be checked: rows have come since the last check, or it found a fault."""
        book = self._books.get(request)
        return book is None or rows != book.rows or not book.settled or bool(book.shape or book.crossed)

    def is_clean(self, request: int) -> bool:
        """Whether the newest check of the book found no fault."""
        book = self._books.get(request)
        return book is not None and not book.shape and not book.crossed

    def fault_secs(self, request: int, now: float) -> float:
        """For how long checks have found the book's present fault; 0 if it has none."""
        book = self._books.get(request)
        faults = [fault for fault in (book.shape, book.crossed) if fault] if book is not None else []
        return max((now - fault.since for fault in faults), default=0.0)

    def check(self, seen: BookState, now: float) -> str:
        """Why the book is out of step; "" if it is not known to be."""
        book = self._books.setdefault(seen.request, _Book(now))
        book.rows = seen.rows
        shape = self._shape_fault(book, seen, now)
        book.shape = _fault_since(book.shape, bool(shape), seen.rows, now)
        book.crossed = _fault_since(book.crossed, is_crossed(seen.bids, seen.asks), seen.rows, now)
        if book.shape and _persists(book.shape, PERSISTENT_SECS, seen.rows, now):
            return shape
        return CROSSED if book.crossed and _persists(book.crossed, self._crossed_secs, seen.rows, now) else ""

    @staticmethod
    def _shape_fault(book: _Book, seen: BookState, now: float) -> str:
        fault = shape_fault(seen.bids, seen.asks)
        if not book.settled and now - book.first_seen >= SETTLED_SECS:
            book.settled, book.repeats = True, fault == REPEATED
        return "" if fault == REPEATED and (book.repeats or not book.settled) else fault

    def row_dropped(self, request: int, operation: DepthOperation | None, fault: RowFault, now: float) -> str:
        """Judge a dropped row of a live book; operation: None if it can't be read. Returns as `check` does."""
        if operation is None:
            return ROW_LOST
        if operation is DepthOperation.INSERT and fault is not RowFault.PAST_REQUESTED:
            return INSERT_LOST
        if operation is DepthOperation.DELETE and fault not in _PAST:
            return DELETE_LOST
        book = self._books.setdefault(request, _Book(now))
        left = max(0.0, book.lost - (now - book.lost_at) / FORGIVEN_SECS)
        book.lost = left + (_WEIGHT_OF_DELETE if operation is DepthOperation.DELETE else 1.0)
        book.lost_at = now
        if book.lost < LOST_ROWS:
            return ""
        book.lost = 0.0
        return ROWS_LOST


def _fault_since(before: _Fault | None, is_wrong: bool, rows: int, now: float) -> _Fault | None:
    if not is_wrong:
        return None
    if before is None:
        return _Fault(now, rows)
    before.checks += 1
    return before


def _persists(seen: _Fault, secs: float, rows: int, now: float) -> bool:
    needed = secs if rows > seen.rows else max(secs, STANDING_SECS)
    return seen.checks >= PERSISTENT_CHECKS and now - seen.since >= needed


class ResubscribeBackoff:
    """When a symbol may be requested again: at once, then ever more rarely, and at once again after a long calm.

    So a venue whose book always seems wrong causes few requests.
    """

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, float]] = {}  # symbol -> when it was last requested, the pause after that

    def allows(self, symbol: str, now: float) -> bool:
        """Whether to request the symbol again now; if so, it counts."""
        asked_at, pause = self._asked.get(symbol, (float("-inf"), 0.0))
        if now < asked_at + pause:
            return False
        is_calm = now - asked_at > max(20 * pause, 600)
        self._asked[symbol] = now, RESUBSCRIBE_PACE.first if is_calm else RESUBSCRIBE_PACE.longer(pause)
        return True


SILENT = "silent, others are not"
OUT_OF_STEP = "book out of step"


@dataclass(frozen=True, slots=True)
class SilenceFound:
    """A line to request again. proven: it is silent while others are not; otherwise it may just be quiet."""

    request: int
    symbol: str
    secs: float
    proven: bool


@dataclass(frozen=True, slots=True)
class OutOfStepFound:
    """A book that differs from the gateway's. new: found just now; ask: it is to be requested again.

    secs: for how long it has done so by then, as far as is known.
    """

    request: int
    symbol: str
    reason: str
    new: bool
    ask: bool
    secs: float = 0.0


@dataclass(frozen=True, slots=True)
class InStepFound:
    """A book that was crossed is so no longer, and counts as right again."""

    request: int


Found = SilenceFound | OutOfStepFound | InStepFound


class LineMonitor:
    """Finds silent lines and books out of step: call `inspect` every `period` seconds. It keeps figures up to date."""

    def __init__(
        self,
        books: LiveBooks,
        liveness: LivenessTracker,
        silence: SilenceDetector,
        integrity: BookIntegrity,
        figures: PipelineFigures,
    ) -> None:
        self.period = min(CHECK_SECS, silence.period)
        self._books = books
        self._liveness = liveness
        self._silence = silence
        self._integrity = integrity
        self._figures = figures
        self._backoff = ResubscribeBackoff()
        self._out_of_step: dict[str, tuple[int, str]] = {}  # symbol -> request, reason
        self._lost_rows: dict[int, str] = {}  # request -> why it is out of step, since the newest `inspect`
        self._sample_at = 0.0

    # ---- state

    def is_out_of_step(self, symbol: str) -> bool:
        """Whether the symbol's book differs from the gateway's."""
        return symbol in self._out_of_step

    def troubles(self) -> dict[str, str]:
        """symbol -> what is wrong with its line, in words."""
        silent = dict.fromkeys(self._silence.silent, SILENT)
        return silent | {symbol: f"{OUT_OF_STEP}: {reason}" for symbol, (_, reason) in self._out_of_step.items()}

    def live_books(self) -> dict[str, int]:
        """symbol -> unix ms of the last row, of every subscription whose book is live, provided the gateway answers.

        A book is live if it holds rows, its request is not awaited, and its line is not in trouble.
        """
        if self._liveness.suspended:
            return {}
        filled, troubles = self._books.filled(), self.troubles()
        return {
            symbol: ts
            for request, (symbol, ts) in filled.items()
            if request not in self._liveness.awaited and symbol not in troubles
        }

    def usual_silence(self, symbol: str) -> float:
        """The longest gap between the symbol's rows of late, in seconds."""
        return self._silence.usual_silence(symbol)

    # ---- events

    def restart(self) -> None:
        """Count silences from now on: the connection is new, or in trouble."""
        self._silence.restart()

    def row_came(self, request: int) -> None:
        """Note a row that proves a request's line. If the request is new, its predecessor's trouble is over."""
        symbol = self._books.symbol_of(request)
        if symbol in self._out_of_step and self._out_of_step[symbol][0] != request:
            del self._out_of_step[symbol]

    def book_emptied(self, request: int) -> None:
        """Take a book for in step: the gateway emptied it (317)."""
        self._integrity.forget(request)
        self._lost_rows.pop(request, None)
        self._out_of_step.pop(self._books.symbol_of(request), None)

    def row_dropped(self, request: int, operation: DepthOperation | None, fault: RowFault, now: float) -> None:
        """Note a dropped row of the request; operation: None if it can't be read.

        If that puts the book out of step, the next `inspect` finds it: the rest of what was read is still the book's.
        """
        if request in self._books.requests():
            reason = self._integrity.row_dropped(request, operation, fault, now)
            if reason:
                self._lost_rows.setdefault(request, reason)

    def inspect(self, now: float) -> list[Found]:
        """What is found now; nothing while the gateway has lost IBKR. Silence of requests in doubt is not judged."""
        if self._liveness.suspended:
            self.restart()
            return []
        found: list[Found] = []
        self._integrity.keep(self._books.requests())
        if now >= self._sample_at:
            self._sample_at = now + self._silence.period * 0.9
            found += self._silent(now)
        found += self._checked(now)
        for symbol in self._uncrossed():
            request, _ = self._out_of_step.pop(symbol)
            found.append(InStepFound(request))
        return found

    # ---- silence

    def _silent(self, now: float) -> list[SilenceFound]:
        samples = self._books.line_samples(self._liveness.awaited)
        found = [SilenceFound(*each) for each in self._silence.sample(samples, now)]
        for each in found:
            self._figures.asked_again[each.symbol] += 1
            self._figures.silent[each.symbol] += each.proven
        return found

    # ---- order

    def _checked(self, now: float) -> list[OutOfStepFound]:
        lost, self._lost_rows = self._lost_rows, {}
        reasons = {request: reason for request, reason in lost.items() if request in self._books.requests()}
        for state in self._books.states(self._integrity.is_due):
            reason = self._integrity.check(state, now)
            if reason:
                reasons.setdefault(state.request, reason)
        found = [self._found(request, reason, now) for request, reason in reasons.items()]
        again = {request for request, _ in self._out_of_step.values()} & self._books.requests()
        again -= {each.request for each in found}
        found += [self._found(request, "", now) for request in sorted(again)]
        return [each for each in found if each.new or each.ask]

    def _found(self, request: int, reason: str, now: float) -> OutOfStepFound:
        symbol = self._books.symbol_of(request)
        marked, known = self._out_of_step.get(symbol, (0, ""))
        new = marked != request
        if new:
            self._out_of_step[symbol] = (request, reason)
            self._figures.out_of_step[symbol] += 1
        ask = self._backoff.allows(symbol, now)
        self._figures.asked_again[symbol] += ask
        secs = self._integrity.fault_secs(request, now)
        return OutOfStepFound(request, symbol, reason if new else known, new, ask, secs)

    def _uncrossed(self) -> list[str]:
        """The symbols whose crossed book is crossed no longer: it counts as right again."""
        crossed = {symbol: request for symbol, (request, reason) in self._out_of_step.items() if reason == CROSSED}
        return [symbol for symbol, request in crossed.items() if self._integrity.is_clean(request)]
