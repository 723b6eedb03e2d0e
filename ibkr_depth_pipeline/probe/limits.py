"""The numbers a probe goes by. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.settings import Settings

QUIET_SECS = 0.5
"""A book that has not grown for so long is taken for whole."""

SHORTEST_RETRY_SECS = 0.1
RETRIES_WHILE_TAKEN = 3


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """Numbers of the probe; seconds where not said otherwise.

    slots: most subscriptions at once. rows: asked for, a side. full_rows: that make a side complete.
    book_cap: longest wait for a symbol's book. quiet: a book that has not grown for so long is there.
    retry_pause: between two tries while others hold every slot. patience: until that is given up.
    """

    slots: int
    rows: int
    full_rows: int
    book_cap: float
    quiet: float
    retry_pause: float
    patience: float


def probe_limits(settings: Settings, first_book_secs: float | None = None) -> ProbeLimits:
    """The limits that the settings ask for."""
    retry_pause = max(settings.ibkr_error309_cooldown_secs, SHORTEST_RETRY_SECS)
    return ProbeLimits(
        slots=settings.ibkr_max_concurrent_depth,
        rows=settings.ibkr_depth_rows + settings.ibkr_depth_extra_rows,
        full_rows=settings.ibkr_depth_rows,
        book_cap=first_book_secs or settings.ibkr_first_row_secs,
        quiet=QUIET_SECS,
        retry_pause=retry_pause,
        patience=RETRIES_WHILE_TAKEN * retry_pause,
    )
