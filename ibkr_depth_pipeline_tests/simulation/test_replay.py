import csv
import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest

from ibkr_depth_pipeline.simulation.options import AtEnd, ReplayOptions, ReplayPace
from ibkr_depth_pipeline.simulation.replay import Moment, Replay, Tape, TapeError, read_tape, symbol_of
from ibkr_depth_pipeline.simulation.rows import (
    DELETE,
    INSERT,
    UPDATE,
    Book,
    BookLevel,
    RowStyle,
    apply_rows,
    rows_of_change,
)

BOOK_HEADER = "ts_ns,bp0,bp1,bs0,bs1,ap0,ap1,as0,as1"
ROW_HEADER = "batch,time_utc,position,market_maker,operation,side,price,size"


def written(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def small_tape(*seconds: float) -> Tape:
    books = [Book((BookLevel(10.0 + index, 1.0),), (BookLevel(99.0, 1.0),)) for index in range(len(seconds) + 1)]
    moments = tuple(Moment(at, book) for at, book in zip(seconds, books[1:], strict=True))
    return Tape(books[0], moments, holds_rows=False)


def waits(replay: Replay) -> list[tuple[float, int]]:
    """Each step's wait and number of changes."""
    steps = []
    while (step := replay.next_step()) is not None:
        steps.append((round(step.wait, 6), len(step.changes)))
    return steps


def test_books_are_read_with_their_prices_in_dollars(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "abc_x.csv",
        BOOK_HEADER,
        "1000000000,100100,100000,5,6,100200,100300,7,8",
        "1500000000,100100,100000,5,9,100200,,7,",
    )
    tape = read_tape(path, "NSDQ")
    assert tape.opening.bids == (BookLevel(10.01, 5, "NSDQ"), BookLevel(10.0, 6, "NSDQ"))
    assert tape.moments == (
        Moment(0.5, Book((BookLevel(10.01, 5, "NSDQ"), BookLevel(10.0, 9, "NSDQ")), (BookLevel(10.02, 7, "NSDQ"),))),
    )


def test_rows_are_read_by_batch_onto_a_placeholder_book(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "abc_rows.csv",
        ROW_HEADER,
        "0,2022-02-21T20:59:20+00:00,0,,1,1,1.5,10",
        "0,2022-02-21T20:59:20+00:00,0,,1,0,1.6,20",
        "1,2022-02-21T20:59:22+00:00,0,,1,1,1.4,30",
    )
    tape = read_tape(path)
    assert tape.opening == Book((BookLevel(1.5, 10),), (BookLevel(1.6, 20),))
    assert [(moment.at, len(moment.rows or ())) for moment in tape.moments] == [(0.0, 2), (2.0, 1)]
    assert tape.books[-1] == Book((BookLevel(1.4, 30),), (BookLevel(1.6, 20),))


def test_recording_that_opens_with_an_insert_starts_from_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "abc_rows.csv", ROW_HEADER, "0,2022-02-21T20:59:20+00:00,0,NSDQ,0,1,1.5,10")
    tape = read_tape(path)
    assert tape.opening == Book()
    assert tape.books[-1] == Book((BookLevel(1.5, 10, "NSDQ"),))


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (("a,b",), "line 1: neither books"),
        ((BOOK_HEADER,), "no line after the header"),
        ((BOOK_HEADER, "1,x,1,1,1,1,1,1,1"), "line 2: invalid literal"),
        ((ROW_HEADER, "0,yesterday,0,,1,1,1.5,10"), "line 2: Invalid isoformat"),
        ((ROW_HEADER, "0,2022-02-21T20:59:20+00:00,0,,2,1,0,0", "0,2022-02-21T20:59:20+00:00,0,,2,1,0,0"), "batch 0: "),
        ((), "neither books"),
    ],
)
def test_file_that_cannot_be_played_says_where_and_why(tmp_path: Path, lines: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(TapeError, match=complaint):
        read_tape(written(tmp_path, "abc.csv", *lines))


def test_missing_or_broken_file_is_a_tape_error(tmp_path: Path) -> None:
    broken = tmp_path / "abc.csv.gz"
    broken.write_bytes(gzip.compress(b"ts_ns,bp0,bs0,ap0,as0\n1,1,1,1,1\n")[:20])
    for path in (tmp_path / "none.csv", broken, tmp_path):
        with pytest.raises(TapeError):
            read_tape(path)


def test_symbol_of_a_file_is_the_start_of_its_name() -> None:
    assert symbol_of(Path("data/aapl_2012-06-21_l10.csv.gz")) == "aapl"
    assert symbol_of(Path("SPY.csv")) == "SPY"


def test_replay_goes_at_the_speed_of_the_recording() -> None:
    tape = small_tape(1.0, 1.0005, 3.0)
    assert waits(Replay(tape, ReplayOptions(path=Path()))) == [(1.0, 2), (1.9995, 1)]
    assert waits(Replay(tape, ReplayOptions(path=Path(), speed=2.0))) == [(0.5, 2), (0.99975, 1)]


def test_replay_goes_at_a_rate() -> None:
    tape = small_tape(*range(1, 11))
    assert waits(Replay(tape, ReplayOptions(path=Path(), pace=ReplayPace.RATE, rate=10))) == [(0.1, 1)] * 10
    assert waits(Replay(tape, ReplayOptions(path=Path(), pace=ReplayPace.RATE, rate=500))) == [(0.01, 5)] * 2


def test_replay_goes_as_fast_as_it_can() -> None:
    assert waits(Replay(small_tape(*range(1, 251)), ReplayOptions(path=Path(), pace=ReplayPace.FAST))) == [
        (0.0, 100),
        (0.0, 100),
        (0.0, 50),
    ]


def test_replay_stops_at_the_end_or_starts_over() -> None:
    tape = small_tape(1.0, 2.0)
    once = Replay(tape, ReplayOptions(path=Path(), pace=ReplayPace.RATE, rate=10))
    assert len(waits(once)) == 2
    assert once.over
    assert once.next_changes() == ()
    loop = Replay(tape, ReplayOptions(path=Path(), pace=ReplayPace.RATE, at_end=AtEnd.LOOP))
    books = [change.book for _ in range(7) for change in loop.next_changes()]
    assert books == [*tape.books[1:], *tape.books, *tape.books[:2]]


def test_every_real_change_is_sent_exactly(shared_data: Path) -> None:
    """All 25,000 changes of the shared file, against its own columns read independently of the tape."""
    path = shared_data / "aapl_2012-06-21_l10.csv.gz"
    tape = read_tape(path, "NSDQ")
    shown, kinds = tape.opening, {INSERT: 0, UPDATE: 0, DELETE: 0}
    with gzip.open(path, "rt") as file:
        records = csv.DictReader(file)
        assert _flat(shown) == _columns(next(records))
        for before, after in pairwise(tape.books):
            rows = rows_of_change(before, after, RowStyle.SHIFT)
            assert 1 <= len(rows) <= 2
            for row in rows:
                kinds[row.operation] += 1
            shown = apply_rows(shown, rows)
            assert _flat(shown) == _columns(next(records))
        assert next(records, None) is None
    assert kinds[INSERT] == kinds[DELETE] > 5000
    assert kinds[UPDATE] > 5000


def _flat(book: Book) -> list[int]:
    return [round(number) for side in book for level in side for number in (level.price * 10_000, level.size)]


def _columns(record: dict[str, str]) -> list[int]:
    return [int(record[f"{side}{kind}{n}"]) for side in "ba" for n in range(10) for kind in "ps"]


def test_recorded_rows_end_in_the_recorded_book(shared_data: Path) -> None:
    tape = read_tape(shared_data / "eurusd_idealpro_2022-02-21_rows.csv")
    final = json.loads((shared_data / "eurusd_idealpro_2022-02-21_final.json").read_text())["recorded_final_dom"]
    assert len(tape.opening.bids) == len(tape.opening.asks) == 5
    assert sum(len(moment.rows or ()) for moment in tape.moments) == 271
    assert [[level.price, level.size] for level in tape.books[-1].bids] == final["bids"]
    assert [[level.price, level.size] for level in tape.books[-1].asks] == final["asks"]
