"""`ibkr_depth_archive` as an operator runs it: exit codes and what it prints."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from ibkr_depth_pipeline.archive.layout import IdSpan, part_place
from ibkr_depth_pipeline.archive.parquet_schema import part_bytes
from ibkr_depth_pipeline.archive.reading import read_day
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline_tests.archive.conftest import (
    DAY,
    MS_PER_DAY,
    NOON,
    Desk,
    Mirror,
    ids_of,
    parts_of,
)
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), ("run", "compact", "check", "holes", "prune", "ARCHIVE_URL")),
        (("run",), ("--symbol", "--once", "--duration", "s3://")),
        (("check",), ("--calendar", "--least-coverage", "Exit code")),
    ],
)
def test_help_shows_a_newcomer_the_commands(desk: Desk, arguments: tuple[str, ...], told: tuple[str, ...]) -> None:
    done = desk.runs(*arguments, "--help", COLUMNS="200")
    assert done.returncode == 0
    assert all(word in done.stdout for word in told), done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_archiver_with_everything_kept(mirror: Mirror, desk: Desk, number: signal.Signals) -> None:
    mirror.write("SPY", range(1, 501))
    with desk.starts("run", ARCHIVE_FLUSH_ROWS="400") as process:
        assert wait_until(lambda: bool(parts_of(desk.store)), PATIENCE_SECS)
        mirror.write("SPY", range(501, 521), start=NOON + 1000)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode == 0
    assert "snapshots of 1 symbols kept" in printed
    desk.keep()
    assert desk.kept() == mirror.written


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of what a process has loaded")
def test_archiver_that_stores_files_has_no_pandas(mirror: Mirror, desk: Desk) -> None:
    pytest.importorskip("pandas")
    mirror.write("SPY", range(1, 501))
    with desk.starts("run", ARCHIVE_FLUSH_ROWS="400") as process:
        assert wait_until(lambda: bool(parts_of(desk.store)), PATIENCE_SECS)
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        process.terminate()
    assert "/pyarrow/" in loaded
    assert "/pandas/" not in loaded


def test_sound_day_is_ok_from_run_to_check(mirror: Mirror, desk: Desk) -> None:
    mirror.write("BRK B", range(1, 301), every=100)
    assert desk.runs("run", "--once").returncode == 0
    assert "BRK B: 1 parts, 300 snapshots" in desk.runs("compact", str(DAY)).stdout
    checked = desk.runs("check", str(DAY), "--calendar", "24/7")
    assert checked.returncode == 0, checked.stdout
    lines = checked.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"ok   BRK B {name}"
        for name in ("seq_without_holes", "books_ordered_and_not_crossed", "coverage", "row_counts")
    ]
    assert "covered_seconds 29.9" in lines[2]
    assert desk.runs("holes", str(DAY)).stdout == ""


def test_day_with_unknown_holes_and_too_little_coverage_fails(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 101))
    desk.keep()
    whole = read_day(desk.store, DAY, "SPY")
    desk.store.delete(parts_of(desk.store))
    for rows in (whole.slice(0, 40), whole.slice(60, 20)):  # a file was deleted by hand, and the newest one as well
        ids = ids_of(rows)
        span = IdSpan(ids[0], ids[-1])
        desk.store.put(part_place("SPY", DAY, span), part_bytes("SPY", span, rows))
    checked = desk.runs("check", str(DAY), "--calendar", "24/7", "--least-coverage", "0.5")
    assert checked.returncode == 1
    text = checked.stdout
    assert "seq 41 to 60: 20 missing" in text
    assert f"the newest snapshot is {NOON + 79}-80; in Redis it is {NOON + 99}-100" in text
    assert text.count("FAIL") == 3
    assert "at least 50.0% is asked for" in text


def test_holes_are_listed_with_their_reason(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2, 9])
    desk.keep()
    said = "SPY seq 3 to 8: 6 missing before 2026-01-05T12:00:00.002+00:00, never_stored\n"
    assert desk.runs("holes", str(DAY)).stdout == said
    assert desk.runs("holes", "--all").stdout == said
    assert desk.runs("holes", "2026-01-06").stdout == ""


def test_day_that_is_not_kept_is_reported_as_none(desk: Desk) -> None:
    for command in ("compact", "check"):
        done = desk.runs(command, "2020-01-01")
        assert (done.returncode, done.stdout) == (0, "nothing is kept of 2020-01-01\n")


def test_check_fails_for_a_session_of_which_nothing_is_kept(desk: Desk) -> None:
    done = desk.runs("check", "2020-01-02")
    assert (done.returncode, done.stdout) == (
        1,
        "FAIL nothing is kept of 2020-01-02, and the exchange was open that day\n",
    )
    assert desk.runs("check", "2020-01-01", "--calendar", "24/7").returncode == 1


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2300-01-01", "9999-12-31"])
def test_impossible_date_is_a_configuration_error(desk: Desk, day: str) -> None:
    done = desk.runs("check", day, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{day} is not allowed; a UTC date from 1970-01-01 to today" in done.stderr


def test_prune_deletes_by_the_setting_and_nothing_without_one(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1])
    mirror.write("SPY", [2], start=NOON + 8 * MS_PER_DAY)
    desk.keep()
    assert desk.runs("prune").stdout == "0 days deleted\n"
    assert desk.runs("prune", ARCHIVE_RETENTION_DAYS="7").stdout == f"1 days deleted: {DAY}\n"
    assert [entry.seq for entry in desk.kept()["SPY"]] == [2]


def test_archive_whose_newest_data_is_old_by_the_clock_is_kept(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2, 3], every=MS_PER_DAY)  # by this machine's clock all of it is long past the retention
    desk.keep()
    assert desk.runs("prune", ARCHIVE_RETENTION_DAYS="2").stdout == "0 days deleted\n"
    assert len(desk.kept()["SPY"]) == 3


def test_prune_deletes_few_dates_a_run_and_names_how_many_are_left(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 9), every=MS_PER_DAY)
    mirror.write("SPY", [9], start=NOON + 200 * MS_PER_DAY)  # as a clock ahead stamps it
    desk.keep()
    done = desk.runs("prune", ARCHIVE_RETENTION_DAYS="30").stdout
    assert done.startswith("5 days deleted: ")
    assert "3 more are past ARCHIVE_RETENTION_DAYS" in done
    assert desk.runs("prune", "--most", "9", ARCHIVE_RETENTION_DAYS="30").stdout.startswith("3 days deleted: ")


def test_wrong_setting_is_a_configuration_error_that_hides_the_password(desk: Desk) -> None:
    done = desk.runs("run", ARCHIVE_URL=f"sftp://me:{SECRET}@host/depth", ARCHIVE_FLUSH_SECS="never")
    assert done.returncode == 2
    assert "ARCHIVE_URL=" in done.stderr
    assert "ARCHIVE_FLUSH_SECS='never'" in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_unreachable_redis_is_a_failure(desk: Desk) -> None:
    done = desk.runs("run", REDIS_URL=f"redis://:{SECRET}@127.0.0.1:1/0")
    assert done.returncode == 1
    assert "error: Redis at redis://" in done.stderr
    assert SECRET not in done.stderr


def test_missing_extra_is_an_error_that_names_what_to_install(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError(\"No module named 'pyarrow'\", name='pyarrow')")
    done = desk.runs("run", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'ibkr_depth_pipeline[archive]'" in done.stderr


def test_log_is_json_a_line(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 5])
    done = desk.runs("run", "--once")
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert {"archive_started", "archive_hole", "archive_stopped"} <= set(events)
