"""Pings of a dead man's switch: a service elsewhere that alerts when it hears nothing for a while.

It notices what nothing here can report: a daemon, a database of Dagster's or a host that is down. Nothing of the URL is
logged, since its path is a secret.
"""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.monitoring.state import DeadmanPing

EVERY_MS = 60_000
"""A change is reported at once."""

PATIENCE_SECS = 5.0

FAIL_QUERY = {"status": "down", "msg": "trouble"}
"""How Uptime Kuma is told: its URL has `status=up` in its query."""


def fail_url(url: str) -> str:
    """The URL that reports a failure: `status=down` for one with `status=up`, else with /fail behind its path."""
    parts = urllib.parse.urlsplit(url)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    if query.get("status") == "up":
        return parts._replace(query=urllib.parse.urlencode(query | FAIL_QUERY)).geturl()
    return parts._replace(path=f"{parts.path.rstrip('/')}/fail").geturl()


def ping(url: str, last: DeadmanPing, *, well: bool, now: int, patience: float = PATIENCE_SECS) -> DeadmanPing:
    """Ask for `url` if that is due at `now` (unix ms), or for its `fail_url` unless all is well.

    Takes at most `patience` seconds and raises nothing. One that was not answered is tried again at the next tick.
    """
    if not url or (well == last.well and now - last.ts < EVERY_MS):
        return last
    attempt = _Attempt(url if well else fail_url(url), patience)
    attempt.start()
    attempt.join(patience)  # a resolver that hangs is left behind
    if attempt.outcome:
        get_log().warning("deadman_not_reached", reason=attempt.outcome)
        return last
    return DeadmanPing(now, well)


class _Attempt(threading.Thread):
    """`outcome` is empty once the switch has answered."""

    def __init__(self, url: str, patience: float) -> None:
        super().__init__(name="deadman", daemon=True)
        self.outcome = "no answer in time"
        self._url = url
        self._patience = patience

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=self._patience):
                self.outcome = ""
        except urllib.error.HTTPError as error:
            self.outcome = f"it answers {error.code}"
            error.close()
        except (OSError, ValueError, http.client.HTTPException) as error:  # its text may hold the host
            self.outcome = type(error).__name__
