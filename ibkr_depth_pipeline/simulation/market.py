"""Seeded, believable order flow for one contract on one venue. Pure: the same seed gives the same books, always.

Prices live on the contract's tick grid and keep returning to where the listing starts; a side always has LEVELS
levels in order, and the best bid is always below the best ask. On a venue that names several market makers some of them
share a price, the newcomer behind; elsewhere prices are distinct.
"""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence

from ibkr_depth_pipeline.simulation.catalogue import DepthVenue, Listing
from ibkr_depth_pipeline.simulation.rows import REFERENCE_DEPTH, Book, BookLevel, Change, RowStyle, SourceStep

LEVELS = 20
"""Levels a side that the market itself has; a subscription shows the best of them."""
_STEPS_A_SECOND = 40
_MOST_UNSEEN = 20_000
"""Events that pass at most while nobody watches, some 60 ms of work: after a longer absence the market is as then."""
_GAPS, _SHARED_GAPS = (1, 1, 1, 1, 2, 2, 3), (0, 0, 0, 1, 1, 1, 1, 2, 3)
"""Ticks from one level to the next."""
_LOT = 100
"""Shares of a lot, where sizes are in lots."""
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
            key = self._next_key()

    def put(self, index: int, key: int) -> None:
        """A new level, in front of the one now at `index`."""
        level = self._market.level(key * self._sign, self._names_at(key))
        self.keys.insert(index, key)
        self.levels.insert(index, level)

    def end_of(self, key: int) -> int:
        """The index behind the last level of that price."""
        return bisect_right(self.keys, key)

    def has_room(self, key: int) -> bool:
        """Whether another market maker can join that price."""
        return len(self._names_at(key)) < self._market.makers

    def _names_at(self, key: int) -> set[str]:
        first, end = bisect_left(self.keys, key), bisect_right(self.keys, key)
        return {level.market_maker for level in self.levels[first:end]}

    def _next_key(self) -> int:
        key = self.keys[-1]
        return key + (self._market.gap() or (0 if self.has_room(key) else 1))

    def resize(self, index: int) -> None:
        old = self.levels[index]
        self.levels[index] = BookLevel(old.price, self._market.size(not_like=old.size), old.market_maker)

    def remove(self, index: int) -> None:
        """Takes a level out; the side grows a new one at its far end."""
        del self.keys[index], self.levels[index]
        self.put(len(self.keys), self._next_key())

    def push_in(self, index: int, key: int) -> None:
        """A new level; the side's last one drops out."""
        self.put(index, key)
        self.keys.pop()
        self.levels.pop()


