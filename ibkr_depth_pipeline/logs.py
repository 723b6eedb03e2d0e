"""structlog: one JSON object per line on stderr, one event name per happening."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

Log = structlog.typing.FilteringBoundLogger


class _CurrentStderr:
    """Writes to whatever sys.stderr is at that moment, so that a runner which swaps it still gets the lines."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(level: str = "INFO") -> None:
    """Set structlog up for this process. `level` is one of LEVELS. Safe to call again."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(file=cast(Any, _CurrentStderr())),
        cache_logger_on_first_use=False,
    )
    # ib_insync logs every gateway error and notice as text; each of them reaches our own log as an event.
    logging.getLogger("ib_insync").setLevel(logging.CRITICAL)


def get_log(**bound: object) -> Log:
    """A logger with `bound` in each of its lines."""
    return cast(Log, structlog.get_logger(**bound))
