"""Reads a catalog with nautilus_trader itself; runs in an environment of its own.

    nautilus_books.py FOLDER

Prints a JSON list, one item a book: instrument, flags, seq, ts_event, ts_init, bids, asks, each level as
[price, size, count], and how many bids and asks a book has to which it is applied.
"""

import json
import sys

from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType
from nautilus_trader.persistence.catalog import ParquetDataCatalog


def levels(orders, counts):
    pairs = zip(orders, counts, strict=True)
    return [[float(order.price), float(order.size), count] for order, count in pairs if count]


def books(folder):
    held = {}
    for depth in ParquetDataCatalog(folder).order_book_depth10():
        book = held.setdefault(depth.instrument_id, OrderBook(depth.instrument_id, BookType.L2_MBP))
        book.apply_depth(depth)
        yield {
            "instrument": depth.instrument_id.value,
            "flags": depth.flags,
            "seq": depth.sequence,
            "ts_event": depth.ts_event,
            "ts_init": depth.ts_init,
            "bids": levels(depth.bids, depth.bid_counts),
            "asks": levels(depth.asks, depth.ask_counts),
            "applied": [len(book.bids()), len(book.asks())],
        }


if __name__ == "__main__":
    print(json.dumps(list(books(sys.argv[1]))))
