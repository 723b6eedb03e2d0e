"""Puts the last five minutes of two symbols into a frame.

    pip install 'ibkr_depth_pipeline[polars]'
    REDIS_URL=redis://127.0.0.1:6379/0 python examples/last_minutes.py SPY QQQ

`make run` prints its Redis URL. `reader.to_pandas` and `reader.to_arrow` take the same arguments.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone

import polars as pl

from ibkr_depth_pipeline.reader import DepthReader, SinkUnavailable

MINUTES = 5


def per_second(frame: pl.DataFrame) -> pl.DataFrame:
    """For each symbol and second: rows of depth, the mean spread, and the mean size on the ten levels of each side."""
    tops = frame.with_columns(
        spread=pl.col("ask_price").arr.first() - pl.col("bid_price").arr.first(),
        bid_size=pl.col("bid_size").arr.sum(),
        ask_size=pl.col("ask_size").arr.sum(),
    )
    two_sided = tops.filter((pl.col("bid_price").arr.first() > 0) & (pl.col("ask_price").arr.first() > 0))
    return (
        two_sided.group_by("symbol", pl.col("ts").dt.truncate("1s"))
        .agg(pl.len().alias("rows"), pl.col("spread").mean(), pl.col("bid_size").mean(), pl.col("ask_size").mean())
        .sort("symbol", "ts")
    )


def main() -> None:
    url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
    start = datetime.now(timezone.utc) - timedelta(minutes=MINUTES)
    try:
        with DepthReader(url) as reader:
            frame = reader.to_polars(*(sys.argv[1:] or ["SPY", "QQQ"]), start=start)
    except SinkUnavailable as error:
        sys.exit(f"{error}: set REDIS_URL to the one that `make run` prints")
    print(frame)
    print(per_second(frame))


if __name__ == "__main__":
    main()
