"""The studies of examples/, each on a Redis and on an archive; and how they end."""

from __future__ import annotations

import importlib
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.archive.archiver import run_archiver
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.reader import open_reader
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline_tests.reader.filling import Filler
from ibkr_depth_pipeline_tests.reader.test_resampling import turn

pytest.importorskip("polars")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STUDIES = {
    "spread_and_mid": r"SPY +┆ 103 +┆ 5\.97. +┆ 0\.2 ",
    "imbalance_next_move": r"SPY +┆ -?0\.0 +┆ \d+",
    "depth_within": r"SPY +┆ 30",
    "cost_to_fill": r"SPY +┆ 30 +┆ 1\.0",
    "order_flow_imbalance": r"SPY +┆ -?\d\.\d+ +│",
    "coverage": r"SPY +┆ 3 +┆ 5\.9\d+ +┆ 0\.05",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where three turns of SPY, of two seconds and ten books each, are kept: 50 s apart."""
    folder = tmp_path_factory.mktemp("examples")
    with EmbeddedRedis() as server:
        chance = random.Random(1)
        with Filler(server.url) as filler:
            for number in range(1, 4):
                bids = [round(100 + chance.randrange(10) / 10, 2) for _ in range(10)]
                turn(filler, number, *((200, bid, bid + 0.2) for bid in bids), live_ms=190)
                filler.ts += 48_000
        settings = load_settings(redis_url=server.url, archive_url=str(folder / "archive"), archive_flush_secs=0.2)
        run_archiver(settings, once=True)
        yield {"REDIS_URL": server.url, "ARCHIVE_URL": settings.archive_url}


@pytest.mark.parametrize("place", ["REDIS_URL", "ARCHIVE_URL"])
@pytest.mark.parametrize("name", STUDIES)
def test_study_prints_its_tables(
    places: dict[str, str], name: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("POLARS_TABLE_WIDTH", "200")
    study: Any = importlib.import_module(name)
    with open_reader(places[place]) as reader:
        study.study(reader, ["SPY"], start=None, end=None)
        only = capsys.readouterr().out
        study.study(reader, None, start="2023-11-14T22:13:20Z", end=None)
    assert re.search(STUDIES[name], only), only
    assert capsys.readouterr().out == only


def test_every_example_is_below_forty_lines() -> None:
    found = {path.stem: path.read_text().splitlines() for path in EXAMPLES.glob("*.py")}
    assert set(STUDIES) <= set(found)
    assert {name: len(lines) for name, lines in found.items() if len(lines) >= 40} == {}


def run(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *words]
    return subprocess.run(command, env={"PYTHONWARNINGS": "error", **environment}, capture_output=True, text=True)


def test_study_is_run_from_the_shell_and_errors_are_told_in_words(places: dict[str, str]) -> None:
    done = run("coverage", "SPY", "--start", "2023-11-14", ARCHIVE_URL=places["ARCHIVE_URL"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "turn_over" in done.stdout
    wrong = run("coverage", "SPX", REDIS_URL=places["REDIS_URL"])
    assert wrong.returncode == 1
    assert re.match(r"nothing is recorded under 'SPX' in Redis at .*did you mean SPY\?", wrong.stderr)
    assert "REDIS_URL" in run("coverage", REDIS_URL="redis://127.0.0.1:1/0").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_study_that_waits_for_a_mute_redis_ends_on_a_signal_without_a_traceback(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        command = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, str(EXAMPLES / "coverage.py")]
        with subprocess.Popen(command, env={"REDIS_URL": url}, stdout=-1, stderr=-1) as process:
            connection, _ = server.accept()
            process.send_signal(number)
            output, errors = process.communicate()
            connection.close()
    assert (process.returncode, output, errors) == (128 + number, b"", b"")
