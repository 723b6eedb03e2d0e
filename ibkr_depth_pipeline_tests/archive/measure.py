"""Size and speed of the archive: `python -m ibkr_depth_pipeline_tests.archive.measure [SECONDS]`.

Real books (the shared AAPL recording, where it is there) and synthetic ones (a whole ingest would record them in the
same way), through a real Redis, the archiver, the compaction and the reader. The archiver follows live at 10,000
snapshots a second while its own CPU time is counted.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import redis

from ibkr_depth_pipeline.archive.archiver import Archiver, run_archiver
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import days, read_day
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation.archive_tape import read_archived
from ibkr_depth_pipeline.simulation.catalogue import Catalogue, depth_venue
from ibkr_depth_pipeline.simulation.market import SyntheticMarket
from ibkr_depth_pipeline.simulation.replay import read_tape
from ibkr_depth_pipeline.simulation.rows import Book, RowStyle, apply_rows, rows_of_change, snapshot_rows
from ibkr_depth_pipeline_tests.conftest import SHARED_DATA
from ibkr_depth_pipeline_tests.sink.writing import side_json

RATE = 10_000
SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT")
_T = TypeVar("_T")


def snapshots(books: Iterator[Book], depth: int, style: RowStyle) -> Iterator[Book]:
    """What a recorder keeps: the book after each row, ten levels of it."""
    first = next(books).clipped(depth)
    held = Book()
    for row in snapshot_rows(first):
        held = apply_rows(held, [row])
        yield held.clipped(10)
    for before, after in pairwise(chain([first], (book.clipped(depth) for book in books))):
        for row in rows_of_change(before, after, style):
            held = apply_rows(held, [row]).clipped(depth)
            yield held.clipped(10)


def real() -> list[Book]:
    path = SHARED_DATA / "aapl_2012-06-21_l10.csv.gz"
    return list(snapshots(iter(read_tape(path, "NSDQ").books), 10, RowStyle.SHIFT)) if path.exists() else []


def synthetic(count: int) -> list[Book]:
    listing, venue = Catalogue().named("AAPL"), depth_venue("ISLAND", "STK")
    assert listing is not None
    assert venue is not None
    return list(islice(snapshots(SyntheticMarket(1, listing, venue).books(), 15, venue.style), count))


def entry(number: int, ts: int, book: Book) -> dict[str, Any]:
    bids, asks = (side_json(tuple(map(tuple, side))) for side in book)  # type: ignore[arg-type]
    return {"ts": ts, "bids": bids, "asks": asks, "seq": number, "venue": "ISLAND"}


def fill(url: str, symbol: str, books: list[Book]) -> None:
    with redis.Redis.from_url(url) as store:
        pipe: Any = store.pipeline(transaction=False)
        began = time.time_ns() // 1_000_000 - 5 * len(books)
        for number, book in enumerate(books, start=1):
            ts = began + 5 * number
            pipe.xadd(stream_key(symbol), entry(number, ts, book), id=f"{ts}-{number}")
            if number % 1000 == 0:
                pipe.execute()
        pipe.execute()


def as_csv(books: list[Book]) -> bytes:
    """The same as gzip CSV: ts, seq, venue, and ten times price, size, venue a side."""
    text = io.StringIO()
    writer = csv.writer(text)
    for number, book in enumerate(books, start=1):
        sides = [value for side in book for level in (*side, *[(0.0, 0.0, "")] * (10 - len(side))) for value in level]
        writer.writerow([1_700_000_000_000 + 5 * number, number, "ISLAND", *sides])
    return gzip.compress(text.getvalue().encode(), 6)


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def size_and_speed(name: str, books: list[Book]) -> None:
    rows = len(books)
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        fill(server.url, "AAPL", books)
        settings = load_settings(redis_url=server.url, archive_url=f"{folder}/archive")
        outcome, keeping = timed(lambda: run_archiver(settings, once=True))
        store = ArchiveStore(settings.archive_url)
        day = days(store)[-1]
        done, compacting = timed(lambda: compact_day(store, day))
        table, reading = timed(lambda: read_day(store, day, "AAPL"))
        kept = table.num_rows
        tape, playing = timed(lambda: read_archived(Path(settings.archive_url), day, "AAPL"))
        packed, packing = timed(lambda: as_csv(books))
        assert len(tape.moments) >= kept
        sizes = {
            "parts": outcome.summary.bytes / rows,
            "day": done[-1].bytes / done[-1].rows,
            "gzip CSV": len(packed) / rows,
        }
    speeds = {"archive": rows / keeping, "compact": kept / compacting, "read": kept / reading}
    speeds |= {"tape for a replay": kept / playing, "write gzip CSV": rows / packing}
    print(f"{name}, {rows} snapshots, archived at once")
    print("  bytes a snapshot: " + ", ".join(f"{what} {size:.1f}" for what, size in sizes.items()))
    print("  snapshots a CPU second: " + ", ".join(f"{what} {round(speed, -3):,.0f}" for what, speed in speeds.items()))


def write_at_rate(url: str, seconds: float, books: list[Book]) -> None:
    """A process of its own: RATE snapshots a second over all symbols, trimmed as the recorder does."""
    with redis.Redis.from_url(url) as store:
        began, number = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            due = int(now * RATE / len(SYMBOLS))
            pipe: Any = store.pipeline(transaction=False)
            for at in range(number + 1, due + 1):
                ts = time.time_ns() // 1_000_000
                fields = entry(at, ts, books[at % len(books)])
                for symbol in SYMBOLS:
                    pipe.xadd(stream_key(symbol), fields, id=f"{ts}-{at}", maxlen=10_000, approximate=True)
            pipe.execute()
            number = due
            time.sleep(0.02)


async def follow(settings: Settings, writer: Any) -> tuple[Archiver, float]:
    archiver = Archiver(settings)
    writer.start()
    task = asyncio.ensure_future(archiver.run())
    began = time.process_time()
    await asyncio.to_thread(writer.join)
    archiver.stop()
    await task
    return archiver, time.process_time() - began


def live(seconds: float, books: list[Book]) -> None:
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        settings = load_settings(redis_url=server.url, archive_url=f"{folder}/archive")
        for symbol in SYMBOLS:
            fill(server.url, symbol, books[:0])
        writer = get_context("spawn").Process(target=write_at_rate, args=(server.url, seconds, books))
        archiver, used = asyncio.run(follow(settings, writer))
        kept = sum(archiver.summary.snapshots.values())
        missing = sum(gap.size for gap in archiver.summary.gaps)
    share = used / seconds
    print(
        f"live: {kept / seconds:,.0f} snapshots a second for {seconds:.0f} s: {share:.0%} of a core, {missing} missing"
    )
    print(f"  {archiver.summary.files} files")


if __name__ == "__main__":
    configure_logging("CRITICAL")
    if actual := real():
        size_and_speed("real AAPL books", actual)
    made = synthetic(60_000)
    size_and_speed("synthetic books", made)
    live(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, made[-8000:])