class SyntheticMarket:
    """The books of one contract on one venue, one event after the other, without end."""

    def __init__(self, seed: int, listing: Listing, venue: DepthVenue, *, in_lots: bool = False) -> None:
        self._dice = random.Random(f"{seed}:{listing.name}:{venue.name}")
        self._unit = _LOT if in_lots and listing.sec_type == "STK" else 1
        self._tick = listing.min_tick
        self._typical_size = listing.typical_size
        self._names = venue.market_makers or ("",)
        self.makers = len(set(self._names))
        """How many names there are, and so how many levels of one price at most."""
        self._gaps = _SHARED_GAPS if self.makers > 1 else _GAPS
        self._home = max(LEVELS * 4, round(listing.price / listing.min_tick))
        self._bids = _Side(self, -1, -self._home)
        self._asks = _Side(self, 1, self._home + self._dice.randint(1, 2))
        self._book = Book(tuple(self._bids.levels), tuple(self._asks.levels))
        self._stale = [False, False]
        """Which sides have changed since `_book` was made."""

    def books(self) -> Iterator[Book]:
        """Every following book, one event apart."""
        while True:
            yield self.step()

    @property
    def book(self) -> Book:
        """The book after the events so far. Its sides are new tuples only where they have changed."""
        if self._stale[0]:
            self._book = self._book._replace(bids=tuple(self._bids.levels))
        if self._stale[1]:
            self._book = self._book._replace(asks=tuple(self._asks.levels))
        self._stale = [False, False]
        return self._book

    def step(self) -> Book:
        """The book after the next event: one side changes, by one level."""
        self.pass_event(RowStyle.SHIFT)
        return self.book

    def pass_event(self, style: RowStyle) -> int:
        """The next event, without its book. Returns how many rows a subscription of REFERENCE_DEPTH gets for it."""
        bids, index, shifts = self._event()
        self._stale[0 if bids else 1] = True
        if index >= REFERENCE_DEPTH or not shifts:
            return int(index < REFERENCE_DEPTH)
        return 2 if style is RowStyle.SHIFT else REFERENCE_DEPTH - index

    def gap(self) -> int:
        """Ticks from one level to the next."""
        return self._dice.choice(self._gaps)

    def size(self, not_like: float = 0.0) -> float:
        """A size of the contract's own scale, in round lots more often than not, other than the given one."""
        while True:
            size = max(1, round(self._typical_size * self._dice.lognormvariate(0, 0.9)))
            lot = max(1, self._typical_size // 2)
            if self._dice.random() < 0.7:
                size = max(lot, size - size % lot)
            size = max(1, size // self._unit)
            if size != not_like:
                return float(size)

    def level(self, ticks: int, taken: Collection[str] = ()) -> BookLevel:
        """A new level, by a market maker other than those."""
        price, size = round(ticks * self._tick, 6), self.size()
        names = [name for name in self._names if name not in taken] if taken else self._names
        return BookLevel(price, size, self._dice.choice(names))

    def _event(self) -> tuple[bool, int, bool]:
        """Changes one side. Returns whether it was the bids, at which level, and whether those below it shifted."""
        spread = self._asks.keys[0] + self._bids.keys[0]
        high = self._asks.keys[0] - self._bids.keys[0] > 2 * self._home
        leaning = self._dice.random() < 0.55
        if spread > _WIDEST_SPREAD or (spread > 1 and self._dice.random() < 0.06):
            # What improves pulls the price its way: asks when it is high, bids when it is low.
            bids = high != leaning
            side = self._bids if bids else self._asks
            side.push_in(0, side.keys[0] - 1)
            return bids, 0, True
        if self._dice.random() < 0.04:
            bids = high == leaning
            (self._bids if bids else self._asks).remove(0)
            return bids, 0, True
        bids = self._dice.random() < 0.5
        return bids, *self._stir(self._bids if bids else self._asks)

    def _stir(self, side: _Side) -> tuple[int, bool]:
        """A size changes, or behind the best price a level comes or goes. Returns as `_event`, without the side."""
        index = min(int(self._dice.expovariate(0.35)), LEVELS - 2)
        kind, key = self._dice.random(), side.keys[index]
        if kind < 0.14 and side.keys[index + 1] - key > 1:
            side.push_in(index + 1, key + 1)
            return index + 1, True
        if kind < 0.06 and (end := side.end_of(key)) < LEVELS and side.has_room(key):
            side.push_in(end, key)
            return end, True
        if kind < 0.20 and index > 0:
            side.remove(index)
            return index, True
        side.resize(index)
        return index, False


class SyntheticFlow:
    """A synthetic market at a rate of rows a second; a rate of 0 has no step. The rate may be changed at any time."""

    lossless = False
    over = False

    def __init__(
        self, market: SyntheticMarket, style: RowStyle, rate: float, seed: int, *, stands_still: bool = False
    ) -> None:
        self.rate = rate
        self.stands_still = stands_still
        """Whether no event happens while nobody watches."""
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
        return None if self.quiet else SourceStep(self._next_wait(), self._due_changes())

    def pass_time(self, pending: SourceStep, seconds: float) -> SourceStep:
        """Takes the steps that `next_step` would give, without their rows; returns the first that is not yet due."""
        passed, events = 0.0, 0
        while not self.stands_still and not self.quiet:
            passed += self._next_wait()
            if passed > seconds or events > _MOST_UNSEEN:
                return SourceStep(max(0.0, passed - seconds), self._due_changes())
            first = True
            while self._owed > 0 or first:
                self._owed -= self._market.pass_event(self._style)
                events, first = events + 1, False
        return pending

    def _next_wait(self) -> float:
        wait = self._dice.uniform(0.4, 1.6) * max(1 / _STEPS_A_SECOND, 1 / self.rate)
        self._owed += wait * self.rate
        return wait

    def _due_changes(self) -> list[Change]:
        changes: list[Change] = []
        while self._owed > 0 or not changes:
            changes += self.next_changes()
            self._owed -= len(changes[-1].rows(REFERENCE_DEPTH))
        return changes

    def next_changes(self) -> Sequence[Change]:
        previous = self._market.book
        return (Change(previous, self._market.step(), self._style),)
