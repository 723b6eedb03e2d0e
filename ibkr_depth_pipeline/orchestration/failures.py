"""What this project raises on purpose, as Dagster shows it."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from ibkr_depth_pipeline.errors import DepthPipelineError


@contextmanager
def our_errors_as_failures() -> Iterator[None]:
    """An error that explains itself: its text becomes the run's failure, and no step is tried again.

    Where somebody had asked the run to end before it came to that, it ends as canceled instead.
    """
    try:
        yield
    except DepthPipelineError as error:
        if error.interrupted_by is not None:
            raise dg.DagsterExecutionInterruptedError(f"{error.interrupted_by}, and then: {error}") from error
        raise dg.Failure(str(error), metadata={"kind": type(error).__name__}, allow_retries=False) from error
