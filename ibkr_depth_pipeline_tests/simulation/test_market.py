"""Synthetic books: well formed, the same for a seed, at their rate, and moving on while nobody watches."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.simulation.catalogue import Catalogue, depth_venue
from ibkr_depth_pipeline.simulation.market import LEVELS, SyntheticFlow, SyntheticMarket
from ibkr_depth_pipeline.simulation.rows import (
    REFERENCE_DEPTH,
    Book,
    BookLevel,
    RowStyle,
    SourceStep,
    apply_rows,
    rows_of_change,
)

SYMBOLS = {"SPY": "ARCA", "AAPL": "ISLAND", "IBM": "NYSE", "EUR.USD": "IDEALPRO", "QWERT": "BATS"}


def market(seed: int, symbol: str) -> SyntheticMarket:
    listing = Catalogue(seed).named(symbol)
    assert listing is not None
    venue = depth_venue(SYMBOLS[symbol], listing.sec_type)
    assert venue is not None
    return SyntheticMarket(seed, listing, venue)


def well_formed(book: Book) -> bool:
    bids, asks = ([level.price for level in side] for side in book)
    return (
        len(bids) == len(asks) == LEVELS
        and bids == sorted(bids, reverse=True)
        and asks == sorted(asks)
        and all(len({(level.price, level.market_maker) for level in side}) == LEVELS for side in book)
        and bids[-1] > 0
        and bids[0] < asks[0]
        and all(level.size > 0 for side in book for level in side)
    )


@settings(max_examples=30)
@given(st.integers(), st.sampled_from(sorted(SYMBOLS)))
def test_every_book_is_full_ordered_and_never_crossed(seed: int, symbol: str) -> None:
    flow = market(seed, symbol)
    assert well_formed(flow.book)
    assert all(well_formed(book) for book in islice(flow.books(), 300))


def most_at_one_price(side: Sequence[BookLevel]) -> int:
    return max(Counter(level.price for level in side).values())


def test_market_makers_share_prices_and_the_newcomer_stands_behind() -> None:
    flow = market(1, "AAPL")
    shared = Counter(most_at_one_price(book.bids[:10]) for book in islice(flow.books(), 3000))
    assert set(shared) >= {1, 2, 3}
    assert shared[1] < 1500, "most books show two names at one price"
    for before, after in pairwise(islice(flow.books(), 3000)):
        for old, new in zip(before, after, strict=True):
            held = {(level.price, level.market_maker): place for place, level in enumerate(old)}
            (came,) = [level for level in new if (level.price, level.market_maker) not in held] or [None]
            if came is not None and came in new[:-1] and came.price in {level.price for level in old}:
                assert new[new.index(came) + 1].price != came.price


@pytest.mark.parametrize("symbol", sorted(set(SYMBOLS) - {"AAPL"}))
def test_prices_are_distinct_where_no_market_makers_are_named(symbol: str) -> None:
    assert all(most_at_one_price(side) == 1 for book in islice(market(2, symbol).books(), 500) for side in book)


def test_same_seed_gives_the_same_books_and_another_one_does_not() -> None:
    first, again, other = (list(islice(market(seed, "SPY").books(), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_event_changes_the_book() -> None:
    books = list(islice(market(3, "AAPL").books(), 500))
    assert all(before != after for before, after in pairwise(books))


def test_prices_stay_near_where_they_started() -> None:
    flow = market(4, "SPY")
    prices = [book.bids[0].price for book in islice(flow.books(), 100_000)]
    assert 600 < min(prices) < max(prices) < 604
    assert len(set(prices)) > 20


def test_flow_sends_about_its_rate() -> None:
    flow = SyntheticFlow(market(5, "IBM"), RowStyle.SHIFT, 1000.0, seed=5)
    seconds = rows = 0.0
    while seconds < 20:
        step = flow.next_step()
        assert step is not None
        seconds += step.wait
        rows += sum(len(change.rows(REFERENCE_DEPTH)) for change in step.changes)
    assert 0.99 < rows / seconds / 1000 < 1.01


def test_flow_of_rate_zero_has_no_step_until_the_rate_rises() -> None:
    flow = SyntheticFlow(market(6, "IBM"), RowStyle.SHIFT, 0.0, seed=6)
    assert flow.next_step() is None
    assert not flow.over
    flow.rate = 10.0
    assert flow.next_step() is not None


def test_both_styles_of_rows_occur_among_the_default_symbols() -> None:
    catalogue = Catalogue()
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN", "META", "NVDA", "TSLA"]
    styles = set()
    for symbol in symbols:
        listing = catalogue.named(symbol)
        assert listing is not None
        venue = depth_venue(listing.primary_exchange, "STK")
        assert venue is not None
        styles.add(venue.style)
    assert styles == {RowStyle.SHIFT, RowStyle.CASCADE}


def test_rows_of_a_flow_add_up_to_its_book() -> None:
    flow = SyntheticFlow(market(7, "AAPL"), RowStyle.SHIFT, 500.0, seed=7)
    shown = flow.book.clipped(10)
    for _ in range(200):
        step = flow.next_step()
        assert step is not None
        for change in step.changes:
            shown = apply_rows(shown, change.rows(10))
    assert shown == flow.book.clipped(10)


@pytest.mark.parametrize("style", RowStyle)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_event_passed_unseen_counts_the_rows_that_a_follower_would_have_got(symbol: str, style: RowStyle) -> None:
    flow = market(8, symbol)
    for _ in range(1000):
        before = flow.book.clipped(REFERENCE_DEPTH)
        counted = flow.pass_event(style)
        assert counted == len(rows_of_change(before, flow.book.clipped(REFERENCE_DEPTH), style))


def flow_of(symbol: str, *, stands_still: bool = False) -> tuple[SyntheticFlow, SourceStep]:
    """A flow and its first step, not yet due."""
    flow = SyntheticFlow(market(9, symbol), RowStyle.CASCADE, 300.0, seed=9, stands_still=stands_still)
    step = flow.next_step()
    assert step is not None
    return flow, step


@settings(max_examples=30)
@given(st.sampled_from(sorted(SYMBOLS)), st.lists(st.floats(0.001, 3.0), min_size=1, max_size=4))
def test_unwatched_market_is_where_a_watched_one_would_be(symbol: str, absences: list[float]) -> None:
    """Both have taken their first step at 0; one is watched all the time, the other only between the absences."""
    watched, step = flow_of(symbol)
    unwatched, other = flow_of(symbol)
    due, now = 0.0, 0.0  # when `step` is due; until when the other was away
    for seconds in absences:
        now += seconds
        while due <= now:
            step, due = after(watched, due)
        other = unwatched.pass_time(other, seconds)
        assert [change.book for change in other.changes] == [change.book for change in step.changes]
        assert other.changes[0].previous == step.changes[0].previous
        assert other.wait == pytest.approx(due - now)
        now = due


def after(flow: SyntheticFlow, due: float) -> tuple[SourceStep, float]:
    step = flow.next_step()
    assert step is not None
    return step, due + step.wait


def test_long_absence_costs_no_more_than_a_bounded_number_of_events() -> None:
    flow, step = flow_of("IBM")
    again, other = flow_of("IBM")
    years = flow.pass_time(step, 1e9)
    longer = again.pass_time(other, 1e12)
    assert years.wait == longer.wait == 0.0
    assert flow.book == again.book


def test_market_that_is_told_to_stands_still_unwatched() -> None:
    flow, step = flow_of("IBM", stands_still=True)
    assert flow.pass_time(step, 100.0) is step
    assert flow.book == step.changes[-1].book
