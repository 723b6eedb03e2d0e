"""The ring by itself: who comes next, and who stands aside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.ring import Ring

RETRY = 3600.0


def test_the_next_are_those_at_the_front_that_are_not_busy() -> None:
    ring = Ring("ABCDE", RETRY)
    assert ring.following(2, {"A", "C"}) == ["B", "D"]
    assert ring.following(9, {"A", "C"}) == ["B", "D", "E"]
    assert ring.following(-1, set()) == []


def test_the_served_go_to_the_back_and_the_refused_stay_in_front() -> None:
    ring = Ring("ABCDE", RETRY)
    ring.served(["A", "C"])
    assert list(ring) == ["B", "D", "E", "A", "C"]
    assert ring.front(2) == {"B", "D"}


@given(st.integers(1, 20), st.integers(1, 6))
def test_turn_by_turn_everyone_is_served_equally_often(count: int, batch: int) -> None:
    ring = Ring([f"S{number}" for number in range(count)], RETRY)
    times = dict.fromkeys(ring, 0)
    for _ in range(count):
        chosen = ring.following(batch, ())
        for symbol in chosen:
            times[symbol] += 1
        ring.served(chosen)
    assert set(times.values()) == {min(batch, count)}


def test_a_symbol_aside_is_named_once_when_its_time_has_come_and_again_if_no_answer_comes() -> None:
    ring = Ring("AB", RETRY)
    ring.set_aside("A", 10.0)
    assert "A" not in ring
    assert ring.rechecks() == [10.0 + RETRY]
    assert ring.due_for_recheck(9.0 + RETRY) == []
    assert ring.due_for_recheck(11.0 + RETRY) == ["A"]
    assert ring.due_for_recheck(12.0 + RETRY) == []
    assert ring.rechecks() == [11.0 + 2 * RETRY]


def test_a_symbol_that_has_depth_after_all_joins_at_the_back() -> None:
    ring = Ring("AB", RETRY)
    ring.set_aside("A", 0.0)
    ring.take_in("A")
    ring.take_in("C")
    assert list(ring) == ["B", "A", "C"]
    assert ring.rechecks() == []
