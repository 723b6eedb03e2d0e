"""The ring by itself: who comes next, how often, and who keeps a slot."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.ring import Priority, Ring


def test_next_are_those_at_the_front_that_are_not_busy() -> None:
    ring = Ring("ABCDE")
    assert ring.following(2, {"A", "C"}, 3) == ["B", "D"]
    assert ring.following(9, {"A", "C"}, 3) == ["B", "D", "E"]
    assert ring.following(-1, set(), 3) == []


def test_served_go_to_the_back_and_the_refused_stay_in_front() -> None:
    ring = Ring("ABCDE")
    ring.served(["A", "C"], 3)
    assert list(ring) == ["B", "D", "E", "A", "C"]
    assert ring.front(2) == {"B", "D"}


@given(st.integers(1, 20), st.integers(1, 6))
def test_turn_by_turn_everyone_is_served_equally_often(count: int, batch: int) -> None:
    ring = Ring([f"S{number}" for number in range(count)])
    times = dict.fromkeys(ring, 0)
    for _ in range(count):
        chosen = ring.following(batch, (), batch)
        for symbol in chosen:
            times[symbol] += 1
        ring.served(chosen, batch)
    assert set(times.values()) == {min(batch, count)}


def test_symbol_that_is_taken_back_comes_next_and_a_new_one_last() -> None:
    ring = Ring("AB")
    ring.remove("B")
    assert "B" not in ring
    ring.take_in("C")
    ring.take_back("B")
    ring.take_back("B")
    assert list(ring) == ["B", "A", "C"]


# ---- weights and pins

WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def ring_of(weights: list[int], pinned: set[int] = frozenset()) -> Ring:  # type: ignore[assignment]
    ring = Ring()
    for number, weight in enumerate(weights):
        ring.set_priority(f"S{number}", Priority(weight, number in pinned))
        ring.take_in(f"S{number}")
    return ring


def turns_of(ring: Ring, slots: int, count: int) -> list[list[str]]:
    turns = []
    for _ in range(count):
        turns.append(ring.following(slots, (), slots))
        ring.served(turns[-1], slots)
    return turns


def gaps_of(symbol: str, turns: list[list[str]]) -> list[int]:
    on = [number for number, turn in enumerate(turns) if symbol in turn]
    return [after - before - 1 for before, after in zip([-1, *on], [*on, len(turns)], strict=True)]


@settings(max_examples=60)
@given(WEIGHTS, st.integers(1, 6))
def test_no_symbol_waits_longer_than_the_bound_of_its_weight(weights: list[int], slots: int) -> None:
    ring = ring_of(weights)
    bounds = ring.longest_gaps(slots)
    turns = turns_of(ring, slots, 4 * sum(weights))
    for symbol, bound in bounds.items():
        assert max(gaps_of(symbol, turns)) <= bound


@settings(max_examples=50)
@given(WEIGHTS, st.integers(1, 6))
def test_turns_are_given_by_weight_as_far_as_a_symbol_can_use_them(weights: list[int], slots: int) -> None:
    ring = ring_of(weights)
    shares = ring.shares(slots)
    count = 3 * sum(weights)
    turns = turns_of(ring, slots, count)
    assert all(len(set(turn)) == len(turn) == min(slots, len(weights)) for turn in turns)
    for symbol, share in shares.items():
        held = sum(symbol in turn for turn in turns)
        assert abs(held - share * count) <= 2 + 0.02 * count


@settings(max_examples=50)
@given(WEIGHTS, st.integers(1, 6), st.data())
def test_no_symbol_is_starved_while_others_come_and_go(weights: list[int], slots: int, data: st.DataObject) -> None:
    ring = ring_of(weights)
    bound = {f"S{number}": 2 * sum(weights) // weight + 3 for number, weight in enumerate(weights)}
    waited = dict.fromkeys(bound, 0)
    for turn in range(3 * sum(weights)):
        if turn % 3 == 0:
            flapping = data.draw(st.sampled_from(sorted(bound)))
            if flapping in ring and len(ring) > 1:
                ring.remove(flapping)
                waited[flapping] = 0
            elif flapping not in ring:
                (ring.take_in if data.draw(st.booleans()) else ring.take_back)(flapping)
        chosen = ring.following(slots, (), slots)
        ring.served(chosen, slots)
        for symbol in ring:
            waited[symbol] = 0 if symbol in chosen else waited[symbol] + 1
            assert waited[symbol] <= 2 * bound[symbol]


def test_turns_of_a_heavy_symbol_are_spaced_evenly() -> None:
    ring = ring_of([3, 1, 1, 1, 1, 1, 1])
    order = [symbol for (symbol,) in turns_of(ring, 1, 27)]
    on = [number for number, symbol in enumerate(order) if symbol == "S0"]
    assert {after - before for before, after in pairwise(on)} == {3}
    assert order.count("S0") == 9
    assert all(order.count(f"S{number}") == 3 for number in range(1, 7))


@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["turn", "skip", "remove", "back", "join"]), st.integers(0, 11)), max_size=60),
)
def test_ring_with_one_weight_is_a_plain_queue(count: int, slots: int, steps: list[tuple[str, int]]) -> None:
    weight = 1 + count % 3
    ring = ring_of([weight] * count)
    plain = deque(f"S{number}" for number in range(count))
    for number in range(12):
        ring.set_priority(f"S{number}", Priority(weight))
    for step, number in steps:
        symbol = f"S{number}"
        if step in ("turn", "skip"):
            served = list(plain)[:slots][step == "skip" :]
            assert ring.following(slots, (), slots) == list(plain)[:slots]
            ring.served(served, slots)
            for each in served:
                plain.remove(each)
                plain.append(each)
        elif step == "remove":
            ring.remove(symbol)
            if symbol in plain:
                plain.remove(symbol)
        elif symbol not in plain:
            (ring.take_in if step == "join" else ring.take_back)(symbol)
            (plain.append if step == "join" else plain.appendleft)(symbol)
        assert list(ring) == list(plain)


@settings(max_examples=40)
@given(WEIGHTS, st.integers(1, 6), st.sets(st.integers(0, 29), max_size=8))
def test_pins_keep_their_slot_and_leave_one_for_the_others(weights: list[int], slots: int, pinned: set[int]) -> None:
    ring = ring_of(weights, pinned)
    held = ring.pins(slots)
    pins = len([number for number in pinned if number < len(weights)])
    assert len(held) == (pins if pins == len(weights) <= slots else min(pins, slots - 1))
    turns = turns_of(ring, slots, 2 * sum(weights) + 2)
    assert all(set(held) <= set(turn) for turn in turns)
    assert {symbol for turn in turns for symbol in turn} == set(ring)
    assert all(ring.longest_gaps(slots)[symbol] == 0 for symbol in held)


def test_pins_without_a_slot_for_each_leave_one_to_take_turns_with() -> None:
    ring = ring_of([1, 1, 1, 1], {0, 1, 2, 3})
    assert ring.pins(4) == ["S0", "S1", "S2", "S3"]
    assert ring.pins(3) == ["S0", "S1"]
    assert {symbol for turn in turns_of(ring, 3, 4) for symbol in turn} == set(ring)


def test_symbol_in_focus_is_pinned_before_all_others() -> None:
    ring = ring_of([1, 1, 1, 1], {1})
    assert ring.pins(3) == ["S1"]
    ring.focus(["S3"])
    assert ring.pins(3) == ["S3", "S1"]
    assert ring.pins(2) == ["S3"]
    assert ring.pins(1) == []
    ring.focus([])
    assert ring.pins(3) == ["S1"]


def test_symbol_whose_weight_changes_takes_its_turns_by_the_new_one() -> None:
    ring = ring_of([1, 1, 1, 1])
    ring.set_priority("S2", Priority(4))
    order = [symbol for (symbol,) in turns_of(ring, 1, 70)]
    assert order.count("S2") == 40
    ring.set_priority("S2", Priority())
    order = [symbol for (symbol,) in turns_of(ring, 1, 40)]
    assert order.count("S2") == 10
    ring.forget("S2")
    assert "S2" not in ring


def test_symbol_that_lets_others_pass_loses_one_place_more_each_time_until_it_is_granted_a_slot() -> None:
    ring = Ring("ABCD")
    ring.let_pass("A", 1)
    assert list(ring) == ["B", "A", "C", "D"]
    ring.let_pass("A", 1)
    assert list(ring) == ["B", "C", "D", "A"]
    ring.granted("B")
    ring.let_pass("B", 1)
    ring.let_pass("A", 1)
    ring.let_pass("Z", 1)
    assert list(ring) == ["C", "B", "D", "A"]


def test_only_symbol_of_its_weight_lets_those_of_others_pass() -> None:
    ring = Ring("ABC")
    ring.set_priority("A", Priority(weight=5))
    assert ring.following(1, (), 1) == ["A"]
    for _ in range(5):
        ring.let_pass("A", 1)
    assert ring.following(1, (), 1) == ["B"]
