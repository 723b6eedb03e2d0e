"""The pause between a cancel and the next request: learnt, tried shorter now and then, and unlearnt."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.slot_allocator import (
    FIRST_TRIAL_TURNS,
    LONGEST_TRIAL_TURNS,
    RELEASE_LESSONS,
    ReleasePause,
)

TURN = 10.0
LATENCY = 0.01


@dataclass
class Turns:
    """A gateway with one slot that frees it `lag` after a cancel, and turns of one subscription."""

    lag: float
    pause: ReleasePause = field(default_factory=ReleasePause)
    now: float = 1000.0
    refused: list[int] = field(default_factory=list)  # in which turns
    turn: int = 0
    requests: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def take(self, turns: int) -> None:
        for _ in range(turns):
            self.turn += 1
            self.pause.turn_without_refusal()
            self.pause.released(self.now)
            released = self.now
            while not self._is_granted(released):
                self.refused.append(self.turn)
            self.now = released + TURN

    def _is_granted(self, released: float) -> bool:
        self.now = max(self.now, self.pause.free_at)
        request = next(self.requests)
        self.pause.asked(request, self.now)
        if self.now >= released + self.lag:
            self.pause.granted(request)
            return True
        self.now += LATENCY
        if self.pause.trial_refused(request, self.now) is None:
            assert self.pause.learn(self.now)
        return False


def test_gateway_that_was_late_once_costs_nothing_after_some_turns() -> None:
    gateway = Turns(lag=1.5)
    gateway.take(1)
    assert gateway.pause.secs == RELEASE_LESSONS[-1]
    gateway.lag = 0.0
    gateway.take(2 * FIRST_TRIAL_TURNS + 10)
    assert gateway.pause.secs == 0.0
    assert gateway.refused == [1, 1]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.03, 1.9))
def test_lag_of_a_gateway_that_is_always_late_is_learnt_with_ever_fewer_refusals(lag: float) -> None:
    gateway = Turns(lag)
    gateway.take(600)
    assert lag <= gateway.pause.secs <= 2 * lag + 0.02
    gateway.take(2400)
    assert len(gateway.refused) <= 12
    assert len([turn for turn in gateway.refused if turn > 600]) <= 3
    assert len(set(gateway.refused)) >= len(gateway.refused) - 1, "a trial costs one refusal"


def test_trials_of_a_shorter_pause_become_ever_rarer_up_to_a_bound() -> None:
    gateway = Turns(lag=0.49)
    gateway.take(8 * LONGEST_TRIAL_TURNS)
    waits = [later - earlier for earlier, later in itertools.pairwise(gateway.refused)]
    assert waits == sorted(waits)
    assert max(waits) == LONGEST_TRIAL_TURNS


def test_trial_ends_with_the_connection() -> None:
    pause = ReleasePause()
    pause.released(0.0)
    assert pause.learn(0.1)
    for _ in range(FIRST_TRIAL_TURNS):
        pause.turn_without_refusal()
    pause.released(100.0)
    assert pause.is_trying(100.1)
    assert pause.free_at < 100.0 + pause.secs
    pause.connected()
    assert not pause.is_trying(100.1)
    assert pause.free_at == 100.0 + pause.secs


@pytest.mark.parametrize("late", [0.5, 3600.0])
def test_request_that_is_made_after_the_pause_in_force_tries_nothing(late: float) -> None:
    pause = ReleasePause()
    pause.released(0.0)
    pause.learn(0.1)
    for _ in range(FIRST_TRIAL_TURNS):
        pause.turn_without_refusal()
    pause.released(100.0)
    pause.asked(7, 100.0 + late)
    assert pause.trial_refused(7, 100.1 + late) is None
    assert pause.free_at == 100.0 + pause.secs
