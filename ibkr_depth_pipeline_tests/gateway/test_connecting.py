"""The pace of connections, with the time as an argument."""

from __future__ import annotations

import itertools
import random

import pytest

from ibkr_depth_pipeline.gateway.backoff import QUICK_PHASE_SECS, ConnectBackoff


def longest(_low: float, high: float) -> float:
    return high


def connections(backoff: ConnectBackoff, secs: float, *, refused: bool = False, began: float = 0.0) -> list[float]:
    """When connections begin within so many seconds, one at a time and each failing at once."""
    times, now = [], began
    while now < began + secs:
        times.append(now)
        pause = backoff.pause(now)
        if refused:
            pause = backoff.of_refused(pause)
        else:
            backoff.accepted(now)
        now += pause
    return times


def test_pauses_double_within_the_quick_phase_and_slow_down_to_a_minute_after_it() -> None:
    times = connections(ConnectBackoff(2.0, 60.0, longest), 600)
    pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
    assert pauses[:6] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    slow = pauses[sum(time < QUICK_PHASE_SECS for time in times) :]
    assert slow[:6] == [4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(slow[4:]) == {60.0}
    assert all(pause <= 2.0 for time, pause in zip(times, pauses, strict=False) if time < QUICK_PHASE_SECS)


@pytest.mark.parametrize("seed", range(20))
def test_weekend_at_a_mute_gateway_costs_at_most_two_connections_a_minute(seed: int) -> None:
    backoff = ConnectBackoff(2.0, 60.0, random.Random(seed).uniform)
    weekend = 48 * 3600
    assert len(connections(backoff, weekend)) <= 2 * weekend / 60 + 60
    assert len(connections(ConnectBackoff(2.0, 60.0, random.Random(seed).uniform), 30)) <= 40


def test_jitter_is_from_half_of_the_pause_to_all_of_it() -> None:
    backoff = ConnectBackoff(2.0, 60.0, random.Random(1).uniform)
    pauses = [backoff.pause(QUICK_PHASE_SECS) for _ in range(50)]
    assert all(30.0 <= pause <= 60.0 for pause in pauses[6:])
    assert len(set(pauses)) == 50


def test_port_at_which_nothing_listens_is_tried_every_few_seconds_for_ever() -> None:
    times = connections(ConnectBackoff(2.0, 60.0, longest), 3600, refused=True)
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) == 5.0


def test_gateway_that_listens_again_after_long_is_tried_quickly_once() -> None:
    backoff = ConnectBackoff(2.0, 60.0, longest)
    connections(backoff, 3600, refused=True)
    backoff.accepted(3600.0)
    assert backoff.pause(3600.0) == 0.2
    for _ in range(20):
        backoff.pause(3700.0)
        backoff.of_refused(60.0)
        backoff.accepted(3700.0)
    assert backoff.pause(3700.0) == 60.0, "a port that flaps is not met with a quick phase each time"


def test_slow_pause_is_never_shorter_than_the_quick_one() -> None:
    backoff = ConnectBackoff(10.0, 1.0, longest)
    assert [backoff.pause(QUICK_PHASE_SECS) for _ in range(3)] == [10.0, 10.0, 10.0]


def test_new_loss_begins_with_the_quick_phase() -> None:
    backoff = ConnectBackoff(2.0, 60.0, longest)
    connections(backoff, 600)
    backoff.begin(600.0)
    assert backoff.pause(600.0) == 0.2
