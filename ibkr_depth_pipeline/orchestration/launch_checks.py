"""Config that is refused before launch.

Dagster checks types against the schema, and calls the mapping of a `configured` definition while it plans a run,
before the run exists. Checked there, a bad value is an error in the Launchpad and leaves no run behind.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.settings import load_settings


def refuse(error: ConfigurationError) -> dg.DagsterInvalidConfigError:
    """What to raise in a mapping, for the Launchpad to show. Never with the config itself: it may hold a secret."""
    return dg.DagsterInvalidConfigError(f"This run config is refused. {error}", [], {})  # type: ignore[no-untyped-call]


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise where one of these settings is bad. What the environment says of others is judged when the run starts."""
    try:
        load_settings(**overrides)
    except ConfigurationError as error:
        blamed = [problem for problem in error.problems if problem.partition("=")[0].lower() in overrides]
        if blamed:
            raise refuse(ConfigurationError(error.where, blamed)) from None
