"""The supply of slots by itself: what a 309 means, and when and for how many to ask again."""

from __future__ import annotations

import math

from ibkr_depth_pipeline.rotation.slot_allocator import (
    GRANTED_SECS,
    HELD_AFTER_DROP_SECS,
    RELEASE_LESSONS,
    SlotAllocator,
)
from ibkr_depth_pipeline.rotation.slots import Slot

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
