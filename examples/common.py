"""What the studies in this folder share: where they read, of which symbols and time, and how they end.

    REDIS_URL=redis://127.0.0.1:6379/0 python examples/coverage.py SPY QQQ      # a recording that goes on: `make run`
    ARCHIVE_URL=/var/archive python examples/coverage.py SPY --start 2026-01-05 --end 2026-01-06

Without a symbol each study is of all. They need the extra `polars`, and `archive` for an archive.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.reader import open_reader


def run(study: Callable[..., None]) -> None:
    """Call study(reader, symbols, start=..., end=...). An error is one line; a signal ends it without any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("symbols", nargs="*", help="none: all")
    for name in ("--start", "--end"):
        parser.add_argument(name, help="a date, an ISO time (UTC) or a stream id")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored in whatever a script starts in the background
        signal.signal(number, _end)
    url = os.environ.get("ARCHIVE_URL") or os.environ.get("REDIS_URL", "redis://localhost:6379/0")
    try:
        with open_reader(url) as reader:
            study(reader, options.symbols or None, start=options.start, end=options.end)
    except (DepthPipelineError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"{error}\nset REDIS_URL to the one that `make run` prints, or ARCHIVE_URL; --help shows the rest")


def _end(number: int, _frame: Any) -> None:
    sys.exit(128 + number)
