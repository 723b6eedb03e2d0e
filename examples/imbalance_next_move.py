"""Imbalance at the best prices against the next move of the mid. See common.py for its use."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import run


def study(reader: Any, symbols: list[str] | None, **time: Any) -> None:
    """For each fifth of the imbalance: how often the mid goes up next, and by how much, in basis points."""
    books = reader.to_polars(symbols, settled=True, columns="levels", **time).drop_nulls(["bid_px_00", "ask_px_00"])
    bid, ask = pl.col("bid_sz_00"), pl.col("ask_sz_00")
    following = pl.col("mid").shift(-1)
    turn = ("symbol", "subscription")  # the next book of another turn is none: there is unobserved time between
    moves = (
        books.with_columns(mid=(pl.col("bid_px_00") + pl.col("ask_px_00")) / 2, imbalance=(bid - ask) / (bid + ask))
        .with_columns(next_mid=pl.when(following != pl.col("mid")).then(following).backward_fill().over(turn))
        .drop_nulls("next_mid")
        .with_columns(move=(pl.col("next_mid") / pl.col("mid") - 1) * 10_000)
    )
    fifth = (pl.col("imbalance") * 2.5).round() / 2.5
    print(
        moves.group_by("symbol", imbalance=fifth)
        .agg(books=pl.len(), share_up=(pl.col("move") > 0).mean(), mean_move_bps=pl.col("move").mean())
        .sort("symbol", "imbalance")
    )


if __name__ == "__main__":
    run(study)
