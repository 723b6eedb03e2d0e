"""Exponential back-off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.backoff import Backoff

BACKOFF = Backoff(0.5, 5.0)


def test_pause_doubles_per_failure_up_to_the_longest() -> None:
    assert [BACKOFF.pause(failures) for failures in range(7)] == [0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_pause_grows_by_the_factor_given() -> None:
    assert [Backoff(1.0, 100.0, factor=4.0).pause(failures) for failures in range(1, 6)] == [1, 4, 16, 64, 100]


def test_longer_pause_follows_the_one_before() -> None:
    pauses = [0.0]
    while pauses[-1] < BACKOFF.longest:
        pauses.append(BACKOFF.longer(pauses[-1]))
    assert pauses == [BACKOFF.pause(failures) for failures in range(len(pauses))]


@given(st.integers(1, 10**9))
def test_any_number_of_failures_has_a_pause_within_bounds(failures: int) -> None:
    assert BACKOFF.first <= BACKOFF.pause(failures) <= BACKOFF.longest
    assert BACKOFF.pause(failures) / 2 <= BACKOFF.jittered(failures) <= BACKOFF.pause(failures)


@pytest.mark.parametrize(("part", "pause"), [(min, 1.0), (max, 2.0)])
def test_jitter_spreads_from_half_of_the_pause_to_all_of_it(part: object, pause: float) -> None:
    assert callable(part)
    assert BACKOFF.jittered(3, lambda low, high: float(part(low, high))) == pause
