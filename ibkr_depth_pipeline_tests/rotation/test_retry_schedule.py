"""The retry schedule by itself: how soon a refused symbol is asked for again, and what makes it due at once."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.retry_schedule import (
    FIRST_RETRY_SECS,
    LONE_RETRY,
    RECALL_PACE,
    RECORDED_RETRY_SECS,
    RETRY_BURST,
    SETTLING_SECS,
    UNPROVEN_RETRY_SECS,
    RetrySchedule,
)

HOUR = 3600.0
SETTLED = 10 * SETTLING_SECS


def healthy(symbols: str = "") -> RetrySchedule:
    """A schedule on a connection from 0 s on whose farms are well, long ago."""
    schedule = RetrySchedule(HOUR)
    schedule.connected(0.0)
    schedule.farms_well(0.0, troubled=False)
    for symbol in symbols:
        schedule.refused(symbol, SETTLED, resolvable=True)
    return schedule


def intervals(schedule: RetrySchedule, count: int, now: float, gap: float = 0.0) -> list[float]:
    found = []
    for _ in range(count):
        found.append(schedule.refused("A", now, resolvable=True))
        now += found[-1] + gap
        assert schedule.due(now, alone=False)
    return found


def test_refusal_in_good_health_is_retried_after_seconds_and_ever_more_rarely_up_to_the_longest() -> None:
    found = intervals(healthy(), 9, SETTLED)
    assert found[0] == FIRST_RETRY_SECS
    assert found == sorted(found)
    assert found[1] > found[0]
    assert found[-1] == HOUR


def test_refusal_without_a_word_from_a_farm_proves_nothing_however_often_it_comes() -> None:
    schedule = RetrySchedule(HOUR)
    schedule.connected(0.0)
    assert max(intervals(schedule, 30, SETTLED)) == UNPROVEN_RETRY_SECS


def test_refusal_during_the_trouble_of_a_farm_or_soon_after_an_outage_proves_nothing() -> None:
    schedule = healthy()
    schedule.farms_troubled(SETTLED)
    assert max(intervals(schedule, 30, SETTLED)) == UNPROVEN_RETRY_SECS
    schedule = healthy()
    schedule.outage_over(SETTLED)
    assert not schedule.in_good_health(SETTLED + SETTLING_SECS - 1)
    assert schedule.in_good_health(SETTLED + SETTLING_SECS)


def test_symbol_that_had_rows_is_never_left_for_an_hour() -> None:
    schedule = healthy()
    schedule.answered("A")
    assert max(intervals(schedule, 30, SETTLED)) == RECORDED_RETRY_SECS


def test_rows_end_the_back_off() -> None:
    schedule = healthy()
    intervals(schedule, 5, SETTLED)
    schedule.answered("A")
    assert schedule.refused("A", 2 * HOUR, resolvable=True) == FIRST_RETRY_SECS


def test_longest_interval_below_the_first_one_holds() -> None:
    schedule = RetrySchedule(1.0)
    schedule.connected(0.0)
    assert schedule.refused("A", 1.0, resolvable=False) == 1.0


def test_farm_that_is_well_makes_a_symbol_due_at_once_and_no_flood_of_such_news_makes_a_flood_of_requests() -> None:
    schedule = healthy("A")
    intervals(schedule, 8, SETTLED)
    asked, now = 0, 10 * HOUR
    schedule.refused("A", now, resolvable=True)
    now += 60.0
    schedule.farms_well(now, troubled=False)
    assert schedule.next_due(alone=False) == now
    for _ in range(600):
        if schedule.due(now, alone=False):
            asked += 1
            schedule.refused("A", now, resolvable=True)
        now += 1.0
        schedule.farms_well(now, troubled=False)
    assert 3 < asked < 12


def test_several_notices_within_a_moment_cost_one_retry() -> None:
    schedule = healthy("A")
    now = SETTLED + 60.0
    schedule.farms_well(now, troubled=False)
    (due,) = schedule.due(now, alone=False)
    schedule.refused(due.symbol, now + 0.1, resolvable=True)
    schedule.farms_well(now + 0.2, troubled=False)
    schedule.farms_well(now + 0.3, troubled=False)
    assert schedule.next_due(alone=False) >= now + RECALL_PACE.first


def test_new_connection_makes_every_refused_symbol_due_in_bursts() -> None:
    symbols = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    schedule = healthy(symbols)
    now = SETTLED + 4.0
    schedule.connected(now)
    named: list[str] = []
    for _ in range(len(symbols)):
        due = schedule.due(now, alone=False)
        assert len(due) <= RETRY_BURST
        named += [each.symbol for each in due]
        now += 0.3
    assert sorted(named) == sorted(symbols)


def test_one_of_many_refused_symbols_is_tried_at_least_each_minute_in_turn() -> None:
    schedule = healthy("ABC")
    now = SETTLED
    for symbol in "ABC":
        for _ in range(9):
            schedule.refused(symbol, now, resolvable=True)
    tried: list[str] = []
    times: list[float] = []
    for _ in range(12):
        now = max(now, schedule.next_due(alone=True) or 0.0)
        for due in schedule.due(now, alone=True):
            tried.append(due.symbol)
            times.append(now)
            schedule.refused(due.symbol, now, resolvable=True)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) <= LONE_RETRY.longest
    assert set(tried) == set("ABC")


def test_symbol_without_a_contract_is_resolved_again_and_named_again_if_no_answer_comes() -> None:
    schedule = healthy()
    schedule.refused("A", SETTLED, resolvable=False)
    now = SETTLED + FIRST_RETRY_SECS
    assert schedule.due(now, alone=False) == [("A", True)]
    again = schedule.next_due(alone=False)
    assert again is not None
    assert again > now + 1.0
    assert schedule.due(again, alone=False) == [("A", True)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["connected", "well", "bad", "outage", "refused", "unresolved", "rows"]),
            st.sampled_from("ABCDEFGH"),
            st.floats(0, 100),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_next_time_is_later_than_the_one_that_was_served(steps: list[tuple[str, str, float]], alone: bool) -> None:
    schedule, now = RetrySchedule(HOUR), 0.0
    for happening, symbol, secs in steps:
        match happening:
            case "connected":
                schedule.disconnected()
                schedule.connected(now)
            case "well" | "bad":
                schedule.farms_well(now, troubled=happening == "bad")
            case "outage":
                schedule.outage_over(now)
            case "rows":
                schedule.answered(symbol)
            case _:
                schedule.refused(symbol, now, resolvable=happening == "refused")
        now += secs
        schedule.due(now, alone)
        following = schedule.next_due(alone)
        assert following is None or following > now
