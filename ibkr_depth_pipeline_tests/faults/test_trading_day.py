"""The day of `make run` from the probe to Terminate, in a real browser."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pty
import select
import subprocess
import termios
from pathlib import Path

import pytest

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline_tests.box.day_in_a_box import DayInABox, day_in_a_box
from ibkr_depth_pipeline_tests.box.running_box import COMMAND
from ibkr_depth_pipeline_tests.dagster.browser import CHROMIUM

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
PICTURES = ("probe", "run", "lineage", "plots", "failing-check", "coverage", "report", "watch", "box")
MARKET = ("market-light", "market-dark", "market-phone")


@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="the package playwright is missing")
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium")
def test_day_of_make_run_goes_from_probe_to_outage_recovery_close_and_terminate(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    day_in_a_box(tmp_path, pictures, DayInABox.walk)
    assert {path.stem for path in pictures.glob("*.png")} == {*PICTURES, *MARKET}


class Terminal:
    """A terminal with a box in its foreground, and the person at it."""

    def __init__(self, folder: Path) -> None:
        self.shown = ""
        self._person, self.device = pty.openpty()
        self.process = subprocess.Popen(
            [COMMAND, "--symbol", "SPY", "--symbol", "QQQ"],
            stdin=self.device,
            stdout=self.device,
            stderr=self.device,
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def shows(self, text: str) -> None:
        """Wait until it stands there."""

        def there() -> bool:
            while select.select([self._person], [], [], 0)[0]:
                self.shown += os.read(self._person, 65536).decode(errors="replace")
            return text in self.shown or self.process.poll() is not None

        assert wait_until(there, 240), self.shown
        assert text in self.shown, self.shown

    def types(self, keys: bytes) -> None:
        os.write(self._person, keys)


def test_key_in_the_terminal_plays_a_fault_and_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    before = termios.tcgetattr(terminal.device)
    try:
        terminal.shows("r redis_paused")
        terminal.shows("rotation 2")
        terminal.types(b"xr")
        terminal.shows("Fault: Redis stops answering for 10 s")
        terminal.shows("Measured: Redis stops answering for 10 s: noticed after")
        assert "rows lost: 0" in terminal.shown
        terminal.types(b"\x03")
        terminal.shows("Stopped.")
        assert terminal.process.wait(60) == 0
        assert termios.tcgetattr(terminal.device) == before
    finally:
        terminal.process.kill()
        terminal.process.wait()
