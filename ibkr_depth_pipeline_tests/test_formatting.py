"""Durations, prices and times as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.formatting import duration, parse_duration, price, short_duration, utc, utc_clock


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "0 s"),
        (499, "0 s"),
        (42_000, "42 s"),
        (59_960, "1 min 0 s"),
        (185_000, "3 min 5 s"),
        (3_599_900, "1 h 0 min"),
        (7_620_000, "2 h 7 min"),
    ],
)
def test_duration_in_text_has_its_two_largest_units(ms: float, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (850, "850 ms"),
        (1000, "1.0 s"),
        (12_400, "12.4 s"),
        (59_960, "1 min 00 s"),
        (200_000, "3 min 20 s"),
        (3_599_900, "1 h 00 min"),
        (7_500_000, "2 h 05 min"),
    ],
)
def test_fine_duration_shows_fractions_of_a_second(ms: float, text: str) -> None:
    assert duration(ms, fine=True) == text


@pytest.mark.parametrize(
    ("secs", "text"),
    [(None, "-"), (0.04, "0.0 s"), (99.9, "99.9 s"), (120, "2 min"), (7_200, "2 h"), (864_000, "10 d")],
)
def test_short_duration_has_one_unit(secs: float | None, text: str) -> None:
    assert short_duration(secs) == text


@given(st.floats(0, 86_400 * 9_999))
def test_short_duration_fits_seven_columns(secs: float) -> None:
    assert len(short_duration(secs)) <= 7


def test_prices_keep_the_digits_that_they_have() -> None:
    assert [price(100.5), price(1.13085), price(0.0001)] == ["100.50", "1.13085", "0.0001"]


def test_times_are_written_in_utc() -> None:
    assert utc(1_700_000_000_999) == "2023-11-14 22:13:20 UTC"
    assert utc_clock(1_700_000_000_999) == "22:13:20"


@pytest.mark.parametrize(
    ("text", "secs"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86400), ("0", 0), (" 5 M ", 300)]
)
def test_duration_is_read_with_or_without_a_unit(text: str, secs: float) -> None:
    assert parse_duration(text) == secs


@pytest.mark.parametrize("text", ["", "soon", "-5", "2d", "1e3", "10 minutes", "nan"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigurationError, match="such as 90s, 10m or 1h"):
        parse_duration(text)
