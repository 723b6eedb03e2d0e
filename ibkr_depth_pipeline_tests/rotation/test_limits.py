"""What adapts, by itself."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.limits import Patience
from ibkr_depth_pipeline.rotation.slots import Slot

CAP = 15.0


def waits(patience: Patience, times: int) -> list[float]:
    """After how many caps of silence A is asked for anew, that often in a row."""
    found = []
    for _ in range(times):
        caps = 0.0
        while not patience.runs_out(Slot(1, "A", requested_at=0.0), caps * CAP):
            caps += 0.5
        found.append(caps)
    return found


def test_a_symbol_that_stays_silent_is_asked_for_ever_more_rarely_up_to_a_bound() -> None:
    assert waits(Patience(CAP), 5) == [1, 2, 4, 4, 4]


def test_once_it_answers_its_silence_is_forgotten() -> None:
    patience = Patience(CAP)
    waits(patience, 3)
    patience.answered("A")
    assert waits(patience, 1) == [1]


def test_a_subscription_that_has_answered_is_never_made_anew_for_its_silence() -> None:
    assert not Patience(CAP).runs_out(Slot(1, "A", requested_at=0.0, answered_at=0.1), 100 * CAP)
