"""One symbol's way through the probe: what was asked, what came, how it ended. Pure."""

from __future__ import annotations

from collections import Counter

from ibkr_depth_pipeline.gateway.venues import VenueFallback
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.probe.limits import ProbeLimits
from ibkr_depth_pipeline.probe.observation import Observation
from ibkr_depth_pipeline.probe.report import Outcome, SymbolReport
from ibkr_depth_pipeline.rotation.slots import Slot

QUEUED = "waits for a slot"
ADVICE_SECS, ADVICE_AGAIN_SECS = 3.0, 1.0
"""How long rows are waited for after an error that may be advice about a line that goes on; and the next times."""
RETRY_SECS = 2.0
"""Between two requests for a symbol that is refused while the feed is not known to be well."""
MAX_RESTARTS = 3


class SymbolProbe:
    """A resolved symbol under test. `slot` is its latest subscription, `observation` what that one brought.

    venues: where it is asked for; a venue that refuses is followed by the next one. not_before: when to ask at all.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.venues = VenueFallback(instrument)
        self.not_before = float("-inf")
        self._first_asked_at: float | None = None
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
        """The contract at the venue that is asked now."""
        return self.venues.requested

    @property
    def symbol(self) -> str:
        """The symbol."""
        return self.instrument.symbol

    @property
    def is_over(self) -> bool:
        """Whether there is an outcome."""
        return self.outcome is not Outcome.PENDING

    def saw(self, code: int) -> None:
        """Remember a code of TWS."""
        self._codes[code] += 1

    def requested(self, slot: Slot, observation: Observation) -> None:
        """It was subscribed to."""
        self.slot, self.observation = slot, observation
        if self._first_asked_at is None:
            self._first_asked_at = slot.requested_at
        self.reason = f"subscribed on {self.instrument.exchange}, waits for the first row"

    def answered(self) -> None:
        """The first row is there."""
        self._l2 = True
        self._advice, self._advice_until = "", float("inf")
        self.reason = "rows arrive"

    def advised(self, reason: str, now: float) -> None:
        """An error before the first row may be advice: rows are waited for, for a moment."""
        if not self._advice:
            self._advice, self._advice_until = reason, now + self._advice_secs
            self._advice_secs = ADVICE_AGAIN_SECS

    def confirmed_advice(self, now: float) -> str:
        """The error that was no advice, as no row came in time; empty where there is none."""
        return self._advice if now >= self._advice_until else ""

    def refused(self, reason: str, now: float, limits: ProbeLimits, *, is_well: bool, elsewhere: bool) -> bool:
        """Its venue refused. Returns whether it is to be asked for again: at the next venue, or here in a moment.

        is_well: the feed is known to be well. Otherwise a refusal is believed once the time for a book is over.
        """
        assert self._first_asked_at is not None
        venue = self.instrument.exchange
        if self.venues.refused(reason, now, is_well=is_well, elsewhere=elsewhere):
            self.back_in_line(f"{venue} refuses ({reason}); {self.instrument.exchange} is next")
            return True
        if is_well or not elsewhere or now >= self._first_asked_at + limits.book_cap:
            code, _, text = reason.partition(": ")
            said = (
                f" at every venue: {self.venues.refusal_summary}"
                if len(self.venues.venues) > 1
                else f" ({code}): {text}"
            )
            self.end(Outcome.REFUSED, f"the gateway refuses depth{said}", now)
            return False
        if set(self.venues.venues) <= self.venues.refusing_venues:
            self.venues.start_over()
        self.back_in_line(f"refused ({reason}) before a data farm is well; asks again")
        self.not_before = now + RETRY_SECS
        return True

    def back_in_line(self, reason: str = QUEUED) -> None:
        """It holds no subscription and is to be asked for again."""
        self.slot = self.observation = None
        self._advice, self._advice_until = "", float("inf")
        self.reason = reason

    def died(self, code: int, now: float) -> None:
        """The gateway ended its subscription. Back in line, unless that has happened too often."""
        self.saw(code)
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            self.end(Outcome.HALTED, f"the gateway ended the subscription {self._restarts} times ({code})", now)
        else:
            self.back_in_line(f"subscribes again ({code})")

    def due(self, limits: ProbeLimits) -> float:
        """When it can be judged by what its subscription has brought."""
        assert self.observation is not None
        settled = self.observation.settles_at(limits.quiet)
        cap = min(self.observation.requested_at + limits.book_cap, self._advice_until)
        return cap if settled is None else min(settled, cap)

    def judge(self, limits: ProbeLimits, trouble: str, now: float) -> None:
        """Its book is there, or the wait is over. trouble is what is known to be wrong with the feed, or empty."""
        seen = self.observation
        assert seen is not None
        bids, asks = len(seen.book.bids), len(seen.book.asks)
        if seen.has_both_sides:
            shown = f"{min(bids, limits.full_rows)} bids, {min(asks, limits.full_rows)} asks"
            lacks = f"; refused: {self.venues.refusal_summary}" if self.venues.refusal_summary else ""
            self.end(Outcome.DEPTH, f"{shown} on {self.instrument.exchange}{lacks}", now)
        elif seen.first_row_at is not None:
            self.end(Outcome.ONE_SIDED, f"{bids} bids, {asks} asks and no more in {limits.book_cap:g} s", now)
        else:
            because = f"; the gateway sends {trouble}" if trouble else ""
            self.end(Outcome.SILENT, f"no row in {limits.book_cap:g} s{because}", now)

    def end(self, outcome: Outcome, reason: str, now: float) -> None:
        """It is over."""
        self.outcome, self.reason = outcome, reason
        if outcome is Outcome.REFUSED:
            self._l2 = False
        if outcome is Outcome.DEPTH and self.observation is not None:
            self._book_secs = now - self.observation.requested_at

    def report(self, levels: int) -> SymbolReport:
        """As it stands now, with at most `levels` levels a side."""
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
