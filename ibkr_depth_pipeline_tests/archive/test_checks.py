"""The checks: what they pass, what they name, and that they miss nothing that is planted."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.archive.checks import (
    TRANSIENT_MS,
    Array,
    BookFaults,
    IngestSays,
    book_faults,
    check_books,
    check_counts,
    check_coverage,
    check_sequence,
)
from ibkr_depth_pipeline.archive.reading import name_codes
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.simulation.catalogue import DEPTH_VENUES, KNOWN
from ibkr_depth_pipeline.simulation.market import SyntheticMarket
from ibkr_depth_pipeline_tests.archive.conftest import NOON


def numbers(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def gap(first: int, last: int, next_ts: int = NOON) -> Gap:
    return Gap("SPY", first - 1, last + 1, next_ts, GapCause.TRIMMED, StreamId(NOON, first - 1))


# ---- seq


def test_consecutive_numbers_pass() -> None:
    assert check_sequence(numbers(1, 1, 2), numbers(7, 8, 9), []).passed


@given(st.sets(st.integers(1, 40), min_size=1), st.sets(st.integers(1, 40)))
def test_every_missing_number_is_found_unless_a_hole_names_it(present: set[int], named: set[int]) -> None:
    seq = numbers(*sorted(present))
    missing = set(range(min(present), max(present) + 1)) - present
    finding = check_sequence(seq + NOON, seq, [gap(each, each) for each in sorted(named)])
    assert finding.figures["unknown_missing"] == len(missing - named)
    assert finding.passed == (missing <= named)


def test_day_before_is_part_of_the_sequence() -> None:
    assert check_sequence(numbers(NOON), numbers(5), [], before=StreamId(NOON - 1, 4)).passed
    assert not check_sequence(numbers(NOON), numbers(6), [], before=StreamId(NOON - 1, 4)).passed


def test_double_is_a_problem_and_a_new_beginning_is_none() -> None:
    assert not check_sequence(numbers(1, 1), numbers(5, 5), []).passed
    anew = check_sequence(numbers(1, 2), numbers(5, 1), [])
    assert anew.passed
    assert anew.figures["renumbered"] == 1


def test_numbers_that_fall_go_on_from_the_highest_that_there_was_below_them() -> None:
    ts = numbers(1, 2, 3, 4)
    assert check_sequence(ts, numbers(5, 6, 7, 6), []).passed
    assert not check_sequence(ts, numbers(5, 6, 8, 7), [gap(7, 7)]).figures["unknown_missing"]
    assert check_sequence(ts, numbers(5, 6, 7, 4), []).figures["unknown_missing"] == 3
    assert check_sequence(ts, numbers(5, 6, 7, 4), [gap(1, 3)]).passed


def test_time_that_falls_is_a_problem() -> None:
    assert not check_sequence(numbers(2, 1), numbers(1, 2), []).passed


# ---- books


def faults_of(bids: list[float], asks: list[float]) -> BookFaults:
    """Of one book; a price of 0 is an empty level."""
    rows = [np.array([side + [0.0] * (10 - len(side))]) for side in (bids, asks)]
    sizes = [(row != 0).astype(float) for row in rows]
    return book_faults(rows[0], sizes[0], rows[1], sizes[1])


def test_ordered_book_an_empty_one_and_one_with_an_empty_side_are_sound() -> None:
    for bids, asks in (([9.0, 8.0], [10.0, 11.0]), ([], []), ([9.0], []), ([], [10.0])):
        assert not faults_of(bids, asks).any.any()


def test_each_fault_of_a_book_has_its_name() -> None:
    assert faults_of([9.0, 9.0], [10.0]).unordered.all()
    assert faults_of([8.0, 9.0], [10.0]).unordered.all()
    assert faults_of([9.0], [11.0, 10.0]).unordered.all()
    assert faults_of([10.0], [10.0]).crossed.all()
    assert faults_of([9.0, 0.0, 7.0], [10.0]).gapped.all()


@pytest.mark.parametrize("venue", ["ISLAND", "ARCA"])
def test_market_whose_makers_share_prices_is_sound_and_a_name_that_repeats_a_price_is_not(venue: str) -> None:
    market = SyntheticMarket(1, next(each for each in KNOWN if each.name == "QQQ"), DEPTH_VENUES[venue, "STK"])
    books = [book.clipped(10) for book in islice(market.books(), 500)]
    names = {level.market_maker for book in books for level in book.bids + book.asks}
    codes_of = {name: code for code, name in enumerate(names)}
    prices, sizes, codes = (
        [np.array([[of(level) for level in getattr(book, side)] for book in books]) for side in ("bids", "asks")]
        for of in (lambda level: level.price, lambda level: level.size, lambda level: codes_of[level.market_maker])
    )
    sides = prices[0], sizes[0], prices[1], sizes[1]
    assert not book_faults(*sides, *codes).any.any()
    assert book_faults(*sides).unordered.any() == (venue == "ISLAND")
    doubled = [np.repeat(each[:, :5], 2, axis=1) for each in (*sides, *codes)]
    assert book_faults(*doubled).unordered.all()


def test_negative_prices_are_prices() -> None:
    assert not faults_of([-2.0, -3.0], [-1.0, 1.0]).any.any()


def test_names_of_a_table_are_numbers_that_differ_where_they_do() -> None:
    names = [["A", "B", "A"], ["B", "", ""], ["A", "A", "A"]]
    table = pa.table({"bid_venue": pa.array(names, pa.list_(pa.string(), 3))})
    codes = name_codes(pa.concat_tables([table, table.slice(1)]), "bid_venue")
    texts = np.array([*names, *names[1:]])
    assert np.array_equal(codes[:, :-1] == codes[:, 1:], texts[:, :-1] == texts[:, 1:])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2 * TRANSIENT_MS)), min_size=1, max_size=30), st.integers(1, 7))
def test_stretch_of_malformed_books_is_transient_unless_it_lasts(story: list[tuple[bool, int]], piece: int) -> None:
    wrong = np.array([bad for bad, _ in story])
    ts = np.cumsum(np.array([wait for _, wait in story])) + NOON
    right = np.zeros(len(wrong), dtype=bool)
    pieces = [
        BookFaults(wrong[at : at + piece], right[at : at + piece], right[at : at + piece])
        for at in range(0, len(wrong), piece)
    ]
    finding = check_books(ts, pieces)
    lasting = 0
    run: list[int] = []
    for moment, bad in [*zip(ts.tolist(), wrong.tolist(), strict=True), (0, False)]:
        if bad:
            run.append(moment)
            continue
        lasting += len(run) if run and run[-1] - run[0] > TRANSIENT_MS else 0
        run = []
    assert finding.figures["lasting"] == lasting
    assert finding.figures["lasting"] + finding.figures["transient"] == wrong.sum()
    assert finding.passed == (lasting == 0)


def test_day_without_snapshots_is_sound() -> None:
    assert check_books(numbers(), []).passed


# ---- coverage


def test_coverage_counts_live_time_within_the_session_only() -> None:
    ts = numbers(0, 5_000, 10_000, 60_000, 65_000)
    live = np.array([True, True, True, True, True])
    finding = check_coverage(ts, live, 5_000, 65_000)
    assert finding.figures["covered_seconds"] == 10.0, "5 to 10 s and 60 to 65 s; between them nothing came"
    assert finding.figures["coverage"] == 10 / 60


def test_empty_book_covers_nothing() -> None:
    finding = check_coverage(numbers(0, 5_000), np.array([False, True]), 0, 10_000)
    assert finding.figures["covered_seconds"] == 0.0


def test_coverage_fails_only_below_what_is_asked_for() -> None:
    ts, live = numbers(0, 5_000), np.array([True, True])
    assert check_coverage(ts, live, 0, 10_000, least=0.5).passed
    assert not check_coverage(ts, live, 0, 10_000, least=0.6).passed
    assert check_coverage(ts, live, None, None, least=1.0).passed, "no session, nothing to cover"


# ---- counts


def test_newest_snapshot_is_the_one_that_redis_knows() -> None:
    ts, seq = numbers(NOON, NOON + 1), numbers(1, 2)
    assert check_counts(ts, seq, [], IngestSays(StreamId(NOON + 1, 2)), NOON + 9).passed
    assert not check_counts(ts, seq, [], IngestSays(StreamId(NOON + 2, 3)), NOON + 9).passed
    assert check_counts(ts, seq, [], IngestSays(StreamId(NOON + 99, 3)), NOON + 9).passed, "that was a day later"
    assert check_counts(ts, seq, [], IngestSays(), NOON + 9).passed, "nobody knows any more"


def test_snapshots_that_a_run_stored_are_kept_or_known_to_be_missing() -> None:
    ts, seq = numbers(NOON, NOON + 1, NOON + 2), numbers(1, 2, 5)
    says = IngestSays(None, stored=5, stored_from=NOON, stored_to=NOON + 5)
    assert not check_counts(ts, seq, [], says, NOON + 9).passed
    assert check_counts(ts, seq, [gap(3, 4, NOON + 2)], says, NOON + 9).passed
