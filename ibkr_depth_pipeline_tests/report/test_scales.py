"""Axes and words: round marks, and numbers that say no more than is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.report.charts import (
    Scale,
    decades,
    from_zero,
    nice_step,
    number,
    rate,
    time_ticks,
    usual,
)
from ibkr_depth_pipeline.report.timeline import Bins

NOON = 1_767_614_400_000


def labels(scale: Scale) -> list[str]:
    return [tick.label for tick in scale.ticks()]


def test_marks_stand_at_round_values() -> None:
    assert labels(from_zero(np.array([3.0, 1180.0, np.nan]))) == ["0", "500", "1,000", "1,500"]
    assert labels(from_zero(np.array([0.03]))) == ["0.00", "0.01", "0.02", "0.03", "0.04"]
    assert labels(Scale(100.02, 101.03)) == ["100.5", "101.0"]
    assert labels(Scale(99.99, 100.26)) == ["100.0", "100.1", "100.2"]


def test_marks_lie_at_their_values() -> None:
    assert [tick.at for tick in Scale(0.0, 200.0).ticks()] == [0.0, 25.0, 50.0, 75.0, 100.0]


def test_latencies_are_marked_by_powers_of_ten() -> None:
    scale = decades(np.array([np.nan, 3.0, 250.0]))
    assert labels(scale) == ["1", "10", "100", "1,000"]
    assert scale.of(np.array([0.0, 1.0, 10.0, 1000.0])) == pytest.approx([0, 0, 1 / 3, 1])
    assert labels(decades(np.array([0.02]))) == ["0.01", "0.1"]
    assert decades(np.array([1.0, 100.0])) == Scale(0.1, 100.0, log=True), "what is never more than 1 is seen as well"


def test_few_outliers_do_not_flatten_a_picture() -> None:
    values = np.array([*[0.01, 0.02] * 20, 5.0, np.nan])
    assert usual(values).max() == 0.02
    assert len(usual(values)) == 40
    assert usual(np.array([0.0, 0.0, 1.0])).tolist() == [0.0, 0.0, 1.0]
    assert len(usual(np.array([np.nan]))) == 0


@pytest.mark.parametrize("values", [[], [np.nan], [0.0]])
def test_axis_without_values_is_drawn_all_the_same(values: list[float]) -> None:
    assert len(from_zero(np.array(values)).ticks()) > 1
    assert len(decades(np.array(values)).ticks()) >= 2


def test_zero_stands_below_the_decades_of_a_logarithmic_axis() -> None:
    scale = decades(np.array([0.0, 3.0, 40.0]))
    assert scale.ticks()[0][:2] == (0.0, "0")
    places = scale.of(np.array([0.0, 1.0, 100.0, np.nan]))
    assert places[0] == 0.0 < places[1] < places[2] == 1.0
    assert np.isnan(places[3])
    assert not decades(np.array([3.0, 40.0])).with_zero


@given(st.floats(1e-6, 1e9))
def test_scale_holds_every_value(value: float) -> None:
    scale = from_zero(np.array([value]))
    assert value < scale.high <= 2 * value + 1e-9
    assert nice_step(value) >= value * (1 - 1e-6)


def test_times_are_marked_at_round_ones_and_a_narrow_page_leaves_some_out() -> None:
    session = time_ticks(Bins(NOON + 9_000_000, 30_000, 780))
    assert [tick.label for tick in session][:3] == ["14:30", "15:00", "15:30"]
    assert [tick.label for tick in session if not tick.minor] == ["14:30", "16:00", "17:30", "19:00", "20:30"]
    assert session[0].at == 0.0
    assert [tick.label for tick in time_ticks(Bins(NOON, 1000, 45))][:2] == ["12:00:00", "12:00:05"]


def test_rate_of_rare_rows_is_not_shown_as_none() -> None:
    rates = [rate(value) for value in (0, 0.00004, 0.014, 0.306, 2.04, 12.34, 1234.5)]
    assert rates == ["0", "below 0.01", "0.014", "0.31", "2", "12.3", "1,234"]


def test_numbers_as_people_write_them() -> None:
    assert [number(value) for value in (0, 12_345, 0.25, 1.5, 0.012345, 1234.5)] == [
        "0",
        "12,345",
        "0.25",
        "1.5",
        "0.01235",
        "1,234",
    ]
