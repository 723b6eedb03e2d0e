"""The engine's log, worded for the person at the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from ibkr_depth_pipeline.box.run_folder import LogFollower, RotationLines


def happening(event: str, **fields: object) -> str:
    return json.dumps({"event": event, "level": "info", "timestamp": "2026-03-02T14:30:00.5Z", **fields})


def test_rotation_shows_its_symbols_and_the_snapshots_so_far() -> None:
    lines = RotationLines()
    assert lines.line_for(happening("snapshots_persisted", symbol="SPY", snapshots=1200, seq=1200)) is None
    assert lines.line_for(happening("snapshots_persisted", symbol="QQQ", snapshots=34, seq=34)) is None
    shown = lines.line_for(happening("rotation_started", symbols=["AAPL", "MSFT"], batch_size=2, turn=7))
    assert shown is not None
    assert "rotation 7: AAPL MSFT" in shown
    assert "1,234 snapshots so far" in shown
    assert (lines.rotations, lines.snapshots) == (1, 1234)


def test_error_is_shown_with_its_details() -> None:
    shown = RotationLines().line_for(happening("redis_write_failed", level="error", symbol="SPY", error="OOM"))
    assert shown is not None
    assert shown.endswith("ERROR redis_write_failed symbol=SPY error=OOM")


def test_log_lines_of_other_events_are_skipped() -> None:
    lines = RotationLines()
    for raw in (happening("subscribed", symbol="SPY"), "Traceback (most recent call last):", "[1, 2]", "7", ""):
        assert lines.line_for(raw) is None


def test_rotation_without_a_readable_time_is_shown_all_the_same() -> None:
    shown = RotationLines().line_for(happening("rotation_started", symbols=["SPY"], turn=1, timestamp="soon"))
    assert shown is not None
    assert "rotation 1: SPY" in shown


def test_follower_gives_each_complete_line_once_also_of_files_that_come_later(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path, "*/logs/*.err")
    assert list(follower.new_lines()) == []
    first = tmp_path / "a" / "logs" / "step.err"
    first.parent.mkdir(parents=True)
    first.write_text("one\ntwo\nthr")
    assert list(follower.new_lines()) == ["one", "two"]
    assert list(follower.new_lines()) == []
    with first.open("a") as log:
        log.write("ee\n")
    second = tmp_path / "b" / "logs" / "step.err"
    second.parent.mkdir(parents=True)
    second.write_text("four\n")
    assert list(follower.new_lines()) == ["three", "four"]
