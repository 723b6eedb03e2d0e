"""Seeded, believable order flow for one contract on one venue. Pure: the same seed gives the same books, always.

Prices live on the contract's tick grid and keep returning to where the listing starts; a side always has LEVELS
levels of distinct prices in order, and the best bid is always below the best ask.
"""

import random
from collections.abc import Iterator, Sequence

from ibkr_depth_pipeline.simulation.catalogue import DepthVenue, Listing
from ibkr_depth_pipeline.simulation.rows import REFERENCE_DEPTH, Book, BookLevel, Change, RowStyle, SourceStep

LEVELS = 20
"""Levels a side that the market itself has; a subscription shows the best of them."""
_STEPS_A_SECOND = 40
_WIDEST_SPREAD = 5
"""Ticks. A wider spread is filled before anything else happens."""


class _Side:
    """One side as ascending keys: ticks for asks, negated ticks for bids, so that both are best first."""

    def __init__(self, market: "SyntheticMarket", sign: int, best: int) -> None:
        self.keys: list[int] = []
        self.levels: list[BookLevel] = []
        self._market = market
        self._sign = sign
        key = best
        for _ in range(LEVELS):
            self.put(len(self.keys), key)
            key += market.gap()

    def put(self, index: int, key: int) -> None:
        """A new level, in front of the one now at `index`."""
        self.keys.insert(index, key)
        self.levels.insert(index, self._market.level(key * self._sign))

    def resize(self, index: int) -> None:
        old = self.levels[index]
        self.levels[index] = BookLevel(old.price, self._market.size(not_like=old.size), old.market_maker)

    def remove(self, index: int) -> None:
        """Takes a level out; the side grows a new one at its far end."""
        del self.keys[index], self.levels[index]
        self.put(len(self.keys), self.keys[-1] + self._market.gap())

    def push_in(self, index: int, key: int) -> None:
        """A new level; the side's last one drops out."""
        self.put(index, key)
        self.keys.pop()
        self.levels.pop()


class SyntheticMarket:
    """The books of one contract on one venue, one event after the other, without end."""

    def __init__(self, seed: int, listing: Listing, venue: DepthVenue) -> None:
        self._dice = random.Random(f"{seed}:{listing.name}:{venue.name}")
        self._tick = listing.min_tick
        self._typical_size = listing.typical_size
        self._names = venue.market_makers or ("",)
        self._home = max(LEVELS * 4, round(listing.price / listing.min_tick))
        self._bids = _Side(self, -1, -self._home)
        self._asks = _Side(self, 1, self._home + self._dice.randint(1, 2))
        self.book = Book(tuple(self._bids.levels), tuple(self._asks.levels))

    def books(self) -> Iterator[Book]:
        """Every following book, one event apart."""
        while True:
            yield self.step()

    def step(self) -> Book:
        """The book after the next event: one side changes, by one level."""
        side = self._bids if self._event() else self._asks
        if side is self._bids:
            self.book = Book(tuple(side.levels), self.book.asks)
        else:
            self.book = Book(self.book.bids, tuple(side.levels))
        return self.book

    def gap(self) -> int:
        """Ticks from one level to the next."""
        return self._dice.choice((1, 1, 1, 1, 2, 2, 3))

    def size(self, not_like: float = 0.0) -> float:
        """A size of the contract's own scale, in round lots more often than not, other than the given one."""
        while True:
            size = max(1, round(self._typical_size * self._dice.lognormvariate(0, 0.9)))
            lot = max(1, self._typical_size // 2)
            if self._dice.random() < 0.7:
                size = max(lot, size - size % lot)
            if size != not_like:
                return float(size)

    def level(self, ticks: int) -> BookLevel:
        return BookLevel(round(ticks * self._tick, 6), self.size(), self._dice.choice(self._names))

    def _event(self) -> bool:
        """Changes one side; whether it was the bids."""
        spread = self._asks.keys[0] + self._bids.keys[0]
        high = self._asks.keys[0] - self._bids.keys[0] > 2 * self._home
        leaning = self._dice.random() < 0.55
        if spread > _WIDEST_SPREAD or (spread > 1 and self._dice.random() < 0.06):
            # What improves pulls the price its way: asks when it is high, bids when it is low.
            bids = high != leaning
            self._improve(self._bids if bids else self._asks)
            return bids
        if self._dice.random() < 0.04:
            bids = high == leaning
            (self._bids if bids else self._asks).remove(0)
            return bids
        bids = self._dice.random() < 0.5
        self._stir(self._bids if bids else self._asks)
        return bids

    def _improve(self, side: _Side) -> None:
        side.push_in(0, side.keys[0] - 1)

    def _stir(self, side: _Side) -> None:
        """A size changes, or behind the best price a level comes or goes."""
        index = min(int(self._dice.expovariate(0.35)), LEVELS - 2)
        kind = self._dice.random()
        if kind < 0.14 and side.keys[index + 1] - side.keys[index] > 1:
            side.push_in(index + 1, side.keys[index] + 1)
        elif kind < 0.20 and index > 0:
            side.remove(index)
        else:
            side.resize(index)


class SyntheticFlow:
    """A synthetic market at a rate of rows a second; a rate of 0 has no step. The rate may be changed at any time."""

    lossless = False
    over = False

    def __init__(self, market: SyntheticMarket, style: RowStyle, rate: float, seed: int) -> None:
        self.rate = rate
        self._market = market
        self._style = style
        self._dice = random.Random(seed)
        self._owed = 0.0

    @property
    def book(self) -> Book:
        return self._market.book

    @property
    def quiet(self) -> bool:
        return self.rate <= 0

    def next_step(self) -> SourceStep | None:
        """A handful of events, worth the time since the step before; steps come unevenly, as they do in the wild."""
        if self.quiet:
            return None
        wait = self._dice.uniform(0.4, 1.6) * max(1 / _STEPS_A_SECOND, 1 / self.rate)
        self._owed += wait * self.rate
        changes: list[Change] = []
        while self._owed > 0 or not changes:
            changes += self.next_changes()
            self._owed -= len(changes[-1].rows(REFERENCE_DEPTH))
        return SourceStep(wait, changes)

    def next_changes(self) -> Sequence[Change]:
        previous = self._market.book
        return (Change(previous, self._market.step(), self._style),)
