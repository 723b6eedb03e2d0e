"""The terminal of a box: keys without echo, alerts as on a phone, lines that say what is on and what is stale."""

from __future__ import annotations

import json
import os
import pty
import sys
import termios
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ibkr_depth_pipeline.box.alerts import AlertReceiver, ReceivedAlert
from ibkr_depth_pipeline.box.keyboard import keyboard
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.box.run_folder import RotationLines
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.monitoring.delivery import deliver
from ibkr_depth_pipeline.monitoring.state import AlertOutbox
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: a person's, and the program's."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def test_keys_are_read_one_by_one_and_the_terminal_is_restored(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    person, program = terminal
    before = termios.tcgetattr(program)
    monkeypatch.setattr("ibkr_depth_pipeline.box.keyboard._in_foreground", lambda descriptor: True)
    with os.fdopen(os.dup(program)) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with keyboard() as keys:
            assert keys.there
            assert keys.pressed() == ""
            modes = termios.tcgetattr(program)
            assert not modes[3] & (termios.ECHO | termios.ICANON)
            assert modes[3] & termios.ISIG, "Ctrl-C must stay a signal"
            os.write(person, b"gk")
            typed = ""

            def read() -> bool:
                nonlocal typed
                typed += keys.pressed()
                return typed == "gk"

            assert wait_until(read, PATIENCE_SECS)
        assert termios.tcgetattr(program) == before


def test_no_key_is_read_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"g")
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w"):
        monkeypatch.setattr(sys, "stdin", stdin)
        with keyboard() as keys:
            assert not keys.there
            assert keys.pressed() == ""


def test_alert_of_a_sensor_reaches_the_terminal_as_a_phone_shows_it() -> None:
    alert = Alert(
        unix_ms(), AlertKind.TROUBLE, "gateway", "IBKR depth default: feed stale", "Likely cause: x.\nFor 3 s."
    )
    with AlertReceiver() as receiver:
        outbox = deliver(AlertOutbox(), (alert,), (receiver.url,), unix_ms())
        assert not outbox.pending
        [received] = receiver.new()
    assert received.of_trouble
    assert received.lines() == [
        "┏━ ALERT  IBKR depth default: feed stale",
        "┃  Likely cause: x.",
        "┃  For 3 s.",
        "┗━",
    ]
    assert ReceivedAlert(0, "success", "all is well", "").lines()[0] == "┏━ RECOVERED  all is well"


def test_what_is_no_alert_is_refused() -> None:
    with AlertReceiver() as receiver:
        for body in (b"", b"[1]", b"{"):
            request = urllib.request.Request(receiver.url.replace("json:", "http:"), body, method="POST")
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(request, timeout=10)
        assert list(receiver.new()) == []


def test_rotation_says_rows_a_second_and_what_is_stale() -> None:
    lines = RotationLines()

    def rotation(second: int) -> str:
        happening = {"event": "rotation_started", "timestamp": f"2026-03-02T14:30:{second:02}Z", "symbols": ["SPY"]}
        return lines.line_for(json.dumps(happening)) or ""

    assert "- rows/s" in rotation(0)
    lines.line_for(json.dumps({"event": "snapshots_persisted", "snapshots": 3000}))
    lines.stale = ("QQQ", "IWM")
    shown = rotation(5)
    assert "600 rows/s" in shown
    assert shown.endswith("stale: QQQ IWM")
    lines.stale = ()
    assert "stale" not in rotation(10)
