"""A recorder at work, for archivers that are killed meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ibkr_depth_pipeline_tests.archive.conftest import NOON, Mirror

SYMBOLS = ("SPY", "BRK B")
ROWS_AT_ONCE = 50


@contextmanager
def recorder(mirror: Mirror) -> Iterator[None]:
    """Somebody who goes on writing both symbols, some thousand snapshots a second, until the block ends."""
    over = threading.Event()

    def write() -> None:
        for first in itertools.count(1, ROWS_AT_ONCE):
            for symbol in SYMBOLS:
                mirror.write(symbol, range(first, first + ROWS_AT_ONCE), start=NOON + first)
            if over.wait(0.01):
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
