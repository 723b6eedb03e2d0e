"""Size on each side within some basis points of the mid. See common.py for its use."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import run

BASIS_POINTS = (1, 2, 5, 10)


def within(side: str, basis_points: int) -> pl.Expr:
    """The size of the levels that are not further from the mid: none is counted that the ten rows do not show."""
    near = [
        pl.when((pl.col(f"{side}_px_{level:02d}") / pl.col("mid") - 1).abs() * 10_000 <= basis_points)
        .then(pl.col(f"{side}_sz_{level:02d}"))
        .otherwise(0.0)
        for level in range(10)
    ]
    return pl.sum_horizontal(near).alias(f"{side}_{basis_points}bp")


def study(reader: Any, symbols: list[str] | None, **time: Any) -> None:
    """The mean over all settled books that have both sides."""
    books = reader.to_polars(symbols, settled=True, columns="levels", **time).drop_nulls(["bid_px_00", "ask_px_00"])
    books = books.with_columns(mid=(pl.col("bid_px_00") + pl.col("ask_px_00")) / 2)
    sizes = [within(side, basis_points) for basis_points in BASIS_POINTS for side in ("bid", "ask")]
    means = books.select("symbol", *sizes).group_by("symbol", maintain_order=True)
    print(means.agg(pl.len().alias("books"), pl.all().mean()))


if __name__ == "__main__":
    run(study)
