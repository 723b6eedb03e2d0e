"""Size and speed of the archive: `python -m ibkr_depth_pipeline_tests.archive.measure [SECONDS]`.

With `rows` after it, the rows of depth and recv_ns are archived as well.

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
from zlib import crc32

import redis

from ibkr_depth_pipeline.archive.archiver import Archiver, run_archiver
from ibkr_depth_pipeline.archive.layout import BOOKS, ROWS
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import days, read_day
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.schema.keys import rows_stream, stream_key
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation.archive_tape import read_archived
from ibkr_depth_pipeline.simulation.catalogue import Catalogue, depth_venue
from ibkr_depth_pipeline.simulation.market import SyntheticMarket
from ibkr_depth_pipeline.simulation.replay import read_tape
from ibkr_depth_pipeline.simulation.rows import Book, RowStyle, WireRow, apply_rows, rows_of_change, snapshot_rows
from ibkr_depth_pipeline_tests.conftest import SHARED_DATA
from ibkr_depth_pipeline_tests.sink.writing import side_json

RATE = 10_000
SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT")
_T = TypeVar("_T")


Step = tuple[Book, WireRow]


def snapshots(books: Iterator[Book], depth: int, style: RowStyle) -> Iterator[Step]:
    """What a recorder keeps: the book after each row, ten levels of it, and the row."""
    first = next(books).clipped(depth)
    held = Book()
    for row in snapshot_rows(first):
        held = apply_rows(held, [row])
        yield held.clipped(10), row
    for before, after in pairwise(chain([first], (book.clipped(depth) for book in books))):
        for row in rows_of_change(before, after, style):
            held = apply_rows(held, [row]).clipped(depth)
            yield held.clipped(10), row


def real() -> list[Step]:
    path = SHARED_DATA / "aapl_2012-06-21_l10.csv.gz"
    return list(snapshots(iter(read_tape(path, "NSDQ").books), 10, RowStyle.SHIFT)) if path.exists() else []


def synthetic(count: int) -> list[Step]:
    listing, venue = Catalogue().named("AAPL"), depth_venue("ISLAND", "STK")
    assert listing is not None
    assert venue is not None
    return list(islice(snapshots(SyntheticMarket(1, listing, venue).books(), 15, venue.style), count))


def entry(number: int, ts: int, book: Book) -> dict[str, Any]:
    bids, asks = (side_json(tuple(map(tuple, side))) for side in book)  # type: ignore[arg-type]
    return {"ts": ts, "bids": bids, "asks": asks, "seq": number, "venue": "ISLAND"}


def row_entry(number: int, recv_ns: int, row: WireRow) -> dict[str, Any]:
    return {
        **{"recv_ns": recv_ns, "subscription": 1 + number // 1000, "seq": number},
        **{"operation": ("insert", "update", "delete")[row.operation], "side": ("ask", "bid")[row.side]},
        **{"position": row.position, "price": row.price, "size": row.size, "mm": row.market_maker or "ISLAND"},
    }


def add(pipe: Any, symbol: str, entry_id: tuple[int, int], step: Step, *, rows: bool, **how: Any) -> None:
    """One snapshot, with `rows` its row and its receive time, too."""
    (ts, number), (book, row) = entry_id, step
    recv_ns = ts * 1_000_000 + crc32(b"%d" % number) % 1_000_000
    more = {"recv_ns": recv_ns} if rows else {}
    pipe.xadd(stream_key(symbol), {**entry(number, ts, book), **more}, id=f"{ts}-{number}", **how)
    if rows:
        pipe.xadd(rows_stream(symbol), row_entry(number, recv_ns, row), id=f"{ts}-{number}", **how)


def fill(url: str, symbol: str, steps: list[Step], *, rows: bool) -> None:
    with redis.Redis.from_url(url) as store:
        pipe: Any = store.pipeline(transaction=False)
        began = time.time_ns() // 1_000_000 - 5 * len(steps)
        for number, step in enumerate(steps, start=1):
            add(pipe, symbol, (began + 5 * number, number), step, rows=rows)
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


def bytes_of(store: ArchiveStore, tree: str) -> int:
    return sum(store.sizes(tree).values())


def size_and_speed(name: str, steps: list[Step], *, with_rows: bool) -> None:
    books, rows = [book for book, _ in steps], len(steps)
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        fill(server.url, "AAPL", steps, rows=with_rows)
        settings = load_settings(redis_url=server.url, archive_url=f"{folder}/archive", archive_rows=with_rows)
        _, keeping = timed(lambda: run_archiver(settings, once=True))
        store = ArchiveStore(settings.archive_url)
        day, parts = days(store)[-1], {tree: bytes_of(store, tree) for tree in (BOOKS, ROWS)}
        done, compacting = timed(lambda: compact_day(store, day))
        table, reading = timed(lambda: read_day(store, day, "AAPL"))
        kept = table.num_rows
        tape, playing = timed(lambda: read_archived(Path(settings.archive_url), day, "AAPL"))
        packed, packing = timed(lambda: as_csv(books))
        assert len(tape.moments) >= kept
        sizes = {
            "parts": parts[BOOKS] / rows,
            "day": done[-1].bytes / done[-1].rows,
            "gzip CSV": len(packed) / rows,
            **({"rows, parts": parts[ROWS] / rows, "rows, day": bytes_of(store, ROWS) / rows} if with_rows else {}),
        }
    speeds = {"archive": rows / keeping, "compact": kept / compacting, "read": kept / reading}
    speeds |= {"tape for a replay": kept / playing, "write gzip CSV": rows / packing}
    print(f"{name}, {rows} snapshots, archived at once")
    print("  bytes a snapshot: " + ", ".join(f"{what} {size:.1f}" for what, size in sizes.items()))
    print("  snapshots a CPU second: " + ", ".join(f"{what} {round(speed, -3):,.0f}" for what, speed in speeds.items()))


def write_at_rate(url: str, seconds: float, steps: list[Step], rows: bool) -> None:
    """A process of its own: RATE snapshots a second over all symbols, trimmed as the recorder does."""
    with redis.Redis.from_url(url) as store:
        began, number = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            due = int(now * RATE / len(SYMBOLS))
            pipe: Any = store.pipeline(transaction=False)
            for at in range(number + 1, due + 1):
                ts = time.time_ns() // 1_000_000
                for symbol in SYMBOLS:
                    step = steps[at % len(steps)]
                    add(pipe, symbol, (ts, at), step, rows=rows, maxlen=10_000, approximate=True)
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


def live(seconds: float, steps: list[Step], *, rows: bool) -> None:
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        settings = load_settings(redis_url=server.url, archive_url=f"{folder}/archive", archive_rows=rows)
        writer = get_context("spawn").Process(target=write_at_rate, args=(server.url, seconds, steps, rows))
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
    rows = "rows" in sys.argv
    if actual := real():
        size_and_speed("real AAPL books", actual, with_rows=rows)
    made = synthetic(60_000)
    size_and_speed("synthetic books", made, with_rows=rows)
    live(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, made[-8000:], rows=rows)
