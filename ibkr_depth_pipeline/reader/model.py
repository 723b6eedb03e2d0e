"""The items that following gives. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval


@dataclass(frozen=True, slots=True)
class IntervalStarted:
    """The book of a symbol is observed from the next snapshot on: a subscription brought its first row.

    `interval` is what was known of it then; `complete`, `until` and the counts grow later.
    """

    interval: SubscriptionInterval

    @property
    def symbol(self) -> str:
        """Whose book."""
        return self.interval.symbol


@dataclass(frozen=True, slots=True)
class IntervalEnded:
    """The book of a symbol is not observed any more; `interval.until` is the last moment at which it was live."""

    interval: SubscriptionInterval

    @property
    def symbol(self) -> str:
        """Whose book."""
        return self.interval.symbol


Item: TypeAlias = DepthSnapshot | Gap
"""What following gives."""

IntervalItem: TypeAlias = DepthSnapshot | Gap | IntervalStarted | IntervalEnded
"""What following gives if intervals are asked for."""
