"""The streams as Parquet files, kept for good: docs/archive.md has the layout.

layout.py (names) and checks.py are pure; decoding.py and buffers.py turn stream entries into columns; store.py is the
only one that touches folders and object stores, streams.py the only one that reads Redis. archiver.py follows the
streams, maintenance.py compacts days and deletes old ones, reading.py reads a day in any state of its files, and
archived_day.py, listing.py and sql.py are for those who use what is kept.

Needs the extra `archive` (pyarrow, fsspec); nothing of the plain install imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ibkr_depth_pipeline.errors import ConfigurationError


@contextmanager
def extra_needed() -> Iterator[None]:
    """Turns a library that an import of this package misses into a ConfigurationError that names the remedy."""
    try:
        yield
    except ModuleNotFoundError as missing:
        extras = "[sql]'" if missing.name == "duckdb" else "[archive]', and [s3] for S3"
        wanted = f"{missing.name} is not installed: pip install 'ibkr_depth_pipeline{extras}"
        raise ConfigurationError("archive", [wanted]) from None
