"""What the rows of a line show: inserts that shift or overwrite, updates past the end, how a venue words changes. Pure.

A book is followed under both meanings of an insert. Under the true one, a line that was watched for a while holds what
a fresh line of the same contract holds soon after its opening; under the other one errors add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import zip_longest

from ibkr_depth_pipeline.facts.evidence import ObservedLine, TimedRow
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Side

LEAST_CHANGES = 3
"""Changes of a price in place from which a venue without inserts counts as one that words changes so."""


MOST_INSERTS = 2
LEAST_LIKENESS, LEAST_DIFFERENCE = 0.8, 0.1
"""How alike the books must be under the true meaning, and how much less so under the other."""


class InsertMeaning(Enum):
    """What an insert at the position of a row does."""

    SHIFT = "shift"
    OVERWRITE = "overwrite"


Levels = list[tuple[float, float, str]]


@dataclass(slots=True)
class FollowedBook:
    """A book under one meaning of inserts, and counts of what its rows did after the opening."""

    meaning: InsertMeaning
    most: int
    sides: dict[Side, Levels] = field(default_factory=lambda: {Side.BID: [], Side.ASK: []})
    is_opening: bool = True
    occupied_inserts: int = 0
    deletes: int = 0
    changed_prices: int = 0
    past_end: int = 0

    def apply(self, row: DepthRow) -> None:
        """Applies a row; one that does not fit is counted or ignored."""
        levels, at = self.sides[row.side], row.position
        level = (row.price, row.size, row.venue)
        fits = 0 <= at < len(levels)
        self.is_opening &= row.operation is DepthOperation.INSERT and at == len(levels)
        if row.operation is DepthOperation.INSERT:
            self.occupied_inserts += fits
            if fits and self.meaning is InsertMeaning.OVERWRITE:
                levels[at] = level
            elif 0 <= at <= len(levels):
                levels.insert(at, level)
                del levels[self.most :]
        elif row.operation is DepthOperation.UPDATE:
            self.past_end += at >= len(levels)
            if fits:
                self.changed_prices += levels[at][0] != row.price
                levels[at] = level
        else:
            self.deletes += 1
            if fits:
                del levels[at]

    def follow(self, rows: Sequence[TimedRow]) -> FollowedBook:
        """Applies all rows."""
        for each in rows:
            self.apply(each.row)
        return self


def followed(line: ObservedLine, meaning: InsertMeaning) -> FollowedBook:
    """The line's book after all its rows."""
    return FollowedBook(meaning, line.rows_asked).follow(line.rows)


def opening_rows(line: ObservedLine) -> int:
    """How many rows the line's opening has: inserts that append."""
    book = FollowedBook(InsertMeaning.SHIFT, line.rows_asked)
    for count, each in enumerate(line.rows):
        book.apply(each.row)
        if not book.is_opening:
            return count
    return len(line.rows)


def agreement(line: ObservedLine, fresh: ObservedLine, meaning: InsertMeaning, secs: float) -> float:
    """How alike both books are at best, from 0 to 1, between the fresh line's opening and its first inserts after it.

    Later than that is no proof: under the wrong meaning both lines come to hold the same wrong rows.
    """
    old, new = (FollowedBook(meaning, each.rows_asked) for each in (line, fresh))
    opening = fresh.rows[: opening_rows(fresh)]
    if not opening:
        return 0.0
    opened, ends = opening[-1].number, opening[-1].at + secs
    best = 0.0
    for book, each in _merged(line, old, fresh, new):
        book.apply(each.row)
        if each.at > ends or new.occupied_inserts > MOST_INSERTS:
            break
        if each.number >= opened:
            best = max(best, _likeness(old, new))
    return best


def _likeness(old: FollowedBook, new: FollowedBook) -> float:
    pairs = [(before, after) for side in Side for before, after in zip_longest(old.sides[side], new.sides[side])]
    return sum(before == after for before, after in pairs) / len(pairs) if pairs else 0.0


def _merged(
    line: ObservedLine, old: FollowedBook, fresh: ObservedLine, new: FollowedBook
) -> Iterator[tuple[FollowedBook, TimedRow]]:
    both = [(each.number, old, each) for each in line.rows] + [(each.number, new, each) for each in fresh.rows]
    for _, book, each in sorted(both, key=lambda item: item[0]):
        yield book, each


def meaning_of(line: ObservedLine, fresh: ObservedLine, secs: float) -> InsertMeaning | None:
    """What inserts mean on this line; None if it had none at an occupied position, or the books leave it open."""
    if not followed(line, InsertMeaning.SHIFT).occupied_inserts:
        return None
    scores = {meaning: agreement(line, fresh, meaning, secs) for meaning in InsertMeaning}
    likely, other = sorted(InsertMeaning, key=lambda meaning: scores[meaning], reverse=True)
    is_clear = scores[likely] >= LEAST_LIKENESS and scores[likely] - scores[other] >= LEAST_DIFFERENCE
    return likely if is_clear else None


def style_of(line: ObservedLine, meaning: InsertMeaning | None) -> str | None:
    """How the venue words changes: shift, overwrite or cascade; None if too little has changed."""
    book = followed(line, meaning or InsertMeaning.SHIFT)
    if book.occupied_inserts:
        return meaning.value if meaning is not None else None
    return "cascade" if book.changed_prices >= LEAST_CHANGES else None
