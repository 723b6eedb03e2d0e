"""The streams as Parquet files, kept for good: docs/archive.md says what stands where.

layout.py (names) and checks.py are pure; decoding.py turns stream entries into columns; store.py is the only one that
touches folders and object stores, streams.py the only one that reads Redis. archiver.py follows the streams,
maintenance.py compacts days and deletes old ones, reading.py reads a day in any state of its files.

Needs the extra `archive` (pyarrow, fsspec); nothing of the plain install imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ibkr_depth_pipeline.errors import ConfigurationError


@contextmanager
def extra_needed() -> Iterator[None]:
    """Around imports of this package's modules: a missing library becomes a ConfigurationError that says what to do."""
    try:
        yield
    except ModuleNotFoundError as missing:
        wanted = f"{missing.name} is not installed: pip install 'ibkr_depth_pipeline[archive]', and [s3] for S3"
        raise ConfigurationError("archive", [wanted]) from None
