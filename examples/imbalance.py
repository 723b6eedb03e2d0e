"""Prints the imbalance at the top of the book of some symbols, live.

    REDIS_URL=redis://127.0.0.1:6379/0 python examples/imbalance.py SPY QQQ

`make run` prints its Redis URL. Imbalance is (bid size - ask size) / (bid size + ask size): 1 all bids, -1 all asks.
The newest books come first, then a line whenever the best prices or sizes of a symbol change; a symbol that waits for
its turn prints nothing. Ctrl-C ends it, as does SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys

from ibkr_depth_pipeline.reader import DepthReader, DepthSnapshot, Gap, SinkUnavailable


def imbalance(book: DepthSnapshot) -> float | None:
    """None where a side is empty or shows no size."""
    bid, ask = book.best_bid, book.best_ask
    if bid is None or ask is None or bid.size + ask.size == 0:
        return None
    return (bid.size - ask.size) / (bid.size + ask.size)


def watch(reader: DepthReader, symbols: list[str]) -> None:
    """Print the newest books, then every change of their tops until interrupted."""
    before: dict[str, object] = {}
    for book in reader.latest_all(symbols).values():
        show(book)
    for item in reader.follow(*symbols):
        if isinstance(item, Gap):
            print(f"{item.symbol:<6} {item.missing or 'some'} snapshots are missing ({item.cause.value})", flush=True)
            continue
        top = (item.best_bid, item.best_ask)
        if before.get(item.symbol) != top:
            before[item.symbol] = top
            show(item)


def show(book: DepthSnapshot) -> None:
    """One line, where both sides show a size."""
    share = imbalance(book)
    if share is None:
        return
    bid, ask = book.bids[0], book.asks[0]
    print(
        f"{book.time:%H:%M:%S.%f} {book.symbol:<6} {bid.size:>8g} x {bid.price:<9.2f} {ask.price:>9.2f} x "
        f"{ask.size:<8g} {share:+.2f}",
        flush=True,
    )


def main() -> None:
    url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored in whatever a script starts in the background
        signal.signal(number, signal.default_int_handler)
    try:
        with DepthReader(url) as reader:
            watch(reader, sys.argv[1:] or ["SPY", "QQQ"])
    except SinkUnavailable as error:
        sys.exit(f"{error}: set REDIS_URL to the one that `make run` prints")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
