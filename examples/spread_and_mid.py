"""Spread and mid of each second, with the time in which a symbol was not observed masked. See common.py for its use."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import run


def study(reader: Any, symbols: list[str] | None, **time: Any) -> None:
    """The bars themselves, and what they come to: means are weighted with the observed part of each second."""
    bars = reader.resample("1s", symbols, **time)
    print(bars)
    weight = pl.col("observed").filter(pl.col("spread").is_not_null())
    # a change is known only between two seconds that are both observed: null minus a price is null
    change = pl.col("close").diff().over("symbol")
    print(
        bars.with_columns(change=change)
        .group_by("symbol", maintain_order=True)
        .agg(
            seconds=pl.len(),
            observed_secs=pl.col("observed").sum(),
            mean_spread=((pl.col("spread").drop_nulls() * weight).sum() / weight.sum()).fill_nan(None),
            last_mid=pl.col("close").drop_nulls().last(),
            changes=pl.col("change").count(),
            volatility=pl.col("change").std(),
        )
    )


if __name__ == "__main__":
    run(study)
