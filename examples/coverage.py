"""Coverage: when each symbol was observed, for how long, and why its turns ended. See common.py for its use."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import run


def study(reader: Any, symbols: list[str] | None, **time: Any) -> None:
    """By the record of subscriptions. `subscription` 0 is inferred: the recorder left no record."""
    fields = ("symbol", "subscription", "first_row", "complete", "until", "rows")
    found = reader.intervals(symbols, **time)
    turns = pl.DataFrame(
        [{name: getattr(each, name) for name in fields} | {"end": each.end and each.end.value} for each in found],
        schema=dict.fromkeys(fields, pl.Int64) | {"symbol": pl.String, "end": pl.String},
    ).with_columns(secs=(pl.col("until") - pl.col("first_row")) / 1_000)
    print(turns.with_columns(pl.from_epoch(pl.col("first_row", "complete", "until"), "ms")))
    secs = pl.col("secs").sum()
    span = (pl.col("until").max() - pl.col("first_row").min()) / 1_000
    off = (pl.col("first_row") - pl.col("until").shift(1)) / 1_000
    print(
        turns.drop_nulls("first_row")
        .group_by("symbol", maintain_order=True)
        .agg(turns=pl.len(), observed_secs=secs, share=secs / span, longest_off_secs=off.max())
    )
    print(turns.group_by("symbol", "end").len().sort("symbol", "end"))


if __name__ == "__main__":
    run(study)
