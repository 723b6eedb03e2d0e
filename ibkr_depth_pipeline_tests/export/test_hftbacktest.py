"""Events for hftbacktest: pure, replayed here by a plain book; test_peers.py replays them with the package itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import InvalidTransition
from ibkr_depth_pipeline.export.books import Books, price_ladder
from ibkr_depth_pipeline.export.hftbacktest import (
    BUY,
    DEPTH,
    DEPTH_CLEAR,
    DEPTH_SNAPSHOT,
    EVENT,
    SELL,
    EventEncoder,
    check_order,
)

Side = dict[float, float]
"""Size by price."""
State = tuple[Side, Side]
MS = 1_000_000
END_MS = 10**9


def books(states: Sequence[State], segments: Sequence[int] | None = None, first: int = 0) -> Books:
    """What a recorder that sees ten rows a side has of these books, 10 ms apart; `first` is the number of the first."""
    count = len(states)
    at = np.arange(first, first + count)
    ladders = []
    for number, is_bid in enumerate((True, False)):
        prices, sizes = np.zeros((count, 10)), np.zeros((count, 10))
        for row, state in enumerate(states):
            best = sorted(state[number], reverse=is_bid)[:10]
            prices[row, : len(best)] = best
            sizes[row, : len(best)] = [state[number][price] for price in best]
        ladders.append(price_ladder(prices, sizes, is_bid=is_bid))
    yes, segment = np.ones(count, dtype=bool), np.array([0] * count if segments is None else segments)
    return Books(10 * at, 10 * at * MS, at, segment, segment, 10 * at + 3, segment, yes, yes, *ladders)


def replay(events: np.ndarray) -> list[tuple[int, State]]:
    """The book after each moment, by hftbacktest's rules."""
    held: State = ({}, {})
    seen: list[tuple[int, State]] = []
    for at, event in enumerate(events):
        side = held[0] if event["ev"] & BUY else held[1]
        match int(event["ev"]) & 0xFF:
            case code if code == DEPTH_CLEAR:
                side.clear()
            case code if code in (DEPTH, DEPTH_SNAPSHOT) and event["qty"] > 0:
                side[float(event["px"])] = float(event["qty"])
            case _:
                side.pop(float(event["px"]), None)
        if at + 1 == len(events) or events[at + 1]["local_ts"] != event["local_ts"]:
            seen.append((int(event["local_ts"]), (dict(held[0]), dict(held[1]))))
    return seen


def ladder(*prices: int) -> Side:
    return {float(price): 5.0 for price in prices}


