"""One symbol's way through the probe: what was asked, what came, how it ended. Pure."""

from __future__ import annotations

from collections import Counter

from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.probe.limits import ProbeLimits
from ibkr_depth_pipeline.probe.observation import Observation
from ibkr_depth_pipeline.probe.report import Outcome, SymbolReport
from ibkr_depth_pipeline.rotation.slots import Slot

QUEUED = "waits for a slot"
MAX_RESTARTS = 3


class Trial:
    """A resolved symbol under test. `slot` is its latest subscription, `observation` what that one brought."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.outcome = Outcome.PENDING
        self.reason = QUEUED
        self.slot: Slot | None = None
        self.observation: Observation | None = None
        self._restarts = 0
        self._codes: Counter[int] = Counter()
        self._l2: bool | None = None
        self._book_secs: float | None = None

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
        self.reason = f"subscribed on {self.instrument.exchange}, waits for the first row"

    def answered(self) -> None:
        """The first row is there."""
        self._l2 = True
        self.reason = "rows arrive"

    def back_in_line(self, reason: str = QUEUED) -> None:
        """It holds no subscription and is to be asked for again."""
        self.slot = self.observation = None
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
        cap = self.observation.requested_at + limits.book_cap
        return cap if settled is None else min(settled, cap)

    def judge(self, limits: ProbeLimits, trouble: str, now: float) -> None:
        """Its book is there, or the wait is over. trouble is what is known to be wrong with the feed, or empty."""
        seen = self.observation
        assert seen is not None
        bids, asks = len(seen.book.bids), len(seen.book.asks)
        if seen.has_both_sides:
            shown = f"{min(bids, limits.full_rows)} bids, {min(asks, limits.full_rows)} asks"
            self.end(Outcome.DEPTH, f"{shown} on {self.instrument.exchange}", now)
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
