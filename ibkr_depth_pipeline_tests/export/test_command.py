"""`ibkr_depth_archive export` as a user runs it: what it prints, its exit codes, and what stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ibkr_depth_pipeline.archive.parquet_schema import ROWS_PER_GROUP
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.cli.depth_archive import app
from ibkr_depth_pipeline.errors import ExportRefused
from ibkr_depth_pipeline.export.formats import ExportFormat
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.export.conftest import MakeSource, Source
from ibkr_depth_pipeline_tests.export.kept import NOON, keep_many, turn

COMMAND = Path(sysconfig.get_path("scripts")) / "ibkr_depth_archive"


def starts(source: Source, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(source.folder), "ARCHIVE_URL": source.store.url}
    return subprocess.Popen(
        [COMMAND, "export", *arguments],
        cwd=source.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


GOOD = {"date": "2026-01-05", "symbol": "SPY", "to": "parquet", "path": "spy.parquet"}


def runs(source: Source, monkeypatch: pytest.MonkeyPatch, **asked: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in this process; `asked` replaces what is good by default."""
    words = {**GOOD, **asked}
    path = words.pop("path")
    monkeypatch.chdir(source.folder)
    monkeypatch.setenv("ARCHIVE_URL", source.store.url)
    done = CliRunner().invoke(app, ["export", *(_option(*each) for each in words.items()), path])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def _option(name: str, word: str) -> str:
    return f"--{name}={word}" if word else f"--{name}"


def left_behind(source: Source) -> list[str]:
    return sorted(path.name for path in source.folder.iterdir() if path.name != "archive")


def test_export_names_its_files_and_what_is_in_them(rotation: Source) -> None:
    process = starts(rotation, "--date=2026-01-05", "--symbol=SPY", "--to=parquet", "spy.parquet")
    printed, complaints = process.communicate(timeout=PATIENCE_SECS)
    assert (process.returncode, complaints) == (0, "")
    assert "spy.parquet: 232 snapshots, 232 records, 17.8 s observed" in printed
    assert "spy.parquet.manifest.json: 3 intervals, 5 missing" in printed
    assert left_behind(rotation) == ["spy.parquet", "spy.parquet.manifest.json"]
    assert pq.read_metadata(rotation.folder / "spy.parquet").num_rows == 232


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        ({"symbol": "NOPE"}, 2, "'NOPE'"),
        ({"symbol": "NOPE"}, 2, "recorded are SPY"),
        ({"symbol": "spy"}, 2, "did you mean SPY?"),
        ({"date": "2026-01-06"}, 1, "there are 2026-01-05"),
        ({"date": "yesterday"}, 2, "--date 'yesterday' is not allowed; a UTC date such as 2026-01-05"),
        ({"date": "2026-02-30"}, 2, "--date '2026-02-30' is not allowed"),
        ({"to": "excel"}, 2, "'excel' is not allowed; one of parquet, csv, dbn, hftbacktest, nautilus"),
        ({"path": "nowhere/spy.parquet"}, 2, "nowhere is no folder that exists"),
        ({"path": "."}, 2, "is a folder"),
        ({"path": "archive"}, 2, "is a folder"),
        ({"from": "25:00"}, 2, "--from '25:00' is not allowed; a UTC time of that date, such as 14:30"),
        ({"from": "12:00", "until": "11:00"}, 2, "--from 12:00 is not before --until 11:00"),
        ({"snapshots": "some"}, 2, "--snapshots 'some' is not allowed; all or settled"),
        ({"to": "dbn", "rows": ""}, 2, "--rows is not allowed with --to dbn; it is with parquet and csv"),
        ({"to": "hftbacktest", "increments": ""}, 2, "--increments is not allowed with --to hftbacktest"),
        ({"increments": ""}, 1, "no rows of depth are kept of SPY on 2026-01-05 in that time"),
        ({"from": "13:00"}, 1, "was not observed at any time from 13:00:00 on, before 24:00:00"),
        ({"from": "12:00:10", "until": "12:00:50"}, 1, "it was: 12:00:00 to 12:00:05, 12:00:51 to 12:00:58"),
    ],
)
def test_wrong_option_is_named_with_the_allowed_ones_and_nothing_is_written(
    rotation: Source, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], code: int, told: str
) -> None:
    failed, printed, complaints = runs(rotation, monkeypatch, **asked)
    assert (failed, printed) == (code, ""), complaints
    assert told in complaints
    assert left_behind(rotation) == []


