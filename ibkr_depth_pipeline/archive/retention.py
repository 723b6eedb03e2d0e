"""Which dates ARCHIVE_RETENTION_DAYS lets go. Pure but for `prune_expired`.

Age is counted from the newest date that holds data, not from the clock: a clock that is far ahead makes nothing old.
As the data may bear that clock's times, one run deletes at most DATES_AT_ONCE dates besides; one a day is usually due.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import NamedTuple

from ibkr_depth_pipeline.archive.layout import HOLES, TREES
from ibkr_depth_pipeline.archive.store import ArchiveStore

DATES_AT_ONCE = 5
"""Most dates that one run deletes, unless it is told another number."""


class Pruning(NamedTuple):
    """Dates that a run deletes, and those past the retention that its limit leaves for later runs; oldest first."""

    deleted: tuple[date, ...]
    held: tuple[date, ...]


def first_date_kept(days: int, today: date, newest: date) -> date:
    """The first of `days` dates before the newest data, or before today where the data is ahead of the clock."""
    return min(today, newest) - timedelta(days=days)


def plan_pruning(dates: Iterable[date], newest: date, days: int, today: date, most: int = DATES_AT_ONCE) -> Pruning:
    """Which of `dates` go, where the newest that holds data is `newest`; `most` is how many may go at once."""
    expired = sorted(day for day in set(dates) if day < first_date_kept(days, today, newest))
    return Pruning(tuple(expired[:most]), tuple(expired[most:]))


def prune_expired(store: ArchiveStore, days: int, today: date, most: int = DATES_AT_ONCE) -> Pruning:
    """Delete what is past a retention of `days`, at most `most` dates. Raises ArchiveUnavailable."""
    found = [place for tree in TREES for place in store.places(tree)]
    newest = max((place.day for place in found if place.tree != HOLES), default=None)
    if newest is None:
        return Pruning((), ())
    pruning = plan_pruning((place.day for place in found), newest, days, today, most)
    gone = frozenset(pruning.deleted)
    store.delete([place for place in found if place.day in gone])
    return pruning
