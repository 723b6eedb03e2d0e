"""Watches the market of a box: a thread that reads Redis several times a second, also while Redis does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from ibkr_depth_pipeline.box.faults import MarketState
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.reader import DepthReader
from ibkr_depth_pipeline.schema.health import HealthReport
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline.sink.status import read_health

PERIOD_SECS = 0.25
_TRIES = 8
_NO_RUN = RunIdentity("", "", 0, 0)
NAME = "default"
"""The ingest of a box: IBKR_GATEWAY_NAME is not taken from the environment there."""


class RowsToRecord:
    """The rows that the gateway has sent in all, without those that it sent while is_probing()."""

    def __init__(self, sent: Callable[[], int], is_probing: Callable[[], bool]) -> None:
        self._sent, self._is_probing = sent, is_probing
        self._counted = self._probed = 0

    def __call__(self) -> int:
        """Call it often: what came since the call before counts, or does not, by what goes on now."""
        sent = self._sent()
        if self._is_probing():
            self._probed = sent - self._counted
        else:
            self._counted = sent - self._probed
        return self._counted


class MarketWatcher:
    """Reads the state of `symbols` from the Redis at `url` inside the block; `new` hands out what was read.

    sent(): the rows that the gateway has sent in all. It is asked in the watcher's thread.
    """

    def __init__(self, url: str, symbols: Sequence[str], sent: Callable[[], int]) -> None:
        self._url, self._symbols, self._sent = url, tuple(symbols), sent
        self._dropped: Counter[str] = Counter()  # by run
        self._lock = threading.Lock()
        self._read: list[MarketState] = []
        self.latest: MarketState | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="market-watcher", daemon=True)

    def __enter__(self) -> MarketWatcher:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(2.0)  # it may wait for a Redis that does not answer

    def new(self) -> list[MarketState]:
        """The states since the last call, oldest first."""
        with self._lock:
            read, self._read = self._read, []
        return read

    def _run(self) -> None:
        with DepthReader(self._url) as reader:
            while not self._stop.wait(PERIOD_SECS):
                with contextlib.suppress(DepthPipelineError):
                    state = self._look(reader)
                    with self._lock:
                        self.latest, self._read = state, [*self._read[-1000:], state]

    def _look(self, reader: DepthReader) -> MarketState:
        report = asyncio.run(read_health(self._url, NAME, self._symbols))
        # Between two rows of the gateway: else what it sent meanwhile would count as missing, or less as stored.
        for _ in range(_TRIES):
            before = self._sent()
            stored = sum(book.seq for book in reader.latest_all(*self._symbols, missing_ok=True).values())
            if self._sent() == before:
                return self._state(report, stored, before)
        return self._state(report, stored, None)

    def _state(self, report: HealthReport, stored: int, sent: int | None) -> MarketState:
        figures = report.feed.figures or FeedFigures(_NO_RUN, 0)
        self._dropped[figures.run.run_id] = sum(
            count for each in figures.symbols.values() for count in each.dropped.values()
        )
        return MarketState(
            at=unix_ms(),
            running=report.feed.running,
            problem=report.feed.problem,
            run_id=figures.run.run_id,
            run_started_ts=figures.run.started_ts,
            pid=figures.run.pid,
            process=figures.run.process,
            batch_size=figures.batch_size,
            stored=stored,
            newest_rows={each.symbol: each.last_row_ts for each in report.symbols},
            held=tuple(name for name, each in figures.symbols.items() if each.subscribed),
            stale=tuple(each.symbol for each in report.symbols if each.last_row_ts and not each.is_well),
            fresh=sum(each.is_well for each in report.symbols),
            missing=None if sent is None else sent - stored - self._dropped.total(),
        )