@pytest.mark.skipif(find_spec("nautilus_trader") is not None, reason="nautilus_trader is installed here")
def test_format_whose_library_is_missing_names_what_to_install(
    rotation: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, complaints = runs(rotation, monkeypatch, to="nautilus", path="catalog")
    assert code == 2
    assert "needs nautilus_trader, which is not installed: pip install 'ibkr_depth_pipeline[nautilus]'" in complaints
    assert left_behind(rotation) == []


def test_archive_that_is_empty_is_named_as_such(
    tmp_path: Path, source_of: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(turn(NOON, 1, 2))
    code, _, complaints = runs(source, monkeypatch, archive=str(tmp_path / "other"))
    assert code == 1
    assert f"archive {tmp_path / 'other'}: nothing is kept of 2026-01-05; it holds no snapshot at all" in complaints


def test_file_of_another_program_is_not_replaced_unless_forced(
    rotation: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = rotation.folder / "spy.parquet"
    notes.write_text("mine")
    code, _, complaints = runs(rotation, monkeypatch)
    assert (code, notes.read_text()) == (2, "mine")
    assert "--force replaces it" in complaints
    rotation.export(ExportFormat.PARQUET, force=True)
    assert pq.read_metadata(notes).num_rows == 232
    assert runs(rotation, monkeypatch)[0] == 0, "an export with its manifest is replaced"


def test_time_between_two_snapshots_of_a_turn_has_nothing_to_export(rotation: Source) -> None:
    with pytest.raises(ExportRefused, match="there is no snapshot of SPY"):
        rotation.export(ExportFormat.PARQUET, start_ms=NOON + 1_001, end_ms=NOON + 1_099)
    assert left_behind(rotation) == []


@pytest.mark.parametrize("form", [ExportFormat.PARQUET, ExportFormat.CSV, ExportFormat.DBN, ExportFormat.HFTBACKTEST])
def test_disk_that_takes_no_more_leaves_no_file(
    rotation: Source, monkeypatch: pytest.MonkeyPatch, form: ExportFormat
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        code, _, complaints = runs(rotation, monkeypatch, to=form.value, path="out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "PATH='out' can't be written" in complaints
    assert "File too large" in complaints
    assert left_behind(rotation) == []


def manifest_of(source: Source, form: ExportFormat, **asked: Any) -> dict[str, Any]:
    done = source.export(form, **asked)
    found: dict[str, Any] = json.loads(done.manifest_path.read_text())
    return found


@pytest.mark.parametrize("form", [ExportFormat.PARQUET, ExportFormat.CSV, ExportFormat.DBN, ExportFormat.HFTBACKTEST])
def test_manifest_names_source_rule_units_counts_intervals_holes_and_checksums(
    rotation: Source, form: ExportFormat
) -> None:
    found = manifest_of(rotation, form)
    assert found["source"] == {"archive": rotation.store.url, "date": "2026-01-05", "symbol": "SPY"}
    assert found["format"]["name"] == form.value
    assert found["counts"]["snapshots_in_archive"] == len(rotation.snapshots) == 232
    assert found["counts"]["missing"] == 5
    assert found["units"]["size"] == ["shares"]
    assert found["units"]["con_id"] == [265598]
    assert "one level" in found["rule"]["levels"]
    assert [(each["subscription"], each["first_seq"], each["last_seq"]) for each in found["intervals"]] == [
        (each.subscription, each.first_seq, each.last_seq) for each in rotation.intervals
    ]
    (hole,) = found["holes"]
    assert (hole["first_seq"], hole["last_seq"], hole["cause"]) == (130, 134, "never_stored")
    (file,) = found["files"]
    content = (rotation.folder / file["name"]).read_bytes()
    assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_manifest_of_part_of_a_day_lists_the_intervals_and_the_time_observed_within_it(rotation: Source) -> None:
    found = manifest_of(rotation, ExportFormat.CSV, start_ms=NOON + 4_940, end_ms=NOON + 52_000)
    assert [each["subscription"] for each in found["intervals"]] == [7, 8]
    assert found["observed_seconds"] == 2.0
    assert found["time_range"] == {
        "first": "2026-01-05T12:00:05.000+00:00",
        "last": "2026-01-05T12:00:51.900+00:00",
    }


def test_manifest_marks_intervals_that_were_not_recorded(source_of: MakeSource) -> None:
    (interval,) = manifest_of(source_of(turn(NOON, 1, 5), []), ExportFormat.CSV)["intervals"]
    assert (interval["subscription"], interval["recorded"]) == (None, False)


@pytest.mark.parametrize(
    ("form", "number"),
    [
        (ExportFormat.CSV, signal.SIGTERM),
        (ExportFormat.DBN, signal.SIGINT),
        (ExportFormat.HFTBACKTEST, signal.SIGTERM),
    ],
)
def test_interrupted_export_leaves_the_folder_as_it_was(
    tmp_path: Path, form: ExportFormat, number: signal.Signals
) -> None:
    source = Source(keep_many(tmp_path / "archive", 4 * ROWS_PER_GROUP), [], [], tmp_path)
    process = starts(source, "--date=2026-01-05", "--symbol=SPY", f"--to={form.value}", "out")
    assert wait_until(lambda: bool(left_behind(source)), PATIENCE_SECS), process.poll()
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode != 0
    assert left_behind(source) == []
