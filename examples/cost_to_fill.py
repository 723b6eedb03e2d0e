"""Cost of a purchase of 1,000 shares at once, in basis points of the mid. See common.py for its use."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import run

SHARES = 1_000.0
"""In the unit of the recorded sizes: if the gateway sends lots of 100, these are 10."""


def bought(level: int) -> pl.Expr:
    """How much of the order the level fills."""
    before = pl.sum_horizontal(
        [pl.col(f"ask_sz_{better:02d}").fill_null(0.0) for better in range(level)] or [pl.lit(0.0)]
    )
    return pl.min_horizontal(pl.col(f"ask_sz_{level:02d}").fill_null(0.0), (SHARES - before).clip(0.0))


def study(reader: Any, symbols: list[str] | None, **time: Any) -> None:
    """Over the settled books; the ten rows of some are too few, which is told and not guessed."""
    books = reader.to_polars(symbols, settled=True, columns="levels", **time).drop_nulls(["bid_px_00", "ask_px_00"])
    filled = pl.sum_horizontal([bought(level) for level in range(10)])
    paid = pl.sum_horizontal([bought(level) * pl.col(f"ask_px_{level:02d}").fill_null(0.0) for level in range(10)])
    mid = (pl.col("bid_px_00") + pl.col("ask_px_00")) / 2
    cost = pl.when(filled >= SHARES).then((paid / SHARES / mid - 1) * 10_000)
    costs = books.select("symbol", cost=cost).group_by("symbol", maintain_order=True)
    bps = pl.col("cost")
    print(costs.agg(books=pl.len(), too_thin=bps.is_null().mean(), median_bps=bps.median(), worst_bps=bps.max()))


if __name__ == "__main__":
    run(study)
