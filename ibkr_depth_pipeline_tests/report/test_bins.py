"""Time in equal parts: nothing is counted twice and nothing gets lost at a border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.report.timeline import MOST_BINS, Bins

DAY_MS = 86_400_000


@given(st.integers(0, DAY_MS - 1), st.integers(0, DAY_MS - 1))
def test_moments_of_a_day_lie_in_one_of_the_bins(one: int, other: int) -> None:
    first, last = sorted((one, other))
    bins = Bins.over(first, last)
    assert bins.start <= first <= last < bins.end
    assert 1 <= bins.count <= MOST_BINS
    assert bins.start % bins.step == 0


@pytest.mark.parametrize(("span_secs", "step_secs"), [(0, 1), (790, 1), (801, 2), (23_400, 30), (86_399, 120)])
def test_bins_are_as_fine_as_a_screen_shows(span_secs: int, step_secs: int) -> None:
    assert Bins.over(0, span_secs * 1000).step == step_secs * 1000


def test_bins_over_several_days_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than"):
        Bins.over(0, 10 * DAY_MS)


def test_moment_outside_of_the_bins_falls_into_the_nearest() -> None:
    bins = Bins(1000, 10, 3)
    assert bins.of(np.array([0, 1000, 1009, 1010, 1029, 5000])).tolist() == [0, 0, 0, 1, 2, 2]


def test_interval_is_cut_at_the_borders() -> None:
    bins = Bins(1000, 10, 3)
    parts = bins.overlaps(np.array([990, 1005, 1012, 1020]), np.array([1000, 1025, 1012, 2000]))
    assert list(zip(*(column.tolist() for column in parts), strict=True)) == [
        (1, 0, 5),
        (1, 1, 10),
        (1, 2, 5),
        (3, 2, 10),
    ]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 120)), max_size=20))
def test_time_in_each_bin_is_what_counting_every_ms_gives(intervals: list[tuple[int, int]]) -> None:
    bins = Bins(100, 7, 20)
    starts = np.array([start for start, _ in intervals], dtype=np.int64)
    ends = np.array([start + length for start, length in intervals], dtype=np.int64)
    counted = [0] * bins.count
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        for ms in range(max(start, bins.start), min(end, bins.end)):
            counted[(ms - bins.start) // bins.step] += 1
    assert bins.time_in(starts, ends).tolist() == counted
