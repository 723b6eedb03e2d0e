"""Exports for hftbacktest and nautilus_trader, read back by both packages and compared book by book.

Neither can live with the newest numpy or pandas: both are in an environment of their own, `.venv-exports` in the
repository's root, or the interpreter that EXPORTS_PYTHON names. `make exports` makes it; without it the tests skip.
"""

from __future__ import annotations

import json
import os
import subprocess
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.export.formats import ExportFormat
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.export.conftest import Source
from ibkr_depth_pipeline_tests.export.kept import (
    Side,
    books_by_price,
    rotated,
    settled_of,
)

PEERS = Path(__file__).parent / "peers"
PATIENCE_SECS = 110
TICK = 0.01
LAST, SNAPSHOT, MAYBE_BAD = 128, 32, 4


@pytest.fixture(scope="module")
def exports_python() -> str:
    python = os.environ.get("EXPORTS_PYTHON") or str(REPOSITORY / ".venv-exports" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"no {python}: `make exports` makes it, or name one with hftbacktest and nautilus_trader")
    return python


def run(python: str, *arguments: object) -> str:
    done = subprocess.run(
        [python, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECS,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},  # compiling takes longer than all of it
    )
    if "No module named" in done.stderr:
        pytest.skip(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- hftbacktest

Moment = tuple[int, Any, Any, list[list[float]], list[list[float]]]


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("rotation")
    return Source(*rotated(folder / "archive"), folder)


@pytest.fixture(scope="module")
def replayed(exports_python: str, rotation: Source, real: Source) -> dict[str, list[Moment]]:
    """What hftbacktest sees of the rotation and of the real book, replayed in one process."""
    sources = {"rotation": rotation, "real": real}
    paths = [each.export(ExportFormat.HFTBACKTEST, f"{name}.npz").path for name, each in sources.items()]
    found = json.loads(run(exports_python, PEERS / "hftbacktest_books.py", TICK, *paths))
    return dict(zip(sources, found, strict=True))


def seen_within(levels: list[list[float]], side: Side, *, rows: int) -> list[tuple[int, float]]:
    """What hftbacktest holds within the rows that were seen. Behind ten rows it may keep what it saw there before."""
    worst = round(side[-1][0] / TICK)
    nearest = [(int(tick), size) for tick, size in levels]
    reach = abs(worst - nearest[0][0])
    return [each for each in nearest if rows < 10 or abs(each[0] - nearest[0][0]) <= reach]


@pytest.mark.parametrize("name", ["rotation", "real"])
def test_hftbacktest_sees_each_settled_book(
    name: str, replayed: dict[str, list[Moment]], request: pytest.FixtureRequest
) -> None:
    source: Source = request.getfixturevalue(name)
    settled = settled_of(source.snapshots, source.intervals)
    times = [moment[0] for moment in replayed[name]]
    assert settled
    for snapshot, (ts, _, bids, asks) in zip(settled, books_by_price(settled), strict=True):
        at = bisect_right(times, ts * 1_000_000) - 1  # a book that is like the one before has no event
        _, best_bid, best_ask, seen_bids, seen_asks = replayed[name][at]
        assert (round(best_bid, 2), round(best_ask, 2)) == (bids[0][0], asks[0][0])
        for levels, side, rows in ((seen_bids, bids, snapshot.bids), (seen_asks, asks, snapshot.asks)):
            expected = [(round(price / TICK), size) for price, size, _ in side]
            assert seen_within(levels, side, rows=len(rows)) == expected, ts


def test_hftbacktest_has_no_book_while_nothing_is_observed(replayed: dict[str, list[Moment]], rotation: Source) -> None:
    first, second, _ = rotation.intervals
    unobserved = [each for each in replayed["rotation"] if each[1] is None]
    assert [each[0] // 1_000_000 for each in unobserved][:3] == [
        first.until,
        next(each.ts for each in rotation.snapshots if each.seq == 129),
        second.until,
    ]
    assert all(each[2:] == [None, [], []] for each in unobserved)


# ---- nautilus_trader


CASES = {"rotation": "settled", "real": "settled", "rotation, all": "all"}


@pytest.fixture(scope="module")
def catalogs(
    exports_python: str, tmp_path_factory: pytest.TempPathFactory, rotation: Source, real: Source
) -> dict[str, tuple[Path, list[dict[str, Any]]]]:
    """The folder of each case, and what nautilus_trader finds in it; all in one process."""
    sources = {"rotation": rotation, "real": real, "rotation, all": rotation}
    folders = {case: tmp_path_factory.mktemp("catalog") / "books" for case in CASES}
    words = [word for case in CASES for word in (CASES[case], sources[case].store.url, folders[case])]
    found = json.loads(run(exports_python, PEERS / "nautilus_books.py", *words))
    return {case: (folder, books) for (case, folder), books in zip(folders.items(), found, strict=True)}


def as_book(each: dict[str, Any]) -> tuple[int, int, Side, Side]:
    sides = ([tuple(level) for level in each[side]] for side in ("bids", "asks"))
    return each["ts_event"] // 1_000_000, each["seq"], *sides  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["rotation", "real"])
def test_nautilus_reads_each_settled_book(name: str, catalogs: dict[str, Any], request: pytest.FixtureRequest) -> None:
    source: Source = request.getfixturevalue(name)
    folder, found = catalogs[name]
    books = [each for each in found if each["bids"] or each["asks"]]
    assert list(map(as_book, books)) == books_by_price(settled_of(source.snapshots, source.intervals))
    assert {each["instrument"] for each in found} == {"SPY.ISLAND"}
    assert all(each["applied"] == [len(each["bids"]), len(each["asks"])] for each in found)
    assert all(before["ts_init"] <= after["ts_init"] for before, after in pairwise(found))
    (manifest,) = folder.glob("*.manifest.json")
    assert json.loads(manifest.read_text())["format"]["library"].startswith("nautilus_trader 1.221")


def test_nautilus_has_an_empty_book_where_nothing_is_known_and_all_snapshots_if_asked(
    catalogs: dict[str, Any], rotation: Source
) -> None:
    _, found = catalogs["rotation, all"]
    empty = [each for each in found if not each["bids"] and not each["asks"]]
    assert [as_book(each)[:2] for each in empty] == [
        (rotation.intervals[0].until, 79),
        (next(each.ts for each in rotation.snapshots if each.seq == 129), 129),
        (rotation.intervals[1].until, 178),
        (rotation.intervals[2].until, 237),
    ]
    assert {each["flags"] for each in empty} == {LAST | MAYBE_BAD}
    books = [each for each in found if each["bids"] or each["asks"]]
    assert list(map(as_book, books)) == books_by_price(rotation.snapshots)
    assert [each["seq"] for each in books if each["flags"] & SNAPSHOT] == [20, 99, 135, 198]
