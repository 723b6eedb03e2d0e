"""A trouble is said when it begins, now and then while it lasts, and when it is over."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.archive import trouble
from ibkr_depth_pipeline.archive.trouble import Trouble
from ibkr_depth_pipeline.errors import SinkUnavailable

AWAY = SinkUnavailable("Redis is away")


def test_it_is_said_once_a_while_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "REMIND_SECS", 10.0)
    reading = Trouble("read_failed")
    with capture_logs() as logged:
        for now in range(25):
            reading.tell(AWAY if now >= 2 else None, float(now), symbols=["SPY"])
        reading.tell(None, 25.0)
        reading.tell(None, 26.0)
    said = {"event": "read_failed", "log_level": "error", "error": "Redis is away", "symbols": ["SPY"]}
    assert logged == [said] * 3 + [{"event": "read_failed_no_more", "log_level": "info"}]


def test_each_time_it_begins_it_is_said() -> None:
    reading = Trouble("read_failed")
    with capture_logs() as logged:
        for now, error in enumerate([AWAY, None, AWAY]):
            reading.tell(error, float(now))
    assert [line["event"] for line in logged] == ["read_failed", "read_failed_no_more", "read_failed"]
