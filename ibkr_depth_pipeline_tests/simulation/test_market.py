from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.simulation.catalogue import Catalogue, depth_venue
from ibkr_depth_pipeline.simulation.market import LEVELS, SyntheticFlow, SyntheticMarket
from ibkr_depth_pipeline.simulation.rows import REFERENCE_DEPTH, Book, RowStyle, apply_rows

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
        and all(better > worse for better, worse in pairwise(bids))
        and all(better < worse for better, worse in pairwise(asks))
        and bids[-1] > 0
        and bids[0] < asks[0]
        and all(level.size > 0 for side in book for level in side)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(), st.sampled_from(sorted(SYMBOLS)))
def test_every_book_is_full_ordered_and_never_crossed(seed: int, symbol: str) -> None:
    flow = market(seed, symbol)
    assert well_formed(flow.book)
    assert all(well_formed(book) for book in islice(flow.books(), 300))


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
    assert styles == set(RowStyle)


def test_rows_of_a_flow_add_up_to_its_book() -> None:
    flow = SyntheticFlow(market(7, "AAPL"), RowStyle.SHIFT, 500.0, seed=7)
    shown = flow.book.clipped(10)
    for _ in range(200):
        step = flow.next_step()
        assert step is not None
        for change in step.changes:
            shown = apply_rows(shown, change.rows(10))
    assert shown == flow.book.clipped(10)
