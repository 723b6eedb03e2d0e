"""How many slots may be requested and when: batch, cooldown, and the pause between a cancel and the next request."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.slot_allocator import (
    COOLDOWN_BACKOFF,
    FIRST_TRIAL_TURNS,
    GRANTED_SECS,
    HELD_AFTER_DROP_SECS,
    LONGEST_TRIAL_TURNS,
    RELEASE_LESSONS,
    BatchSize,
    Cooldown,
    ReleasePause,
    SlotAllocator,
)
from ibkr_depth_pipeline.rotation.slots import FirstRowBackoff, Slot

COOLDOWN = 8.0
LONG_AFTER = 1000.0
FIRST_LESSON, LONGEST_LESSON = RELEASE_LESSONS


def three_held() -> SlotAllocator:
    """A connection that is old, on which a batch of three was given back at LONG_AFTER and asked for at once."""
    supply = SlotAllocator(3, 4, COOLDOWN)
    supply.connected(0.0)
    supply.asked([1, 2, 3], 0.0)
    supply.answered(3)
    supply.giving_back(3)
    supply.released(LONG_AFTER)
    supply.asked([4, 5, 6], LONG_AFTER)
    return supply


def test_309_right_after_our_own_cancels_is_waited_out_and_shrinks_nothing() -> None:
    supply = three_held()
    assert supply.secs_until_free(4, held=2, now=LONG_AFTER + 0.1) == FIRST_LESSON
    assert supply.free_at == LONG_AFTER + FIRST_LESSON
    assert (supply.batch_size, supply.at_once) == (3, 3)


def test_309s_of_one_filling_teach_one_lesson_and_those_of_the_next_a_longer_one() -> None:
    supply = three_held()
    for request, held in ((4, 2), (5, 1), (6, 0)):
        assert supply.secs_until_free(request, held, LONG_AFTER + 0.1) == FIRST_LESSON
    supply.asked([7, 8, 9], LONG_AFTER + FIRST_LESSON)
    assert supply.secs_until_free(7, 2, LONG_AFTER + FIRST_LESSON + 0.1) == LONGEST_LESSON
    supply.asked([10, 11, 12], LONG_AFTER + LONGEST_LESSON)
    assert supply.secs_until_free(10, 2, LONG_AFTER + LONGEST_LESSON + 0.1) is None
    assert supply.pause_secs == 0.0, "they were not late, so nothing was learnt"


def test_pause_after_which_a_slot_was_granted_is_kept() -> None:
    supply = three_held()
    supply.secs_until_free(4, 2, LONG_AFTER + 0.1)
    supply.answered(5)
    supply.asked([7], LONG_AFTER + 1.0)
    assert supply.secs_until_free(7, 0, LONG_AFTER + 60.0) is None
    assert supply.pause_secs == FIRST_LESSON


def test_slot_is_not_late_but_taken_if_an_earlier_request_was_granted() -> None:
    supply = three_held()
    assert supply.secs_until_free(5, held=2, now=LONG_AFTER + 0.1) is None


def test_slot_is_not_late_but_taken_if_more_is_requested_than_was_held() -> None:
    supply = three_held()
    supply.giving_back(2)
    assert supply.secs_until_free(4, held=2, now=LONG_AFTER + 0.1) is None


def test_request_of_an_earlier_filling_tells_nothing_of_lateness() -> None:
    assert three_held().secs_until_free(1, held=0, now=LONG_AFTER + 0.1) is None


def test_taken_slots_shrink_the_batch_and_bring_a_cooldown() -> None:
    supply = three_held()
    supply.taken(2, LONG_AFTER + 0.1)
    assert supply.batch_size == 2
    assert supply.free_at == supply.quiet_until == LONG_AFTER + 0.1 + COOLDOWN


def test_free_slots_are_tried_by_one_request_at_a_time_after_a_connect() -> None:
    supply = SlotAllocator(3, 4, COOLDOWN)
    supply.connected(0.0)
    supply.asked([1, 2, 3], 0.0)
    secs = supply.secs_until_free(1, held=2, now=0.1)
    assert secs is not None
    assert secs < 1.0
    assert supply.quiet_until == 0.1 + secs
    assert (supply.batch_size, supply.at_once) == (3, 1)
    supply.answered(2)
    assert supply.at_once == 3


def test_silence_says_that_a_slot_was_granted_whenever_its_first_row_may_come() -> None:
    supply = SlotAllocator(3, 4, COOLDOWN)
    slots = [Slot(2, "A", requested_at=5.0)]
    assert supply.granted_at(slots) == -math.inf, "nothing is being tried"
    supply.connected(0.0)
    supply.asked([1], 0.0)
    supply.secs_until_free(1, held=0, now=0.1)
    supply.asked([2], 5.0)
    assert supply.granted_at(slots) == 5.0 + GRANTED_SECS
    supply.stayed_silent(slots, 5.0 + GRANTED_SECS - 0.1)
    assert supply.at_once == 1
    supply.stayed_silent(slots, 5.0 + GRANTED_SECS)
    assert supply.at_once == 3


def test_long_after_a_connect_slots_that_were_never_free_are_taken() -> None:
    supply = SlotAllocator(3, 4, COOLDOWN)
    supply.connected(0.0)
    supply.asked([1], 0.0)
    supply.secs_until_free(1, held=0, now=0.1)
    supply.asked([2], 5.0)
    assert supply.secs_until_free(2, held=0, now=HELD_AFTER_DROP_SECS + 1) is None
    assert supply.at_once == 3


CAP = 15.0


def waits(patience: FirstRowBackoff, times: int) -> list[float]:
    """After how many caps of silence A is asked for anew, that often in a row."""
    found = []
    for _ in range(times):
        caps = 0.0
        while not patience.is_over(Slot(1, "A", requested_at=0.0), caps * CAP):
            caps += 0.5
        found.append(caps)
    return found


def test_symbol_that_stays_silent_is_asked_for_ever_more_rarely_up_to_a_bound() -> None:
    assert waits(FirstRowBackoff(CAP), 5) == [1, 2, 4, 4, 4]


def test_once_it_answers_its_silence_is_forgotten() -> None:
    patience = FirstRowBackoff(CAP)
    waits(patience, 3)
    patience.answered("A")
    assert waits(patience, 1) == [1]


def test_subscription_that_has_answered_is_never_made_again_for_its_silence() -> None:
    assert not FirstRowBackoff(CAP).is_over(Slot(1, "A", requested_at=0.0, answered_at=0.1), 100 * CAP)


def test_pause_after_a_309_grows_while_nothing_is_granted_whatever_the_setting() -> None:
    cooldown = Cooldown(0.0)
    assert [cooldown.next_secs() for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, COOLDOWN_BACKOFF.longest]
    cooldown.granted()
    assert cooldown.next_secs() == 0.25


def test_operators_pause_after_a_309_is_kept_where_it_is_longer() -> None:
    cooldown = Cooldown(3.0)
    assert [cooldown.next_secs() for _ in range(6)] == [3.0, 3.0, 3.0, 3.0, 4.0, 8.0]


def test_batch_that_is_larger_than_what_is_held_shrinks_to_it_at_once() -> None:
    size = BatchSize(60, 4)
    size.shrink(held=2)
    assert size.value == 2
    size.shrink(held=0)
    assert size.value == 1


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


@settings(max_examples=40)
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
