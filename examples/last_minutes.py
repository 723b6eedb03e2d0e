"""Puts the last five minutes of some symbols into a frame, and prints what each second of them held.

    REDIS_URL=redis://127.0.0.1:6379/0 python examples/last_minutes.py SPY QQQ       # needs the extra `polars`

`reader.to_pandas` and `reader.to_arrow` take the same arguments.
"""

import os
import sys
from datetime import datetime, timedelta, timezone

import polars as pl

from ibkr_depth_pipeline.reader import DepthReader, SinkUnavailable


def per_second(frame: pl.DataFrame) -> pl.DataFrame:
    """For each symbol and second: rows of depth, the mean spread, and the mean size on the ten rows of each side."""
    tops = frame.with_columns(
        spread=pl.col("ask_price").arr.first() - pl.col("bid_price").arr.first(),  # null if a side is empty
        bid_size=pl.col("bid_size").arr.sum(),
        ask_size=pl.col("ask_size").arr.sum(),
    )
    seconds = tops.group_by("symbol", pl.col("ts").dt.truncate("1s"))
    return seconds.agg(pl.len().alias("rows"), pl.col("spread", "bid_size", "ask_size").mean()).sort("symbol", "ts")


try:
    start = datetime.now(timezone.utc) - timedelta(minutes=5)
    with DepthReader(os.environ.get("REDIS_URL", "redis://localhost:6379/0")) as reader:
        frame = reader.to_polars(sys.argv[1:] or ["SPY", "QQQ"], start=start)
except SinkUnavailable as error:
    sys.exit(f"{error}: set REDIS_URL to the one that `make run` prints")
print(frame, per_second(frame), sep="\n")
