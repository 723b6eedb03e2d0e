"""Where a feed's books come from, step by step. Pure: a source says how long to wait, the feed does the waiting."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ibkr_depth_pipeline.simulation.market import SyntheticMarket
from ibkr_depth_pipeline.simulation.rows import Book, Change, RowStyle

REFERENCE_DEPTH = 10
"""Rates are counted in the rows of a subscription of this many rows a side."""
_STEPS_A_SECOND = 40


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next: so many seconds after the step before, these changes, in one write."""

    wait: float
    changes: Sequence[Change]


class BookSource(Protocol):
    """A book and what becomes of it. A step is taken exactly once."""

    @property
    def book(self) -> Book:
        """The book before the first step."""

    @property
    def lossless(self) -> bool:
        """Whether every change must reach every follower, so that a slow one holds the source up."""

    @property
    def over(self) -> bool:
        """Whether there will never be another step."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is to happen for now: a step that was taken waits."""

    def next_step(self) -> Step | None:
        """The next step, or None if none is due for now."""

    def next_changes(self) -> Sequence[Change]:
        """The changes of the next step, at any pace; none when the source is over."""


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

    def next_step(self) -> Step | None:
        """A handful of events, worth the time since the step before; steps come unevenly, as they do in the wild."""
        if self.quiet:
            return None
        wait = self._dice.uniform(0.4, 1.6) * max(1 / _STEPS_A_SECOND, 1 / self.rate)
        self._owed += wait * self.rate
        changes: list[Change] = []
        while self._owed > 0 or not changes:
            changes += self.next_changes()
            self._owed -= len(changes[-1].rows(REFERENCE_DEPTH))
        return Step(wait, changes)

    def next_changes(self) -> Sequence[Change]:
        previous = self._market.book
        return (Change(previous, self._market.step(), self._style),)
