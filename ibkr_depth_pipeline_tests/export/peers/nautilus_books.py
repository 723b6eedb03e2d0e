"""Exports to catalogs and reads them with nautilus_trader itself; runs in an environment of its own.

    nautilus_books.py SNAPSHOTS ARCHIVE FOLDER [SNAPSHOTS ARCHIVE FOLDER ...]

SNAPSHOTS is all or settled. Prints a JSON list, one list a catalog, one item a book: instrument, flags, seq, ts_event,
ts_init, bids, asks, each level as [price, size, count], and how many bids and asks a book has to which it is applied.
"""

import json
import sys
from datetime import date, datetime, timezone
from pathlib import Path

from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.export.exporting import ExportRequest, export_day
from ibkr_depth_pipeline.export.formats import ExportFormat


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


def export(snapshots, archive, folder):
    settled_only = {"all": False, "settled": None}[snapshots]
    form = ExportFormat.NAUTILUS
    request = ExportRequest(date(2026, 1, 5), "SPY", form, Path(folder), settled_only=settled_only)
    for _ in range(2):  # the same export again replaces its own files
        export_day(ArchiveStore(archive), request, now=datetime.now(timezone.utc), progress=lambda *_: None)
    return list(books(folder))


if __name__ == "__main__":
    words = sys.argv[1:]
    print(json.dumps([export(*words[at : at + 3]) for at in range(0, len(words), 3)]))
