"""Prints the imbalance at the top of the book of some symbols, live, until Ctrl-C or SIGTERM.

    REDIS_URL=redis://127.0.0.1:6379/0 python examples/imbalance.py SPY QQQ      # `make run` prints its Redis URL

Imbalance is (bid size - ask size) / (bid size + ask size). After the newest books a line comes when a top changes.
"""

import os
import signal
import sys
from itertools import chain

from ibkr_depth_pipeline.reader import DepthReader, DepthSnapshot, SinkUnavailable


def show(book: DepthSnapshot) -> None:
    bid, ask = book.best_bid, book.best_ask
    if bid is not None and ask is not None and bid.size + ask.size:
        share = (bid.size - ask.size) / (bid.size + ask.size)
        prices = f"{bid.size:>8g} x {bid.price:<9.2f} {ask.price:>9.2f} x {ask.size:<8g}"
        print(f"{book.time:%H:%M:%S.%f} {book.symbol:<6} {prices} {share:+.2f}", flush=True)


for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored in whatever a script starts in the background
    signal.signal(number, lambda *_: sys.exit(0))
symbols, tops = sys.argv[1:] or ["SPY", "QQQ"], {}
try:
    with DepthReader(os.environ.get("REDIS_URL", "redis://localhost:6379/0")) as reader:
        newest = reader.latest_all(symbols, missing_ok=True).values()
        for item in chain(newest, reader.follow(symbols, missing_ok=True)):
            if not isinstance(item, DepthSnapshot):
                print(
                    f"{item.symbol:<6} {item.missing or 'some'} snapshots are missing ({item.cause.value})", flush=True
                )
            elif tops.get(item.symbol) != (top := (item.best_bid, item.best_ask)):
                tops[item.symbol] = top
                show(item)
except SinkUnavailable as error:
    sys.exit(f"{error}: set REDIS_URL to the one that `make run` prints")
