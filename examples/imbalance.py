"""Prints the imbalance at the top of the book of some symbols, live.

    REDIS_URL=redis://127.0.0.1:6379/0 python examples/imbalance.py SPY QQQ

`make run` prints its Redis URL. Imbalance is (bid size - ask size) / (bid size + ask size): 1 all bids, -1 all asks. A
line is printed whenever the best prices or sizes of a symbol change. Ctrl-C ends it.
"""

from __future__ import annotations

import os
import sys

from ibkr_depth_pipeline.reader import DepthReader, DepthSnapshot, Gap, SinkUnavailable


def imbalance(book: DepthSnapshot) -> float | None:
    """None where a side is empty or shows no size."""
    bid, ask = book.best_bid, book.best_ask
    if bid is None or ask is None or bid.size + ask.size == 0:
        return None
    return (bid.size - ask.size) / (bid.size + ask.size)


def watch(reader: DepthReader, symbols: list[str]) -> None:
    """Print until interrupted."""
    before: dict[str, object] = {}
    for item in reader.follow(*symbols):
        if isinstance(item, Gap):
            print(f"{item.symbol:<6} {item.missing or 'some'} snapshots are missing ({item.cause.value})", flush=True)
            continue
        top = (item.best_bid, item.best_ask)
        share = imbalance(item)
        if share is None or before.get(item.symbol) == top:
            continue
        before[item.symbol] = top
        bid, ask = item.bids[0], item.asks[0]
        print(
            f"{item.time:%H:%M:%S.%f} {item.symbol:<6} {bid.size:>8g} x {bid.price:<9.2f} {ask.price:>9.2f} x "
            f"{ask.size:<8g} {share:+.2f}",
            flush=True,
        )


def main() -> None:
    url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
    try:
        with DepthReader(url) as reader:
            watch(reader, sys.argv[1:] or ["SPY", "QQQ"])
    except SinkUnavailable as error:
        sys.exit(f"{error}: set REDIS_URL to the one that `make run` prints")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
