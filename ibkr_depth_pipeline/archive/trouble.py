"""Logs a failure that repeats at a bounded rate, and its end."""

from __future__ import annotations

import logging

from ibkr_depth_pipeline.logs import get_log

REMIND_SECS = 60.0
"""How often it is said that a trouble still lasts."""


class Trouble:
    """One kind of trouble, called `event` in the log: said when it begins, once a minute, and when it is over."""

    def __init__(self, event: str, level: int = logging.ERROR) -> None:
        self._event = event
        self._level = level
        self._said: float | None = None
        self._log = get_log()

    def tell(self, error: Exception | None, now: float, **about: object) -> None:
        """What went wrong this time, None if nothing did. `now` is seconds of any clock, `about` goes beside it."""
        if error is None:
            if self._said is not None:
                self._log.info(f"{self._event}_no_more")
            self._said = None
        elif self._said is None or now - self._said >= REMIND_SECS:
            self._said = now
            self._log.log(self._level, self._event, error=str(error), **about)
