"""The log: one JSON object a line on stderr, whatever is put in."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.logs import (
    EQUAL_LINES_PER_WINDOW,
    ERRORS_PER_REMINDER,
    LEVELS,
    LINES_PER_WINDOW,
    LogRateLimit,
    RepeatedFailureLog,
    configure_logging,
    get_log,
)

HOSTILE = '"}\n{"event": "forged", "level": "error"}\r\x1b[2J\u2028\x00'


@pytest.fixture(autouse=True)
def _structlog_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged since the last look; asserts that it went to stderr alone, one object a line."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "" or err.endswith("\n")
    return [json.loads(line) for line in err.splitlines()]


def test_line_holds_event_level_utc_time_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    get_log(run=1).info("subscribed", symbol="SPY", request_id=7)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "subscribed", "level": "info", "symbol": "SPY", "request_id": 7, "run": 1}


def test_hostile_text_can_not_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    get_log().info(HOSTILE, symbol=HOSTILE, text=[HOSTILE], bound={"a": HOSTILE})
    (line,) = lines(capsys)
    assert (line["event"], line["symbol"], line["text"], line["bound"]) == (HOSTILE, HOSTILE, [HOSTILE], {"a": HOSTILE})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(), st.one_of(st.text(), st.binary(), st.floats(), st.none(), st.lists(st.text())))
def test_any_event_and_value_are_one_line(capsys: pytest.CaptureFixture[str], text: str, value: object) -> None:
    configure_logging()
    capsys.readouterr()
    get_log().warning(text, value=value)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.isascii()
    assert json.loads(err)["event"] == text


@pytest.mark.parametrize("level", LEVELS)
def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure_logging(level)
    for name in LEVELS:
        getattr(get_log(), name.lower())(name)
    assert [line["event"] for line in lines(capsys)] == list(LEVELS[LEVELS.index(level) :])


def test_exception_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        get_log().exception("failed")
    (line,) = lines(capsys)
    assert "Traceback" in line["exception"]


def test_log_record_of_a_library_is_an_event_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()  # twice must not log twice
    loop = asyncio.new_event_loop()
    try:
        loop.call_exception_handler({"message": "lost\nhere", "exception": ValueError("why")})
    finally:
        loop.close()
    (line,) = lines(capsys)
    assert (line["event"], line["library"], line["level"]) == ("library_log", "asyncio", "error")
    assert line["text"].startswith("lost\nhere")
    assert "ValueError: why" in line["exception"]


def test_ib_insyncs_own_log_is_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("ib_insync.wrapper").error("Error 309, reqId 7: Max number (3) of market depth requests")
    assert lines(capsys) == []


def test_log_follows_a_swapped_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging()
    log = get_log()
    swapped = io.StringIO()
    monkeypatch.setattr("sys.stderr", swapped)
    log.info("here")
    assert json.loads(swapped.getvalue())["event"] == "here"


def test_logging_survives_a_stderr_without_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "nobody reads")

        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "nobody reads")

    def closed_stderr() -> io.StringIO:
        closed = io.StringIO()
        closed.close()
        return closed

    configure_logging()
    log, read_again = get_log(), io.StringIO()
    for stderr in (Broken(), closed_stderr(), read_again):
        monkeypatch.setattr("sys.stderr", stderr)
        log.info("written")
    assert json.loads(read_again.getvalue())["event"] == "written"


def test_event_has_its_own_limit_and_suppressed_lines_are_counted() -> None:
    limit = LogRateLimit()
    assert sum(limit.allows("gateway_notice") for _ in range(LINES_PER_WINDOW + 7)) == LINES_PER_WINDOW
    assert limit.allows("connection_lost")
    assert limit.start_window() == {"gateway_notice": 7}
    assert limit.allows("gateway_notice")
    assert limit.start_window() == {}


def test_equal_lines_have_a_lower_limit_than_different_ones() -> None:
    limit = LogRateLimit()
    assert sum(limit.allows("gateway_notice", "equal") for _ in range(20)) == EQUAL_LINES_PER_WINDOW
    assert limit.allows("gateway_notice", "another")
    assert limit.start_window() == {"gateway_notice": 20 - EQUAL_LINES_PER_WINDOW}


def test_lasting_failure_is_logged_at_intervals_with_its_count_and_duration_and_when_it_is_over() -> None:
    with capture_logs() as logged:
        failures = RepeatedFailureLog("read_failed", remind_secs=10.0)
        for now in range(25):
            failures.record(SinkUnavailable("Redis is away") if now >= 2 else None, float(now), symbols=["SPY"])
        failures.record(None, 25.0)
        failures.record(None, 26.0)
    line = {"event": "read_failed", "log_level": "error", "error": "Redis is away", "symbols": ["SPY"]}
    extents = [{"failures": 1, "secs": 0.0}, {"failures": 11, "secs": 10.0}, {"failures": 21, "secs": 20.0}]
    over = {"event": "read_failed_no_more", "log_level": "info", "failures": 23, "secs": 23.0}
    assert logged == [*(line | extent for extent in extents), over]


def test_failure_with_another_error_is_logged_at_once_each_error_once_between_reminders() -> None:
    with capture_logs() as logged:
        failures = RepeatedFailureLog("write_failed", remind_secs=10.0)
        for now in range(12):
            failures.record("away" if now % 2 else "loading", float(now))
        for number in range(2 * ERRORS_PER_REMINDER):
            failures.record(f"refused {number}", 12.0)
    began, reminded, rest = logged[:2], logged[2:4], logged[4:]
    assert [(line["error"], line["secs"]) for line in began] == [("loading", 0.0), ("away", 1.0)]
    assert [(line["error"], line["secs"]) for line in reminded] == [("loading", 10.0), ("away", 11.0)]
    assert len(rest) == ERRORS_PER_REMINDER - 2


def test_failure_that_begins_again_is_logged_at_once() -> None:
    with capture_logs() as logged:
        failures = RepeatedFailureLog("write_failed", over="back")
        for now, error in enumerate(["away", None, "away"]):
            failures.record(error, float(now))
    assert [line["event"] for line in logged] == ["write_failed", "back", "write_failed"]
    assert logged[-1]["failures"] == 1
