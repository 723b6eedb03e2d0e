"""Order flow imbalance of each second, from row to row, against the mid's move in it. See common.py for its use."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import run

TURN = ("symbol", "subscription")


def flow(side: str, better: int) -> pl.Expr:
    """What came to the best price less what left it (Cont, Kukanov, Stoikov 2014). better: 1 if higher is, else -1."""
    price, size = pl.col(f"{side}_px_00"), pl.col(f"{side}_sz_00")
    move = (price - price.shift(1).over(TURN)) * better
    came = pl.when(move >= 0).then(size).otherwise(0.0)
    left = pl.when(move <= 0).then(size.shift(1).over(TURN)).otherwise(0.0)
    return pl.when(move.is_not_null()).then(came - left)


def study(reader: Any, symbols: list[str] | None, **time: Any) -> None:
    """The first book of a turn has no flow: what happened before it was not observed."""
    books = reader.to_polars(symbols, settled=True, columns="levels", **time).drop_nulls(["bid_px_00", "ask_px_00"])
    mid = (pl.col("bid_px_00") + pl.col("ask_px_00")) / 2
    rows = books.with_columns(flow=flow("bid", 1) - flow("ask", -1), move=mid - mid.shift(1).over(TURN))
    seconds = rows.group_by("symbol", pl.col("ts").dt.truncate("1s"), maintain_order=True).agg(
        rows=pl.len(), flow=pl.col("flow").sum(), move=pl.col("move").sum()
    )
    print(seconds)
    print(seconds.group_by("symbol", maintain_order=True).agg(correlation=pl.corr("flow", "move")))


if __name__ == "__main__":
    run(study)
