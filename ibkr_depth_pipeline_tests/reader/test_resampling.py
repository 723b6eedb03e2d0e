"""Bars: what each says is what was observed in it, and time in which nothing was observed is null."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from ibkr_depth_pipeline.reader import AsyncDepthReader, DepthReader, DepthSnapshot, NothingRecorded, UnknownSymbol
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler
from ibkr_depth_pipeline_tests.reader.test_frames import book_of
from ibkr_depth_pipeline_tests.reader.test_intervals import store_books

pytest.importorskip("pyarrow")


def add_book(filler: Filler, bid: float | None, ask: float | None, after_ms: int = 0) -> None:
    """Store a book with these best prices, a lot of 2 and 3 each shown by two market makers."""
    filler.ts += after_ms
    filler.seq += 1
    bids = [] if bid is None else [(bid, 2.0, "A"), (bid, 3.0, "B"), (bid - 0.01, 1.0, "A")]
    asks = [] if ask is None else [(ask, 2.0, "A"), (ask, 3.0, "B"), (ask + 0.01, 1.0, "A")]
    made = book_of(bids, asks, filler.seq)
    store_books(filler, DepthSnapshot(filler.symbol, filler.ts, filler.seq, "ARCA", made.bids_json, made.asks_json))


def turn(filler: Filler, number: int, *moves: tuple[int, float | None, float | None], live_ms: int = 0) -> None:
    """An interval with books at these ms after one another; complete at once, and live for live_ms after the last."""
    filler.ts += moves[0][0]
    filler.begin(number, complete=0)
    for at, (after, bid, ask) in enumerate(moves):
        add_book(filler, bid, ask, after if at else 0)
    filler.ts += live_ms + 10  # `end` takes the moment one step before
    filler.end()
    filler.ts -= 10


def rows(table: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_bars_hold_prices_sizes_and_the_observed_part(filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (200, 100.0, 100.2), (300, 100.1, 100.2), (100, 99.8, 100.0), live_ms=150)
    [bar] = rows(reader.resample("1s", "SPY", form="arrow"))
    assert bar["ts"].timestamp() * 1000 == T0
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == pytest.approx((100.1, 100.15, 99.9, 99.9))
    assert (bar["bid_px"], bar["ask_px"], bar["bid_sz"], bar["ask_sz"]) == (99.8, 100.0, 5.0, 5.0)
    assert bar["spread"] == pytest.approx((300 * 0.2 + 100 * 0.1 + 151 * 0.2) / 551)
    assert bar["observed"] == pytest.approx(0.551)
    assert bar["count"] == 3


def test_time_without_observation_is_null_and_nothing_is_carried_over_it(filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (0, 100.0, 100.2), live_ms=500)
    turn(filler, 2, (3_000, 101.0, 101.2), live_ms=100)
    bars = rows(reader.resample("1s", "SPY", form="arrow"))
    assert [bar["close"] for bar in bars] == pytest.approx([100.1, None, None, 101.1])
    assert [bar["observed"] for bar in bars] == pytest.approx([0.501, 0.0, 0.0, 0.101])
    assert [bar["count"] for bar in bars] == [1, None, None, 1]
    for bar in bars[1:3]:
        assert {name for name, value in bar.items() if value is not None} == {"symbol", "ts", "observed"}


def test_book_stands_through_observed_bars_without_a_row(filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (100, 100.0, 100.2), live_ms=2_500)
    bars = rows(reader.resample("1s", "SPY", form="arrow"))
    assert [(bar["open"], bar["close"], bar["count"]) for bar in bars] == [
        (pytest.approx(100.1), pytest.approx(100.1), count) for count in (1, 0, 0)
    ]
    assert [bar["observed"] for bar in bars] == pytest.approx([0.9, 1.0, 0.601])


def test_partial_and_half_done_books_do_not_count(filler: Filler, reader: DepthReader) -> None:
    filler.begin(1, complete=2)
    add_book(filler, 50.0, None)
    add_book(filler, 50.0, 60.0, after_ms=10)
    add_book(filler, 100.0, 100.2, after_ms=10)
    add_book(filler, 100.3, 100.2, after_ms=10)
    add_book(filler, 100.3, 100.4)
    filler.ts += 10
    filler.end()
    [bar] = rows(reader.resample("1s", "SPY", form="arrow"))
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == pytest.approx((100.1, 100.35, 100.1, 100.35))
    assert bar["count"] == 5


def test_one_sided_book_has_no_mid_and_ends_the_one_before(filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (0, 100.0, 100.2), (500, 100.0, None), live_ms=2_000)
    bars = rows(reader.resample("1s", "SPY", form="arrow"))
    assert [bar["close"] for bar in bars] == pytest.approx([100.1, None, None])
    assert [(bar["bid_px"], bar["ask_px"]) for bar in bars] == [(100.0, None)] * 3
    assert [bar["observed"] for bar in bars] == pytest.approx([1.0, 1.0, 0.501])


def test_bars_from_a_start_know_the_book_that_stood_there(filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (0, 100.0, 100.2), live_ms=10_000)
    bars = rows(reader.resample("2s", "SPY", start=T0 + 4_000, end=T0 + 14_000, form="arrow"))
    assert [bar["close"] for bar in bars] == pytest.approx([100.1, 100.1, 100.1, 100.1, None])
    assert [bar["observed"] for bar in bars] == pytest.approx([1.0, 1.0, 1.0, 0.0005, 0.0])


def test_bars_of_what_is_unknown_or_was_not_observed_are_errors(filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (0, 100.0, 100.2), live_ms=100)
    with pytest.raises(UnknownSymbol, match="SPY"):
        reader.resample("1s", "SPX")
    with pytest.raises(NothingRecorded, match="SPY"):
        reader.resample("1s", "SPY", start="2030-01-01")
    assert reader.resample("1s", "SPY", start="2030-01-01", missing_ok=True, form="arrow").num_rows == 0


@pytest.mark.parametrize(
    "every", ["1", "s", "0s", "1 week", "", -1, 0, True, 0.5, timedelta(0), timedelta(microseconds=1)]
)
def test_length_that_is_none_is_refused(reader: DepthReader, every: Any) -> None:
    with pytest.raises(ValueError, match="no length of a bar"):
        reader.resample(every, "SPY")


def test_bars_come_as_polars_pandas_and_arrow_and_of_all_symbols(
    shared_redis_url: str, filler: Filler, reader: DepthReader
) -> None:
    pl, pd = pytest.importorskip("polars"), pytest.importorskip("pandas")
    turn(filler, 1, (0, 100.0, 100.2), live_ms=100)
    with Filler(shared_redis_url, "QQQ") as other:
        turn(other, 1, (0, 50.0, 50.2), live_ms=1_500)
    frame = reader.resample("1s")
    assert isinstance(frame, pl.DataFrame)
    assert frame["symbol"].to_list() == ["QQQ", "QQQ", "SPY"]
    assert isinstance(reader.resample("1s", form="pandas"), pd.DataFrame)
    for every in (timedelta(seconds=1), 1_000, "1000ms"):
        assert reader.resample(every).equals(frame)
    with pytest.raises(ValueError, match="form='csv'"):
        reader.resample("1s", form="csv")  # type: ignore[arg-type]


async def test_async_reader_gives_the_same_bars(shared_redis_url: str, filler: Filler, reader: DepthReader) -> None:
    turn(filler, 1, (0, 100.0, 100.2), (700, 100.1, 100.2), live_ms=1_100)
    async with AsyncDepthReader(shared_redis_url) as other:
        assert (await other.resample("1s", "SPY", form="arrow")).equals(reader.resample("1s", "SPY", form="arrow"))


def test_recording_without_a_record_has_bars_by_the_inferred_intervals(filler: Filler, reader: DepthReader) -> None:
    for _ in range(3):
        add_book(filler, 100.0, 100.2, after_ms=500)
    filler.ts += 15_000
    for _ in range(3):
        add_book(filler, 101.0, 101.2, after_ms=500)
    bars = rows(reader.resample("1s", "SPY", form="arrow"))
    assert [bar["close"] for bar in bars if bar["close"] is not None] == pytest.approx([100.1] * 2 + [101.1] * 2)
    assert sum(bar["observed"] == 0 for bar in bars) >= 14


@pytest.mark.parametrize("seed", range(6))
def test_bars_equal_those_that_are_counted_ms_by_ms(filler: Filler, reader: DepthReader, seed: int) -> None:
    chance = random.Random(seed)
    filler.ts = T0 + chance.randrange(50)
    for number in range(1, 8):
        moves = []
        for _ in range(chance.randrange(1, 12)):
            bid = round(100 + chance.randrange(-20, 20) / 100, 2)
            ask = None if chance.random() < 0.1 else round(bid + chance.randrange(1, 5) / 100, 2)
            moves.append((chance.choice((0, 1, 7, 40)), bid, ask))
        turn(filler, number, *moves, live_ms=chance.randrange(30))
        filler.ts += chance.choice((1, 20, 200))
    every = chance.choice((10, 25, 64))
    books, intervals = reader.range("SPY"), reader.intervals("SPY")
    for bar in rows(reader.resample(every, "SPY", form="arrow")):
        begin = round(bar["ts"].timestamp() * 1000)
        assert bar == {"symbol": "SPY", "ts": bar["ts"], **counted(books, intervals, begin, every)}


def counted(
    books: list[DepthSnapshot], intervals: list[SubscriptionInterval], begin: int, every: int
) -> dict[str, Any]:
    """The bar by its definition, from the book of each ms."""
    settled = [book for book in books if book.settled]
    standing = []
    for ms in range(begin, begin + every):
        interval = next((each for each in intervals if each.observes(ms)), None)
        of_turn = [
            book for book in settled if book.ts <= ms and interval and book.subscription == interval.subscription
        ]
        standing.append((interval, of_turn[-1] if of_turn else None))
    observed = sum(interval is not None for interval, _ in standing)
    if not observed:
        names = ("open", "high", "low", "close", "bid_px", "bid_sz", "ask_px", "ask_sz", "spread", "count")
        return {**dict.fromkeys(names), "observed": 0.0}
    there = [book for _, book in standing if book is not None]
    two_sided = [book for book in there if book.best_bid and book.best_ask]
    mids = [(book.bids[0].price + book.asks[0].price) / 2 for book in two_sided]
    spreads = [book.asks[0].price - book.bids[0].price for book in two_sided]
    last = there[-1].levels() if there else None
    bid, ask = (side[0] if side else None for side in last) if last else (None, None)
    return {
        "open": pytest.approx(mids[0]) if mids else None,
        "high": pytest.approx(max(mids)) if mids else None,
        "low": pytest.approx(min(mids)) if mids else None,
        "close": pytest.approx(mids[-1]) if mids else None,
        "bid_px": bid and bid.price,
        "bid_sz": bid and bid.size,
        "ask_px": ask and ask.price,
        "ask_sz": ask and ask.size,
        "spread": pytest.approx(sum(spreads) / len(spreads)) if spreads else None,
        "observed": pytest.approx(observed / every),
        "count": sum(begin <= book.ts < begin + every for book in books),
    }
