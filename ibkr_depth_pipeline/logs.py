"""The log (structlog): one JSON object per line on stderr, one name per kind of event; and a limit on its rate."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import structlog

LINES_PER_WINDOW = 100
EQUAL_LINES_PER_WINDOW = 5
REMIND_SECS = 60.0
ERRORS_PER_REMINDER = 5

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

Log = structlog.typing.FilteringBoundLogger


class _CurrentStderr:
    """Writes to the sys.stderr of the moment, so that a runner which swaps it still gets the lines.

    If nobody reads it any more (a closed pipe, a terminal that is gone), the line is lost: a log must not end a
    recording.
    """

    def write(self, text: str) -> int:
        with _no_reader_needed():
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        with _no_reader_needed():
            sys.stderr.flush()


@contextlib.contextmanager
def _no_reader_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # else, as on a full disk, the next line may be written
            return
        # What is left in the stream's buffer would fail again when Python flushes it at the end, and cost the exit
        # code: from here on the descriptor leads nowhere.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
    except ValueError:  # a stream that is closed
        pass


class _LibraryLog(logging.Handler):
    """Turns a log record of a library into one event of our log."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(library=record.name)
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        log.log(record.levelno, "library_log", text=record.getMessage(), **({"exc_info": exc_info} if exc_info else {}))


_LIBRARY_LOG = _LibraryLog()


def configure_logging(level: str = "INFO") -> None:
    """Configure structlog for this process. `level` is one of LEVELS. Safe to call again."""
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
    for library in ("asyncio", "redis"):
        logging.getLogger(library).addHandler(_LIBRARY_LOG)  # adding the same one again changes nothing
    # ib_insync logs every gateway error and notice as text; each of them reaches our own log as an event.
    logging.getLogger("ib_insync").setLevel(logging.CRITICAL)


def get_log(**bound: object) -> Log:
    """A logger with the fields `bound` in each of its lines."""
    return cast(Log, structlog.get_logger(**bound))


class LogRateLimit:
    """Allows LINES_PER_WINDOW lines per event and window, EQUAL_LINES_PER_WINDOW of them with equal text.

    Limits what a flood of errors elsewhere (the gateway, Redis) can log. The caller starts the windows.
    """

    def __init__(self) -> None:
        self._logged: Counter[str] = Counter()
        self._equal: Counter[tuple[str, str]] = Counter()
        self._suppressed: Counter[str] = Counter()

    def allows(self, event: str, text: str = "") -> bool:
        """Whether one more line of `event` may be logged now. `text` is the whole line; "" if no two are equal."""
        if self._logged[event] >= LINES_PER_WINDOW or (text and self._equal[event, text] >= EQUAL_LINES_PER_WINDOW):
            self._suppressed[event] += 1
            return False
        self._logged[event] += 1
        if text:
            self._equal[event, text] += 1
        return True

    def start_window(self) -> dict[str, int]:
        """Start the next window. Returns event -> lines suppressed in the window that ends."""
        suppressed, self._suppressed = self._suppressed, Counter()
        self._logged.clear()
        self._equal.clear()
        return dict(suppressed)


class RepeatedFailureLog:
    """Logs one kind of failure, as `event`, when it begins, every `remind_secs` while it lasts, and when it is over.

    An error that was not logged since the last reminder is logged at once, up to ERRORS_PER_REMINDER of them. Each
    line has how often it failed so far, and for how many seconds. over: the event of its end.
    """

    def __init__(
        self, event: str, remind_secs: float = REMIND_SECS, level: int = logging.ERROR, *, over: str = ""
    ) -> None:
        self._event = event
        self._remind_secs = remind_secs
        self._level = level
        self._over = over or f"{event}_no_more"
        self._failures = 0
        self._began = self._reminded_at = -math.inf
        self._logged: list[str] = []  # the errors since the last reminder
        self._log = get_log()

    def record(self, error: Exception | str | None, now: float, **fields: object) -> None:
        """The outcome of one attempt, None if it succeeded. `now` is seconds of any clock; `fields` are logged too."""
        if error is None:
            self.end(now)
            return
        if not self._failures:
            self._began, self._reminded_at = now, -math.inf
        self._failures += 1
        if now - self._reminded_at >= self._remind_secs:
            self._reminded_at = now
            self._logged.clear()
        if str(error) not in self._logged and len(self._logged) < ERRORS_PER_REMINDER:
            self._logged.append(str(error))
            self._log.log(self._level, self._event, error=str(error), **fields, **self._extent(now))

    def end(self, now: float, **fields: object) -> None:
        """It is over, if it had begun."""
        if self._failures:
            self._log.info(self._over, **fields, **self._extent(now))
            self._failures = 0

    def _extent(self, now: float) -> dict[str, object]:
        return {"failures": self._failures, "secs": round(now - self._began, 3)}
