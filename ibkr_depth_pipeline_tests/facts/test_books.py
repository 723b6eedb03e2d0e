"""What rows show of inserts, and what samples of whole seconds show of a clock. Pure."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.facts.account_experiments import clock_bounds
from ibkr_depth_pipeline.facts.books import InsertMeaning, followed, meaning_of, opening_rows, style_of
from ibkr_depth_pipeline.facts.evidence import ClockSample, ErrorMessage, Evidence, FactLimits, ObservedLine
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Instrument, Side
from ibkr_depth_pipeline.simulation.listings import DEPTH_VENUES, KNOWN
from ibkr_depth_pipeline.simulation.market import SyntheticMarket
from ibkr_depth_pipeline.simulation.rows import Book, RowStyle, WireRow, rows_of_change, snapshot_rows

INSTRUMENT = Instrument("SPY", 1, "STK", "USD", "ARCA", "ARCA")
OPERATIONS = (DepthOperation.INSERT, DepthOperation.UPDATE, DepthOperation.DELETE)
DEPTH = 15


def row_of(row: WireRow) -> DepthRow:
    side = Side.BID if row.side else Side.ASK
    return DepthRow(OPERATIONS[row.operation], side, row.position, row.price, row.size, row.market_maker)


def watched(style: RowStyle, seed: int, events: int, after: int, venue: str = "NYSE") -> list[ObservedLine]:
    """A line over so many events of a market, and one that was opened `after` events before the end."""
    market = SyntheticMarket(seed, next(each for each in KNOWN if each.name == "SPY"), DEPTH_VENUES[venue, "STK"])
    evidence = Evidence(FactLimits(), itertools.count(1), ("SPY",), DEPTH)
    lines = [ObservedLine(number, INSTRUMENT, DEPTH) for number in (1, 2)]
    evidence.lines = {line.request: line for line in lines}
    book = market.book.clipped(DEPTH)
    send(evidence, 1, snapshot_rows(book), 0.0)
    for at in range(events):
        if at == events - after:
            send(evidence, 2, snapshot_rows(book), at * 0.01)
        before, book = book, market.step().clipped(DEPTH)
        for request in (1, 2) if at >= events - after else (1,):
            send(evidence, request, rows_of_change(before, book, style), at * 0.01)
    return lines


def send(evidence: Evidence, request: int, rows: list[WireRow], at: float) -> None:
    for row in rows:
        evidence.row(request, row_of(row), at)


TRUE = {RowStyle.SHIFT: InsertMeaning.SHIFT, RowStyle.OVERWRITE: InsertMeaning.OVERWRITE}


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(sorted(TRUE, key=str)), st.sampled_from(["NYSE", "ISLAND", "ARCA"]))
def test_meaning_of_inserts_is_found_or_left_open_and_never_the_wrong_one(
    seed: int, style: RowStyle, venue: str
) -> None:
    line, fresh = watched(style, seed, events=120, after=20, venue=venue)
    assert meaning_of(line, fresh, secs=2.0) in (TRUE[style], None)


@pytest.mark.parametrize("style", sorted(TRUE, key=str))
def test_meaning_is_found_of_nearly_every_market_that_was_watched_for_long(style: RowStyle) -> None:
    found = [meaning_of(*watched(style, seed, events=400, after=20), secs=2.0) for seed in range(20)]
    assert found.count(TRUE[style]) >= 18


def test_line_without_inserts_after_its_opening_leaves_their_meaning_open() -> None:
    line, fresh = watched(RowStyle.CASCADE, 1, events=200, after=20)
    assert meaning_of(line, fresh, secs=2.0) is None
    assert style_of(line, None) == "cascade"


def test_still_line_shows_no_way_of_wording() -> None:
    line, fresh = watched(RowStyle.SHIFT, 1, events=0, after=0)
    assert (style_of(line, None), meaning_of(line, fresh, 2.0)) == (None, None)
    assert opening_rows(line) == 2 * DEPTH


def test_reset_begins_an_opening_and_keeps_when_the_first_row_came() -> None:
    evidence = Evidence(FactLimits(), itertools.count(1), ("SPY",), DEPTH)
    line = evidence.lines[1] = ObservedLine(1, INSTRUMENT, DEPTH)
    book = Book(*SyntheticMarket(3, KNOWN[0], DEPTH_VENUES["NYSE", "STK"]).book).clipped(DEPTH)
    send(evidence, 1, snapshot_rows(book), 1.0)
    evidence.error(ErrorMessage(2.0, 1, 317, "Market depth data has been RESET."))
    send(evidence, 1, snapshot_rows(book), 3.0)
    assert (line.first_row_at, len(line.rows), line.row_count, line.error) == (1.0, 2 * DEPTH, 4 * DEPTH, None)
    assert followed(line, InsertMeaning.SHIFT).occupied_inserts == 0


@given(
    st.floats(-1000, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=10),
)
def test_clock_lies_within_the_bounds_of_every_sample(ahead: float, moments: list[tuple[float, float, float]]) -> None:
    samples = [
        ClockSample(1e6 + at, int(1e6 + at + there + ahead), 1e6 + at + there + back) for at, there, back in moments
    ]
    low, high = clock_bounds(samples)
    assert low - 1e-6 <= ahead <= high + 1e-6


def test_samples_at_different_parts_of_a_second_narrow_the_clock() -> None:
    samples = [ClockSample(100 + each / 8, int(100 + each / 8 + 2.3), 100 + each / 8) for each in range(8)]
    low, high = clock_bounds(samples)
    assert (low <= 2.3 <= high, high - low <= 0.2) == (True, True)


def test_clock_that_steps_between_samples_leaves_no_bounds() -> None:
    low, high = clock_bounds([ClockSample(100.0, 100, 100.0), ClockSample(101.0, 161, 101.0)])
    assert low > high
