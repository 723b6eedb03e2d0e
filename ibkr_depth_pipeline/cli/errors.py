"""Exit codes of the console scripts: 0 for success, 1 for a failure, 2 for bad input of the operator."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ibkr_depth_pipeline.errors import ConfigurationError, DepthPipelineError


def echo_if_read(text: str) -> None:
    """Print a line on stdout. If that is a terminal that is gone or a closed pipe, the line is lost."""
    try:
        typer.echo(text)
    except OSError:
        # what is left in the buffer would fail again at the end, and cost the exit code
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


FAILED = 1
BAD_INPUT = 2


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn the project's own errors into lines on stderr and an exit code. Other errors are bugs and propagate."""
    try:
        yield
    except ConfigurationError as error:
        typer.echo(f"{error.where}:", err=True)
        for problem in error.problems:
            typer.echo(f"  {problem}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except DepthPipelineError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
