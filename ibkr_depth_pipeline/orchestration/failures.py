"""What this project raises on purpose, as Dagster shows it."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from ibkr_depth_pipeline.errors import DepthPipelineError


@contextmanager
def our_errors_as_failures() -> Iterator[None]:
    """An error that explains itself: its text becomes the run's failure, and no step is tried again."""
    try:
        yield
    except DepthPipelineError as error:
        raise dg.Failure(str(error), metadata={"kind": type(error).__name__}, allow_retries=False) from error
