"""A stream to fill, and a reader of it, on the shared Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ibkr_depth_pipeline.reader import DepthReader
from ibkr_depth_pipeline_tests.reader.filling import Filler


@pytest.fixture
def filler(shared_redis_url: str) -> Iterator[Filler]:
    with Filler(shared_redis_url) as filler:
        yield filler


@pytest.fixture
def reader(shared_redis_url: str) -> Iterator[DepthReader]:
    with DepthReader(shared_redis_url) as reader:
        yield reader
