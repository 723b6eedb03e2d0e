"""A mirror to archive (a real Redis with snapshots in it), settings that lead there, and the real console script."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import exchange_calendars  # noqa: F401 - as in the tests of Dagster, which comes here, too
import pyarrow as pa
import pytest
import redis

from ibkr_depth_pipeline.archive.archiver import ArchiveOutcome, run_archiver
from ibkr_depth_pipeline.archive.layout import BOOKS, Place
from ibkr_depth_pipeline.archive.reading import days, read_day, symbols
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.model import Levels
from ibkr_depth_pipeline.schema.alerts import Alert, encode_alert
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, encode_interval
from ibkr_depth_pipeline.schema.keys import StreamId, alerts_stream, last_key, stream_key, turns_stream
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.sink.writing import side_json

COMMAND = Path(sysconfig.get_path("scripts")) / "ibkr_depth_archive"
NOON = 1_767_614_400_000  # 2026-01-05 12:00 UTC
DAY = date(2026, 1, 5)
MS_PER_DAY = 86_400_000


def book(number: int) -> tuple[Levels, Levels]:
    """A sound book of ten levels a side that is like no other number's."""
    bids = tuple((100.0 - level / 100, float(number + level), "ISLAND") for level in range(10))
    asks = tuple((100.01 + level / 100, float(number + 2 * level), "ARCA" if level % 2 else "") for level in range(10))
    return bids, asks


class Mirror:
    """What the recorder would write, by the schema in docs/redis-schema.md."""

    def __init__(self, url: str) -> None:
        self.redis: Any = redis.Redis.from_url(url)
        self.written: dict[str, list[StreamId]] = {}

    def write(
        self, symbol: str, seqs: Sequence[int], start: int = NOON, every: int = 1, maxlen: int = 0, **more: Any
    ) -> None:
        """A snapshot for each seq, `every` ms apart from `start` (unix ms) on; `maxlen` cuts the stream exactly.

        `more` are further fields of the entries.
        """
        pipe = self.redis.pipeline(transaction=False)
        for index, seq in enumerate(seqs):
            self._add(pipe, symbol, StreamId(start + index * every, seq), maxlen, more)
        pipe.execute()

    def _add(self, pipe: Any, symbol: str, entry: StreamId, maxlen: int, more: dict[str, Any]) -> None:
        bids, asks = map(side_json, book(entry.seq))
        fields = {"ts": entry.ts, "bids": bids, "asks": asks, "seq": entry.seq, "venue": "ISLAND", **more}
        pipe.xadd(stream_key(symbol), fields, id=str(entry), maxlen=maxlen or None, approximate=False)
        pipe.hset(last_key(symbol), mapping={"ts": entry.ts, "seq": entry.seq})
        self.written.setdefault(symbol, []).append(entry)

    def write_interval(self, interval: SubscriptionInterval, ended: int) -> None:
        """An interval that ended at that unix ms."""
        fields: Any = encode_interval(interval)
        self.redis.xadd(turns_stream(interval.symbol), fields, id=f"{ended}-{interval.subscription}")

    def write_alert(self, alert: Alert, ingest: str = "default", *, stored: int | None = None) -> Alert:
        """An alert that Redis takes at unix ms `stored`, or when it is raised."""
        fields: Any = encode_alert(alert)
        self.redis.xadd(alerts_stream(ingest), fields, id=f"{alert.ts if stored is None else stored}-*")
        return alert


def observed(
    number: int, first: int, last: int, *, at: int, until: int, complete: int | None = None, **others: Any
) -> SubscriptionInterval:
    """An interval of SPY with the snapshots from `first` to `last`; its moments are ms after NOON."""
    fields: dict[str, Any] = {
        "requested": NOON + at,
        "first_row": NOON + at,
        "complete": None if complete is None else NOON + complete,
        "until": NOON + until,
        "rows": last - first + 1,
        "end": EndReason.TURN_OVER,
    }
    return SubscriptionInterval("SPY", number, "ISLAND", first_seq=first, last_seq=last, **{**fields, **others})


@dataclass
class Desk:
    """One archive of one mirror, in this process or by the console script."""

    settings: Settings
    folder: Path
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    @property
    def store(self) -> ArchiveStore:
        return ArchiveStore(self.settings.archive_url)

    def keep(self, **how: Any) -> ArchiveOutcome:
        """Archive everything there is, and return."""
        return run_archiver(self.settings, once=True, now_ms=self.now_ms, **how)

    def kept(self) -> dict[str, list[StreamId]]:
        """The ids of every snapshot in the archive, as the reader has them."""
        store = self.store
        found: dict[str, list[StreamId]] = {}
        for day in days(store):
            for symbol in symbols(store, day):
                found.setdefault(symbol, []).extend(ids_of(read_day(store, day, symbol)))
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "REDIS_URL": self.settings.redis_url,
            "ARCHIVE_URL": self.settings.archive_url,
            "ARCHIVE_FLUSH_SECS": str(self.settings.archive_flush_secs),
            "ARCHIVE_FLUSH_ROWS": str(self.settings.archive_flush_rows),
        }

    def runs(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The console script, to its end."""
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECS,
        )

    @contextmanager
    def starts(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """The console script, running; killed at the end where it still does."""
        process = subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def parts_of(store: ArchiveStore, tree: str = BOOKS) -> list[Place]:
    """The parts of a tree, by name."""
    return [place for place in store.places(tree) if not place.compacted]


def compacted_of(store: ArchiveStore, tree: str = BOOKS) -> list[Place]:
    """The compacted files of a tree, by name."""
    return [place for place in store.places(tree) if place.compacted]


def ids_of(table: Any) -> list[StreamId]:
    """The ids of a table of snapshots, in its order."""
    return list(map(StreamId, table["ts"].cast(pa.int64()).to_pylist(), table["seq"].to_pylist()))


@pytest.fixture
def mirror(shared_redis_url: str) -> Iterator[Mirror]:
    """An empty Redis to write snapshots into."""
    made = Mirror(shared_redis_url)
    yield made
    made.redis.close()


@pytest.fixture
def desk(shared_redis_url: str, tmp_path: Path) -> Desk:
    """An archive in a folder of its own, of the shared Redis."""
    settings = load_settings(
        redis_url=shared_redis_url,
        archive_url=str(tmp_path / "archive"),
        archive_flush_secs=0.2,
        archive_flush_rows=500,
    )
    return Desk(settings, tmp_path)
