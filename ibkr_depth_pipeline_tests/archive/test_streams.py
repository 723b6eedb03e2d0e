"""A failure that repeats is logged when it begins, now and then while it lasts, and when it is over."""

from __future__ import annotations

from structlog.testing import capture_logs

from ibkr_depth_pipeline.archive.streams import RepeatedFailureLog
from ibkr_depth_pipeline.errors import SinkUnavailable

AWAY = SinkUnavailable("Redis is away")


def test_lasting_failure_is_logged_at_intervals_and_when_it_is_over() -> None:
    failures = RepeatedFailureLog("read_failed", remind_secs=10.0)
    with capture_logs() as logged:
        for now in range(25):
            failures.record(AWAY if now >= 2 else None, float(now), symbols=["SPY"])
        failures.record(None, 25.0)
        failures.record(None, 26.0)
    line = {"event": "read_failed", "log_level": "error", "error": "Redis is away", "symbols": ["SPY"]}
    assert logged == [line] * 3 + [{"event": "read_failed_no_more", "log_level": "info"}]


def test_failure_that_begins_again_is_logged_at_once() -> None:
    failures = RepeatedFailureLog("read_failed", remind_secs=60.0)
    with capture_logs() as logged:
        for now, error in enumerate([AWAY, None, AWAY]):
            failures.record(error, float(now))
    assert [line["event"] for line in logged] == ["read_failed", "read_failed_no_more", "read_failed"]
