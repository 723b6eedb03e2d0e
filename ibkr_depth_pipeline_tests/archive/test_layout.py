"""Names: what they say, and what is nobody's."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.archive.layout import (
    IdSpan,
    day_of,
    day_place,
    first_ms_of,
    folder,
    gap_place,
    joined,
    parse,
    part_place,
    places,
)
from ibkr_depth_pipeline.schema.keys import StreamId

ids = st.builds(StreamId, st.integers(0, 10**14), st.integers(0, 10**13))
symbols = st.from_regex(r"[A-Z0-9][A-Z0-9.\-/&+]{0,5}( [A-Z0-9.\-/&+]{1,3})?", fullmatch=True)
dates = st.dates(date(1970, 1, 1), date(9999, 12, 31))


@given(symbols, dates, ids, ids)
def test_name_of_a_file_parses_to_what_it_was_made_of(symbol: str, day: date, first: StreamId, last: StreamId) -> None:
    part = part_place(symbol, day, IdSpan(first, last))
    assert parse(part.name) == part
    assert part.span == IdSpan(first, last)
    compacted = day_place(symbol, day, IdSpan(first, last), 7)
    assert parse(compacted.name) == compacted
    assert (compacted.span, compacted.compacted, part.compacted) == (part.span, True, False)
    assert parse(gap_place(symbol, day, first).name) == gap_place(symbol, day, first)


@given(st.lists(st.tuples(ids, ids), unique=True, max_size=5))
def test_order_of_names_is_the_order_of_snapshots(pairs: list[tuple[StreamId, StreamId]]) -> None:
    day = date(2026, 1, 5)
    fit = [IdSpan(StreamId(a.ts % 10**13, a.seq % 10**12), StreamId(b.ts % 10**13, b.seq % 10**12)) for a, b in pairs]
    named = [place.span for place in places(part_place("SPY", day, span).name for span in fit)]
    assert named == sorted(fit)


def test_symbol_with_a_blank_or_a_slash_is_one_folder_that_hive_readers_understand() -> None:
    one = IdSpan(StreamId(), StreamId())
    assert folder("books", date(2026, 1, 5), "BRK B") == "books/date=2026-01-05/symbol=BRK%20B"
    assert part_place("A/B", date(2026, 1, 5), one).name.count("/") == 3


@pytest.mark.parametrize(
    "name",
    [
        "parts/date=2026-01-05/symbol=SPY/notes.txt",
        "parts/date=2026-01-05/symbol=SPY/depth.parquet",
        "parts/date=2026-13-05/symbol=SPY/1767614400000-000000000001_1767614400001-000000000002.parquet",
        "days/date=2026-01-05/symbol=SPY/other.parquet",
        "books/date=2026-01-05/symbol=SPY/depth.parquet",
        "intervals/date=2026-01-05/symbol=SPY/day-1767614400000-000000000001.parquet",
        "books/date=2026-01-05/ingest=SPY/depth.parquet",
        "days/date=2026-01-05/symbol=SPY/depth.parquet.writing",
        ".tmp/put-1234.writing",
        "SPY.parquet",
    ],
)
def test_names_outside_of_the_layout_parse_to_none(name: str) -> None:
    assert parse(name) is None


@given(dates)
def test_date_ends_where_the_next_begins(day: date) -> None:
    assert day_of(first_ms_of(day)) == day
    assert day_of(first_ms_of(day) + 86_399_999) == day


def span(first_ts: int, first: int, last_ts: int, last: int) -> IdSpan:
    return IdSpan(StreamId(first_ts, first), StreamId(last_ts, last))


@pytest.mark.parametrize(
    ("spans", "runs"),
    [
        ([span(10, 1, 20, 5), span(20, 6, 30, 9)], [span(10, 1, 30, 9)]),
        ([span(25, 8, 30, 9), span(10, 1, 20, 5)], [span(10, 1, 20, 5), span(25, 8, 30, 9)]),
        ([span(10, 1, 30, 9), span(12, 3, 15, 4), span(20, 7, 40, 12)], [span(10, 1, 40, 12)]),
        ([span(10, 8, 20, 9), span(30, 1, 40, 3)], [span(10, 8, 20, 9), span(30, 1, 40, 3)]),
        ([], []),
    ],
)
def test_spans_with_nothing_between_them_are_joined(spans: list[IdSpan], runs: list[IdSpan]) -> None:
    assert joined(spans) == tuple(runs)