def deletions(events: np.ndarray) -> list[tuple[int, float]]:
    gone = events[(events["ev"] & 0xFF == DEPTH) & (events["qty"] == 0)]
    return [(int(event["local_ts"]) // (10 * MS), float(event["px"])) for event in gone]


def test_level_that_is_pushed_out_of_ten_rows_is_not_deleted() -> None:
    before, after = ladder(*range(91, 101)), ladder(*range(91, 102))
    events = EventEncoder().encode(books([(before, {}), (after, {})]))
    assert deletions(events) == []
    assert replay(events)[-1][1][0] == after


def test_level_that_went_while_out_of_reach_is_deleted_when_its_price_is_reached_again() -> None:
    states = [ladder(*range(91, 101)), ladder(*range(91, 102)), ladder(*range(92, 102)), ladder(90, *range(92, 101))]
    events = EventEncoder().encode(books([(state, {}) for state in states]))
    # the best bid went at the end, and the level at 91 at some time before, when it could not be seen
    assert deletions(events) == [(3, 101.0), (3, 91.0)]


def test_side_of_fewer_than_ten_rows_is_known_whole() -> None:
    events = EventEncoder().encode(books([({}, ladder(101, 102, 103)), ({}, ladder(101))]))
    assert deletions(events) == [(1, 102.0), (1, 103.0)]


def test_each_segment_begins_with_clears_and_a_snapshot_and_ends_with_clears() -> None:
    encoder = EventEncoder()
    states = [(ladder(99), ladder(101)), (ladder(98), ladder(101)), (ladder(97), ladder(102))]
    events = np.concatenate([encoder.encode(books(states, [0, 0, 1])), encoder.finish(END_MS)])
    kinds = [(int(event["local_ts"]), int(event["ev"]) & 0xFF) for event in events]
    assert kinds == [
        (0, DEPTH_CLEAR),
        (0, DEPTH_CLEAR),
        (0, DEPTH_SNAPSHOT),
        (0, DEPTH_SNAPSHOT),
        (10 * MS, DEPTH),
        (10 * MS, DEPTH),
        (13 * MS + 1, DEPTH_CLEAR),
        (13 * MS + 1, DEPTH_CLEAR),
        (20 * MS, DEPTH_CLEAR),
        (20 * MS, DEPTH_CLEAR),
        (20 * MS, DEPTH_SNAPSHOT),
        (20 * MS, DEPTH_SNAPSHOT),
        (23 * MS + 1, DEPTH_CLEAR),
        (23 * MS + 1, DEPTH_CLEAR),
    ]
    assert {int(event["ev"]) & (BUY | SELL) for event in events} == {BUY, SELL}


def test_segment_that_goes_on_at_the_end_of_the_range_is_not_cleared() -> None:
    encoder = EventEncoder()
    encoder.encode(books([(ladder(99), ladder(101))]))
    assert len(encoder.finish(3)) == 0


def test_books_before_a_whole_one_have_no_events() -> None:
    found = books([(ladder(99), {}), (ladder(99), ladder(101))])
    found.whole[0] = False
    assert EventEncoder().encode(found)["local_ts"].min() == 10 * MS


def test_order_that_hftbacktest_would_refuse_is_refused() -> None:
    events = np.zeros(2, EVENT)
    events["local_ts"] = [2, 1]
    with pytest.raises(InvalidTransition, match="local_ts"):
        check_order(events)


CHANGES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 24), st.sampled_from([0.0, 1.0, 2.0, 3.0])), min_size=1, max_size=60
)


def states_of(changes: Sequence[tuple[int, int, float]]) -> list[State]:
    """Books of up to 25 levels a side: much of them out of sight."""
    held: State = ({}, {})
    states = []
    for side, place, size in [(s, p, 1.0) for s in (0, 1) for p in range(0, 24, 2)] + list(changes):
        price = float(100 - place if side == 0 else 101 + place)
        if size:
            held[side][price] = size
        else:
            held[side].pop(price, None)
        states.append((dict(held[0]), dict(held[1])))
    return states


@given(changes=CHANGES, cuts=st.lists(st.integers(0, 80), max_size=4))
def test_any_books_are_seen_right_within_ten_rows_and_nothing_that_stands_is_deleted(
    changes: list[tuple[int, int, float]], cuts: list[int]
) -> None:
    states = states_of(changes)
    encoder = EventEncoder()
    borders = sorted({0, len(states), *(cut for cut in cuts if cut < len(states))})
    pieces = [encoder.encode(books(states[a:b], first=a)) for a, b in pairwise(borders)]
    events = np.concatenate(pieces)
    assert events.tobytes() == EventEncoder().encode(books(states)).tobytes(), "cuts change nothing"
    for row, price in deletions(events):
        assert price not in states[row][0]
        assert price not in states[row][1]
    held = dict(replay(events))
    seen: State = ({}, {})
    for row, state in enumerate(states):
        seen = held.get(row * 10 * MS, seen)
        for number, sign in enumerate((-1, 1)):
            rows = sorted(state[number], key=lambda price: sign * price)[:10]
            reach = sign * rows[-1] if len(rows) == 10 else np.inf
            within = {price: size for price, size in seen[number].items() if sign * price <= reach}
            assert within == {price: state[number][price] for price in rows}
