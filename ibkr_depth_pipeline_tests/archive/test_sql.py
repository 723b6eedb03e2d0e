"""`ibkr_depth_archive list` and `sql`: what is kept, in any state of the files, and questions about it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ibkr_depth_pipeline.archive.archived_day import open_day
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.cli.depth_archive import app
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, observed, parts_of

pytest.importorskip("duckdb")
from ibkr_depth_pipeline.archive.sql import query


def command(desk: Desk, *words: str) -> Result:
    """The command in this process: starting another one takes longer than all that it does."""
    return CliRunner().invoke(app, list(words), env=desk.environment, catch_exceptions=False)


STATES = ("parts", "compacted", "covered parts left", "older layout")


@pytest.fixture(params=STATES)
def archive(request: pytest.FixtureRequest, mirror: Mirror, desk: Desk) -> Desk:
    """SPY with two turns, a refusal between them, a hole, and two snapshots of one read; BRK B without a record."""
    mirror.write("SPY", range(1, 5), start=NOON)
    mirror.write("SPY", range(7, 11), start=NOON + 20_000, every=10)
    mirror.write("SPY", [11], start=NOON + 20_030)
    mirror.write("BRK B", range(1, 4), every=500)
    mirror.write_interval(observed(1, 1, 4, at=0, complete=2, until=1500), NOON + 1600)
    mirror.write_interval(SubscriptionInterval("SPY", 2, "ISLAND", requested=NOON, end=EndReason.REFUSED), NOON + 1700)
    mirror.write_interval(observed(3, 7, 11, at=20_000, complete=20_010, until=22_500), NOON + 22_600)
    desk.keep()
    root, parts = Path(desk.settings.archive_url), parts_of(desk.store)
    if request.param == "older layout":
        (root / "books").rename(root / "parts")
    elif request.param != "parts":
        contents = [(root / place.name).read_bytes() for place in parts]
        compact_day(desk.store, DAY)
        if request.param == "covered parts left":  # as a kill leaves them where folders can't be swapped
            for place, content in zip(parts, contents, strict=True):
                desk.store.put(place, content)
                desk.store.note_unfinished(place)
    return desk


def test_views_hold_each_entry_once(archive: Desk) -> None:
    names, rows = query(archive.store, "SELECT date, symbol, count(*), sum(seq) FROM books GROUP BY ALL ORDER BY ALL")
    assert names[:2] == ["date", "symbol"]
    assert rows == [(DAY, "BRK B", 3, 6), (DAY, "SPY", 9, 55)]
    _, rows = query(archive.store, 'SELECT symbol, subscription, "end" FROM intervals ORDER BY subscription')
    assert rows == [("SPY", 1, "turn_over"), ("SPY", 2, "refused"), ("SPY", 3, "turn_over")]
    assert query(archive.store, "SELECT symbol, first_seq, last_seq FROM holes")[1] == [("SPY", 5, 6)]
    assert query(archive.store, "SELECT count(*) FROM rows")[1] == [(0,)]


def test_observed_books_are_those_of_the_reading_api(archive: Desk) -> None:
    table = pa.Table.from_batches(list(open_day(archive.store, DAY, "SPY").batches(("seq", "subscription", "settled"))))
    text = "SELECT seq, subscription, settled FROM observed_books WHERE symbol = 'SPY' ORDER BY ts, seq"
    _, rows = query(archive.store, text)
    assert rows == [tuple(row.values()) for row in table.to_pylist()]
    assert [settled for _, _, settled in rows] == [False, False, True, True, False, True, True, False, True]


def test_list_shows_what_is_kept_and_for_how_long_it_was_observed(archive: Desk) -> None:
    done = command(archive, "list", "--json")
    listed = json.loads(done.stdout)
    assert listed["archive"] == archive.settings.archive_url
    spy = {
        "date": str(DAY),
        "symbol": "SPY",
        "snapshots": 9,
        "observed_ms": 1500 + 2500,
        "intervals": 2,
        "inferred": False,
        "holes": 1,
        "missing": 2,
    }
    found = {day["symbol"]: day for day in listed["days"]}
    assert list(found) == ["BRK B", "SPY"]
    assert found["SPY"].pop("bytes") > 0
    assert found["SPY"] == spy
    assert (found["BRK B"]["observed_ms"], found["BRK B"]["inferred"]) == (1000, True)
    shown = command(archive, "list", "--symbol", "BRK B", "--date", str(DAY))
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [["date", "symbol"], [str(DAY), "BRK"]]


def test_sql_answers_with_a_table_or_with_comma_separated_values(mirror: Mirror, desk: Desk) -> None:
    mirror.write("BRK B", range(1, 4))
    desk.keep()
    text = "SELECT symbol, max(seq) AS newest FROM books GROUP BY symbol"
    shown = desk.runs("sql", text)
    assert shown.stdout == "symbol  newest\nBRK B   3\n"
    assert f"archive {desk.settings.archive_url}" in shown.stderr
    as_csv = desk.runs("sql", text, "--csv").stdout.splitlines()
    assert list(csv.reader(as_csv)) == [["symbol", "newest"], ["BRK B", "3"]]


def test_archive_option_goes_before_the_setting_on_every_command(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1])
    elsewhere = str(desk.folder / "elsewhere")
    assert f"of the archive {elsewhere}" in command(desk, "run", "--once", "--archive", elsewhere).stdout
    assert not Path(desk.settings.archive_url).exists()
    for words in (["compact", str(DAY)], ["check", str(DAY)], ["holes"], ["prune"], ["convert"], ["list"]):
        done = command(desk, *words, "--archive", elsewhere)
        assert f"archive {elsewhere}" in done.stderr, words
    assert "SPY" in command(desk, "list", "--archive", elsewhere).stdout


@pytest.mark.parametrize("text", ["SELECT nothing FROM books", "SELECT * FROM no_view", "SELECT FROM WHERE"])
def test_query_that_cannot_be_answered_is_an_error_that_names_the_views(desk: Desk, text: str) -> None:
    with pytest.raises(ConfigurationError, match="observed_books, intervals, rows, holes"):
        query(desk.store, text)


def test_missing_duckdb_is_an_error_that_names_the_extra(desk: Desk) -> None:
    (desk.folder / "duckdb.py").write_text("raise ModuleNotFoundError(\"No module named 'duckdb'\", name='duckdb')")
    done = desk.runs("sql", "SELECT 1", PYTHONPATH=str(desk.folder))
    assert done.returncode == 2
    assert "pip install 'ibkr_depth_pipeline[sql]'" in done.stderr
