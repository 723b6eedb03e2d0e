"""The ring by itself: who comes next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.ring import Ring


def test_the_next_are_those_at_the_front_that_are_not_busy() -> None:
    ring = Ring("ABCDE")
    assert ring.following(2, {"A", "C"}) == ["B", "D"]
    assert ring.following(9, {"A", "C"}) == ["B", "D", "E"]
    assert ring.following(-1, set()) == []


def test_the_served_go_to_the_back_and_the_refused_stay_in_front() -> None:
    ring = Ring("ABCDE")
    ring.served(["A", "C"])
    assert list(ring) == ["B", "D", "E", "A", "C"]
    assert ring.front(2) == {"B", "D"}


@given(st.integers(1, 20), st.integers(1, 6))
def test_turn_by_turn_everyone_is_served_equally_often(count: int, batch: int) -> None:
    ring = Ring([f"S{number}" for number in range(count)])
    times = dict.fromkeys(ring, 0)
    for _ in range(count):
        chosen = ring.following(batch, ())
        for symbol in chosen:
            times[symbol] += 1
        ring.served(chosen)
    assert set(times.values()) == {min(batch, count)}


def test_a_symbol_that_is_taken_back_comes_next_and_a_new_one_last() -> None:
    ring = Ring("AB")
    ring.remove("B")
    assert "B" not in ring
    ring.take_in("C")
    ring.take_back("B")
    ring.take_back("B")
    assert list(ring) == ["B", "A", "C"]
