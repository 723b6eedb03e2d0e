"""The probe of one symbol: its limits, what its rows show, what was requested and how it ended. Pure.

`now` is in seconds of the caller's clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.gateway.venues import VenueFallback
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Instrument
from ibkr_depth_pipeline.probe.report import Outcome, SizeHints, SymbolReport
from ibkr_depth_pipeline.rotation.slots import Slot

QUEUED = "waits for a slot"
ADVICE_SECS, REPEATED_ADVICE_SECS = 3.0, 1.0
"""How long rows are awaited after an error that may be advice: the first time, and later times."""
RETRY_SECS = 2.0
"""Between two requests for a symbol that is refused while the feed is not known to work."""
MAX_RESTARTS = 3


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """Limits of a probe; times in seconds.

    slots: subscriptions at once. rows: requested a side. full_rows: make a side complete. book_cap: longest wait for a
    symbol's book. quiet: a book that has not grown for so long counts as complete. retry_pause: between two attempts
    while other clients hold every slot. patience: how long these go on. release_pause: from a cancel to the next
    request, while every slot is used.
    """

    slots: int
    rows: int
    full_rows: int
    book_cap: float
    quiet: float
    retry_pause: float
    patience: float
    release_pause: float = 0.0


class Observation:
    """The rows of one depth request: its book, and when, from which venues and in which sizes they came.

    rows: requested a side. full: rows that make a side complete. requested_at: when it was subscribed to.
    """

    def __init__(self, venue: str, rows: int, full: int, requested_at: float) -> None:
        self.requested_at = requested_at
        self.first_row_at: float | None = None
        self._grown_at = requested_at
        self._full = full
        self._venue = venue
        self._venues: Counter[str] = Counter()
        self._book = OrderBook(rows, venue)
        self._bids = self._asks = 0
        self._sizes: Counter[bool] = Counter()
        self._odd_lots = 0
        self._smallest, self._largest = float("inf"), 0.0

    def apply(self, row: DepthRow, now: float) -> None:
        """Applies a row. One that the book refuses counts as an answer of the gateway only."""
        if self.first_row_at is None:
            self.first_row_at = now
        if self._book.apply(row) is not None:
            return
        if row.operation is not DepthOperation.DELETE:
            self._note(row)
        # "Quiet" is "no longer growing": a thin but busy book never stops receiving rows
        bids, asks = len(self._book.bids), len(self._book.asks)
        if bids > self._bids or asks > self._asks:
            self._bids, self._asks = max(bids, self._bids), max(asks, self._asks)
            self._grown_at = now

    def _note(self, row: DepthRow) -> None:
        self._venues[row.venue or self._venue] += 1
        if row.size > 0:
            self._sizes[row.size.is_integer()] += 1
            self._odd_lots += row.size % 100 != 0
            self._smallest, self._largest = min(row.size, self._smallest), max(row.size, self._largest)

    def reset(self, now: float) -> None:
        """Empties the book: the gateway has discarded its own (317), and sends it again."""
        self._book.reset()
        self._bids = self._asks = 0
        self._grown_at = now

    @property
    def book(self) -> OrderBook:
        """The current book. Read only."""
        return self._book

    @property
    def has_both_sides(self) -> bool:
        """Whether both sides have rows."""
        return bool(self._book.bids and self._book.asks)

    @property
    def is_full(self) -> bool:
        """Whether both sides are complete."""
        return min(len(self._book.bids), len(self._book.asks)) >= self._full

    def settles_at(self, quiet: float) -> float | None:
        """When the book counts as complete if it does not grow; None while a side is empty."""
        if not self.has_both_sides:
            return None
        return self._grown_at if self.is_full else self._grown_at + quiet

    @property
    def venues(self) -> tuple[str, ...]:
        """The market makers or venues of the rows, the most frequent first."""
        return tuple(name for name, _ in self._venues.most_common())

    @property
    def sizes(self) -> SizeHints | None:
        """None before the first row with a size."""
        rows = self._sizes.total()
        if not rows:
            return None
        return SizeHints(rows, self._sizes[False] > 0, self._odd_lots == 0, self._smallest, self._largest)


class SymbolProbe:
    """The probe of a resolved symbol. `slot` is its newest subscription, `observation` the rows of that one.

    venues: which venue is requested, the next one after a refusal. not_before: when it may be requested.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.venues = VenueFallback(instrument)
        self.not_before = float("-inf")
        self._first_requested_at: float | None = None
        self._advice: str = ""
        self._advice_until = float("inf")
        self._advice_secs = ADVICE_SECS
        self.outcome = Outcome.PENDING
        self.reason = QUEUED
        self.slot: Slot | None = None
        self.observation: Observation | None = None
        self._restarts = 0
        self._codes: Counter[int] = Counter()
        self._l2: bool | None = None
        self._book_secs: float | None = None

    @property
    def instrument(self) -> Instrument:
        """The contract, at the venue to request now."""
        return self.venues.requested

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @property
    def is_over(self) -> bool:
        """Whether it has its outcome."""
        return self.outcome is not Outcome.PENDING

    def record_code(self, code: int) -> None:
        """Records an error code of TWS for the report."""
        self._codes[code] += 1

    def requested(self, slot: Slot, observation: Observation) -> None:
        """The symbol was subscribed to."""
        self.slot, self.observation = slot, observation
        if self._first_requested_at is None:
            self._first_requested_at = slot.requested_at
        self.reason = f"subscribed on {self.instrument.exchange}, waits for the first row"

    def answered(self) -> None:
        """The first row of the subscription came."""
        self._l2 = True
        self._advice, self._advice_until = "", float("inf")
        self.reason = "rows arrive"

    def advised(self, reason: str, now: float) -> None:
        """An error came before the first row that may be advice: rows are awaited for a short time."""
        if not self._advice:
            self._advice, self._advice_until = reason, now + self._advice_secs
            self._advice_secs = REPEATED_ADVICE_SECS

    def confirmed_advice(self, now: float) -> str:
        """The reason of an error after which no row came in time, so that it was a refusal; else empty."""
        return self._advice if now >= self._advice_until else ""

    def refused(self, reason: str, now: float, limits: ProbeLimits, *, is_well: bool, elsewhere: bool) -> bool:
        """The venue requested refused. Returns whether to request again: at the next venue, or here a little later.

        is_well: the feed is known to work. Otherwise a refusal is final only when the time for a book is over.
        """
        assert self._first_requested_at is not None
        venue = self.instrument.exchange
        if self.venues.refused(reason, now, is_well=is_well, elsewhere=elsewhere):
            self.requeue(f"{venue} refuses ({reason}); {self.instrument.exchange} is next")
            return True
        if is_well or not elsewhere or now >= self._first_requested_at + limits.book_cap:
            code, _, text = reason.partition(": ")
            detail = (
                f" at every venue: {self.venues.refusal_summary}"
                if len(self.venues.venues) > 1
                else f" ({code}): {text}"
            )
            self.end(Outcome.REFUSED, f"the gateway refuses depth{detail}", now)
            return False
        if set(self.venues.venues) <= self.venues.refusing_venues:
            self.venues.start_over()
        self.requeue(f"refused ({reason}) before a data farm is well; asks again")
        self.not_before = now + RETRY_SECS
        return True

    def requeue(self, reason: str = QUEUED) -> None:
        """The symbol holds no subscription any more and is to be requested again."""
        self.slot = self.observation = None
        self._advice, self._advice_until = "", float("inf")
        self.reason = reason

    def halted(self, code: int, now: float) -> None:
        """The gateway ended the subscription: the symbol is queued again, or ends after MAX_RESTARTS of these."""
        self.record_code(code)
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            self.end(Outcome.HALTED, f"the gateway ended the subscription {self._restarts} times ({code})", now)
        else:
            self.requeue(f"subscribes again ({code})")

    def due(self, limits: ProbeLimits) -> float:
        """When `evaluate` is to be called, by the rows so far."""
        assert self.observation is not None
        settled = self.observation.settles_at(limits.quiet)
        cap = min(self.observation.requested_at + limits.book_cap, self._advice_until)
        return cap if settled is None else min(settled, cap)

    def evaluate(self, limits: ProbeLimits, trouble: str, now: float) -> None:
        """Sets the outcome: the book is complete, or the wait is over. trouble: what is wrong with the feed, or ""."""
        seen = self.observation
        assert seen is not None
        bids, asks = len(seen.book.bids), len(seen.book.asks)
        if seen.has_both_sides:
            shown = f"{min(bids, limits.full_rows)} bids, {min(asks, limits.full_rows)} asks"
            refused = f"; refused: {self.venues.refusal_summary}" if self.venues.refusal_summary else ""
            self.end(Outcome.DEPTH, f"{shown} on {self.instrument.exchange}{refused}", now)
        elif seen.first_row_at is not None:
            self.end(Outcome.ONE_SIDED, f"{bids} bids, {asks} asks and no more in {limits.book_cap:g} s", now)
        else:
            because = f"; the gateway sends {trouble}" if trouble else ""
            self.end(Outcome.SILENT, f"no row in {limits.book_cap:g} s{because}", now)

    def end(self, outcome: Outcome, reason: str, now: float) -> None:
        """Sets the outcome."""
        self.outcome, self.reason = outcome, reason
        if outcome is Outcome.REFUSED:
            self._l2 = False
        if outcome is Outcome.DEPTH and self.observation is not None:
            self._book_secs = now - self.observation.requested_at

    def report(self, levels: int) -> SymbolReport:
        """The current state, with at most `levels` levels a side."""
        instrument, seen = self.instrument, self.observation
        first = seen.first_row_at if seen else None
        return SymbolReport(
            symbol=instrument.symbol,
            outcome=self.outcome,
            reason=self.reason,
            con_id=instrument.con_id,
            venue_requested=instrument.exchange,
            primary_exchange=instrument.primary_exchange,
            valid_exchanges=instrument.valid_exchanges,
            venues_granted=seen.venues if seen else (),
            l2=self._l2,
            bids=seen.book.bids[:levels] if seen else (),
            asks=seen.book.asks[:levels] if seen else (),
            first_row_secs=first - seen.requested_at if seen and first is not None else None,
            book_secs=self._book_secs,
            sizes=seen.sizes if seen else None,
            codes=tuple(self._codes),
        )
