"""What adapts, by itself."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.slot_allocator import COOLDOWN_BACKOFF, BatchSize, Cooldown
from ibkr_depth_pipeline.rotation.slots import FirstRowBackoff, Slot

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
