"""Tells a stalled gateway from a quiet market. Pure: time is an argument, in seconds of any clock that never goes back.

An open socket says nothing about data. Rows that stop coming are no proof of a stall either: at night there are none.
So the gateway is asked for its time at regular intervals, and given up where, for as long as the limit, neither rows
came nor the answer to such a question. While rows come, a question that stays unanswered is asked again.
"""

from __future__ import annotations

from enum import Enum

LONGEST_INTERVAL_SECS = 5.0
"""The answers are also what heartbeats of quiet books rest on, so the gateway is asked at least this often."""


class KeepaliveAction(Enum):
    """What to do now."""

    WAIT = "wait"
    ASK = "ask"  # for the gateway's time
    GIVE_UP = "give up"  # the connection


class StallDetector:
    """Over one connection at a time. limit: how long rows and answer may both be missing before it is given up.

    The caller owes: `connected` when a connection begins, `look` every `interval` or so, `answered` when an answer
    comes. A stall is then given up about `limit` after the last row or, in a quiet market, after it began.
    """

    def __init__(self, limit: float) -> None:
        self.interval = min(limit / 4, LONGEST_INTERVAL_SECS)
        self._limit = limit
        self._patience = limit / 2  # for an answer
        self._rows = 0
        self._row_at = 0.0
        self._asked_at: float | None = None  # of the oldest question that is unanswered
        self._ask_at = 0.0

    def connected(self, now: float, rows: int) -> None:
        """A connection begins; `rows` is the number of rows received so far in this run."""
        self._rows, self._row_at = rows, now
        self._asked_at, self._ask_at = None, now

    def look(self, now: float, rows: int) -> KeepaliveAction:
        """What to do, with `rows` received so far in this run."""
        if rows != self._rows:
            self._rows, self._row_at = rows, now
        asked_at = now if self._asked_at is None else self._asked_at
        if now - asked_at >= self._patience and now - self._row_at >= self._limit:
            return KeepaliveAction.GIVE_UP
        if now < self._ask_at:
            return KeepaliveAction.WAIT
        self._asked_at, self._ask_at = asked_at, now + 2 * self.interval
        return KeepaliveAction.ASK

    def answered(self, now: float) -> None:
        """The gateway has answered: it lives."""
        self._asked_at = None
        self._ask_at = now + self.interval

    def silent_secs(self, now: float) -> tuple[float, float]:
        """Since when there was no row, and since when the open question waits, in seconds."""
        return now - self._row_at, 0.0 if self._asked_at is None else now - self._asked_at
