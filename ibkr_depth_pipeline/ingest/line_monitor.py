"""Watches the live lines from outside the hot path: which are silent while others are not, whose book is out of step.

Pure. What is found is asked for again, with a pace; until the next subscription brings rows the symbol is in trouble,
and its heartbeat is not renewed. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass

from ibkr_depth_pipeline.ingest.book_integrity import CROSSED, LOOK_SECS, BookIntegrity, ResubscribeBackoff
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.silence import SilenceDetector
from ibkr_depth_pipeline.model import DepthOperation, RowFault

SILENT = "silent, others are not"
OUT_OF_STEP = "book out of step"


@dataclass(frozen=True, slots=True)
class SilenceFound:
    """A line to ask for again. proven: it is silent while others are not; else it may just be quiet."""

    request: int
    symbol: str
    secs: float
    proven: bool


@dataclass(frozen=True, slots=True)
class OutOfStepFound:
    """A book that is not the gateway's any more. new: found just now; ask: it is to be asked for again."""

    request: int
    symbol: str
    reason: str
    new: bool
    ask: bool


Found = SilenceFound | OutOfStepFound


class LineMonitor:
    """Call `inspect` every `period` seconds; figures are kept up to date.

    `out_of_step` holds the symbols whose book is out of step: whoever renews heartbeats may keep it, and look there.
    """

    def __init__(
        self, books: LiveBooks, liveness: SilenceDetector, integrity: BookIntegrity, figures: PipelineFigures
    ) -> None:
        self.period = min(LOOK_SECS, liveness.period)
        self._books = books
        self._liveness = liveness
        self._integrity = integrity
        self._figures = figures
        self._pace = ResubscribeBackoff()
        self._out_of_step: dict[str, tuple[int, str]] = {}  # symbol -> request, reason
        self.out_of_step: Container[str] = self._out_of_step
        self._lost_rows: dict[int, str] = {}  # request -> why it is out of step, since the newest `inspect`
        self._sample_at = 0.0

    # ---- what can be asked

    def troubles(self) -> dict[str, str]:
        """symbol -> what is wrong with its line, in words."""
        silent = dict.fromkeys(self._liveness.silent, SILENT)
        return silent | {symbol: f"{OUT_OF_STEP}: {reason}" for symbol, (_, reason) in self._out_of_step.items()}

    def usual_silence(self, symbol: str) -> float:
        """The longest gap between the symbol's rows of late, in seconds."""
        return self._liveness.usual_silence(symbol)

    # ---- what happens

    def restart(self) -> None:
        """The connection is new, or in trouble: what is silent now counts from now on."""
        self._liveness.restart()

    def row_came(self, request: int) -> None:
        """A row has proven a request's line. Where it is a new one, the trouble with the one before is over."""
        symbol = self._books.symbol_of(request)
        if symbol in self._out_of_step and self._out_of_step[symbol][0] != request:
            del self._out_of_step[symbol]

    def book_emptied(self, request: int) -> None:
        """The gateway begins the book anew (317), and so it is in step."""
        self._integrity.forget(request)
        self._lost_rows.pop(request, None)
        self._out_of_step.pop(self._books.symbol_of(request), None)

    def row_dropped(self, request: int, operation: DepthOperation | None, fault: RowFault, now: float) -> None:
        """A row of the request reached no book; None if its operation can't be read.

        If that puts the book out of step, the next `inspect` finds it: the rest of what was read is still the book's.
        """
        if request in self._books.requests():
            reason = self._integrity.row_dropped(request, operation, fault, now)
            if reason:
                self._lost_rows.setdefault(request, reason)

    def inspect(self, doubted: Collection[int], now: float) -> list[Found]:
        """What is found now. doubted: requests that news of trouble covers, whose silence is not judged here."""
        found: list[Found] = []
        self._integrity.keep(self._books.requests())
        if now >= self._sample_at:
            self._sample_at = now + self._liveness.period * 0.9
            found += self._silent(doubted, now)
        found += self._looked_at(now)
        for symbol in self._uncrossed():
            del self._out_of_step[symbol]
        return found

    # ---- silence

    def _silent(self, doubted: Collection[int], now: float) -> list[SilenceFound]:
        found = [SilenceFound(*each) for each in self._liveness.sample(self._books.line_samples(doubted), now)]
        for each in found:
            self._figures.asked_again[each.symbol] += 1
            self._figures.silent[each.symbol] += each.proven
        return found

    # ---- order

    def _looked_at(self, now: float) -> list[OutOfStepFound]:
        lost, self._lost_rows = self._lost_rows, {}
        reasons = {request: reason for request, reason in lost.items() if request in self._books.requests()}
        for look in self._books.looks(self._integrity.is_due):
            reason = self._integrity.look(look, now)
            if reason:
                reasons.setdefault(look.request, reason)
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
        ask = self._pace.ask(symbol, now)
        self._figures.asked_again[symbol] += ask
        return OutOfStepFound(request, symbol, reason if new else known, new, ask)

    def _uncrossed(self) -> list[str]:
        """A crossed book whose prices part is right again, as far as anybody can see."""
        crossed = {symbol: request for symbol, (request, reason) in self._out_of_step.items() if reason == CROSSED}
        return [symbol for symbol, request in crossed.items() if self._integrity.is_clean(request)]
