"""Which venue of a contract is requested while some of its venues refuse. Pure; `now` is seconds of any one clock.

Most accounts have no subscription for the best venue of a contract, and one for another venue. So a refusal leads to
the next venue with market depth, in the order of venues.py. A venue that has brought rows is not left on the first
word, and neither is one that refuses while the feed is not known to be well: gateways refuse sound requests then.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.model import Instrument

REMEMBERED_SECS = 12 * 3600.0
"""How long the refusal of a venue stands once another venue of the contract has brought rows: a trading day."""

PROOFS = 2
"""So many refusals in a row move a symbol from a venue that has brought rows, or during trouble."""

MOST_VENUES = 8
"""Most venues that are tried, the best ones."""

MOST_FRUITLESS = 40
WALK_SECS = 10.0
"""After so many refusals in a row, of whatever symbol, without rows in between, one symbol in so many seconds is asked
for at its other venues; the rest is asked for at its best one alone."""


class FallbackBudget:
    """Bounds the requests at other venues while nothing at all is granted: it is then not the venue that refuses."""

    def __init__(self) -> None:
        self._fruitless = 0
        self._walker = ""
        self._next_at = float("-inf")

    def granted(self) -> None:
        """Rows came, of whatever symbol; or there is reason to believe that they will."""
        self._fruitless = 0

    def refused(self, symbol: str, now: float) -> bool:
        """Another refusal, of `symbol`. Returns whether its next venue may be tried."""
        self._fruitless += 1
        if self._fruitless <= MOST_FRUITLESS or symbol == self._walker:
            return True
        if now < self._next_at:
            return False
        self._walker, self._next_at = symbol, now + WALK_SECS
        return True


@dataclass
class VenueFallback:
    """The venues of one symbol. `requested` is what to ask for; it changes with `refused` and `update_instrument`."""

    instrument: Instrument
    _requested: str = ""
    _refused: dict[str, tuple[str, float]] = field(default_factory=dict)  # venue -> reason, when; of this round or kept
    _granted: set[str] = field(default_factory=set)
    _refusals: int = 0  # in a row, of the venue requested

    def __post_init__(self) -> None:
        self._requested = self.instrument.exchange

    @property
    def venues(self) -> tuple[str, ...]:
        """Every venue that may be requested, best first."""
        return (self.instrument.exchange, *self.instrument.alternatives)[:MOST_VENUES]

    @property
    def requested(self) -> Instrument:
        """The contract at the venue to ask for now."""
        return replace(self.instrument, exchange=self._requested)

    @property
    def refusing_venues(self) -> set[str]:
        """The venues whose refusal stands."""
        return set(self._refused)

    @property
    def refusal_summary(self) -> str:
        """What refused, for an operator: each venue with its reason; empty where none stands."""
        return "; ".join(f"{venue} {reason}" for venue, (reason, _) in self._refused.items())

    def update_instrument(self, instrument: Instrument, now: float) -> None:
        """The contract was resolved anew. What its venues refused is kept."""
        self.instrument = instrument
        self._refused = {venue: why for venue, why in self._refused.items() if venue in self.venues}
        self._forget_yesterday(now)
        if self._requested not in self.venues:
            self._requested, self._refusals = self._best(), 0

    def refused(self, reason: str, now: float, *, is_well: bool, elsewhere: bool = True) -> bool:
        """The venue requested was refused. Returns whether another one is to be requested now.

        is_well: the feed is known to be well. elsewhere: the refusal is one that another venue may not share. When
        every venue has refused, the best one is requested next.
        """
        self._refused[self._requested] = (reason, now)
        self._refusals += 1
        believed = is_well and self._requested not in self._granted
        if not elsewhere or not (believed or self._refusals >= PROOFS):
            return False
        self._forget_yesterday(now)
        following = next((venue for venue in self.venues if venue not in self._refused), None)
        self._requested = following or self.venues[0]
        self._refusals = 0
        return following is not None

    def granted(self, now: float) -> bool:
        """Rows came from the venue requested. Returns whether a refusal of it is over."""
        self._granted.add(self._requested)
        self._refusals = 0
        return self._refused.pop(self._requested, None) is not None

    def start_over(self) -> None:
        """Every venue has refused: the next round asks each again."""
        self._refused.clear()
        self._requested, self._refusals = self.venues[0], 0

    def _forget_yesterday(self, now: float) -> None:
        kept = {venue: why for venue, why in self._refused.items() if now - why[1] < REMEMBERED_SECS}
        self._refused = kept

    def _best(self) -> str:
        return next((venue for venue in self.venues if venue not in self._refused), self.venues[0])
