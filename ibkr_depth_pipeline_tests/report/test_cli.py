"""`ibkr_depth_report` as an operator runs it: exit codes and what it prints."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone

from ibkr_depth_pipeline_tests.archive.conftest import Desk, Mirror
from ibkr_depth_pipeline_tests.report.conftest import OPEN, Page

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_help_shows_a_newcomer_the_commands(command: Command) -> None:
    done = command("--help", COLUMNS="200")
    assert done.returncode == 0
    for word in ("DATE", "today", "--archive", "--symbol", "--output", "--calendar", "Exit code"):
        assert word in done.stdout


def test_page_is_written_and_its_path_printed(mirror: Mirror, desk: Desk, command: Command) -> None:
    mirror.write("SPY", range(1, 101), start=OPEN, every=1000)
    desk.keep()
    done = command("2026-01-05")
    page = desk.folder / "archive" / "reports" / "2026-01-05.html"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{page}: {page.stat().st_size} bytes, 100 snapshots\n"
    other = command("2026-01-05", "--archive", "archive", "--output", "my.html", "--calendar", "24/7", ARCHIVE_URL="no")
    assert other.stdout.startswith("my.html: ")
    assert "what was recorded, 14:30:00 to 14:31:39 UTC" in Page((desk.folder / "my.html").read_text()).text


def test_today_is_the_utc_date(mirror: Mirror, desk: Desk, command: Command) -> None:
    now = time.time_ns() // 1_000_000
    mirror.write("SPY", [1, 2], start=now)
    desk.keep()
    done = command("today")
    days = {datetime.fromtimestamp(now / 1000, timezone.utc).date(), datetime.now(timezone.utc).date()}
    if len(days) == 1:  # midnight has not come in between
        assert done.returncode == 0, done.stderr
        assert f"reports/{days.pop()}.html" in done.stdout


def test_day_without_snapshots_fails_in_one_line(command: Command) -> None:
    done = command("2026-01-05")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: archive ")
    assert "nothing is kept of 2026-01-05" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_argument_is_named(mirror: Mirror, desk: Desk, command: Command) -> None:
    mirror.write("SPY", [1, 2], start=OPEN)
    desk.keep()
    for arguments, told in (
        (["5.1.2026"], "DATE='5.1.2026' is not allowed; a UTC date such as 2026-01-05, or today"),
        (["2026-01-05", "--symbol", "SPX"], "nothing is kept of 'SPX' on 2026-01-05; of that date there are SPY"),
        (["2026-01-05", "--output", "no/page.html"], "no/page.html can't be written: No such file or directory"),
        (["2026-01-05", "--calendar", "XXXX"], "'XXXX' is not allowed"),
        (["2026-01-05", "--archive", "pigeon://loft"], "ARCHIVE_URL='pigeon://loft' can't be used"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert told in done.stderr
        assert "Traceback" not in done.stderr
