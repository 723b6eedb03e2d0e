"""Stalls and quiet markets told apart; steps of the host's clock and its corrections; bounds of the gateway's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.keepalive import (
    SHOWN_SECS,
    WINDOW_SECS,
    ClockStepDetector,
    GatewayClock,
    KeepaliveAction,
    StallDetector,
)
from ibkr_depth_pipeline.ingest.liveness import DataGaps

LIMIT = 10.0


def watch(secs: float, *, rows_until: float, answers_until: float, limit: float = LIMIT) -> float | None:
    """When the connection was given up, of `secs` watched; rows and answers come until the times given."""
    stalls = StallDetector(limit)
    stalls.connected(0.0, 0)
    now, rows = 0.0, 0
    while now <= secs:
        rows += now < rows_until
        verdict = stalls.check(now, rows)
        if verdict is KeepaliveAction.GIVE_UP:
            return now
        if verdict is KeepaliveAction.ASK and now < answers_until:
            stalls.answered(now)
        now += stalls.interval
    return None


@given(st.floats(0, 500), st.floats(0.5, 600))
def test_stall_is_noticed_within_one_and_a_half_of_the_limit(since: float, limit: float) -> None:
    since = min(since, 20 * limit)
    given_up = watch(since + 3 * limit, rows_until=since, answers_until=since, limit=limit)
    assert given_up is not None
    assert since + limit * 0.7 <= given_up <= since + limit * 1.5


def test_quiet_market_alone_is_no_stall() -> None:
    assert watch(10_000, rows_until=0, answers_until=10_001) is None


def test_question_that_goes_unanswered_while_rows_come_is_no_stall() -> None:
    assert watch(10_000, rows_until=10_001, answers_until=0) is None


def test_stall_in_a_quiet_market_is_noticed() -> None:
    given_up = watch(10_000, rows_until=0, answers_until=100)
    assert given_up is not None
    assert 100 < given_up < 100 + 1.5 * LIMIT


def test_new_connection_begins_again() -> None:
    stalls = StallDetector(LIMIT)
    stalls.connected(0.0, 0)
    assert stalls.check(0.0, 0) is KeepaliveAction.ASK
    stalls.connected(1000.0, 0)
    assert stalls.check(1000.0, 0) is KeepaliveAction.ASK
    assert stalls.check(1002.5, 0) is KeepaliveAction.WAIT


def test_rows_that_waited_in_the_socket_during_a_pause_of_this_process_count() -> None:
    stalls = StallDetector(LIMIT)
    stalls.connected(0.0, 0)
    assert stalls.check(0.0, 0) is KeepaliveAction.ASK
    assert stalls.check(3600.0, 500) is not KeepaliveAction.GIVE_UP


def test_question_that_got_lost_is_asked_again() -> None:
    stalls = StallDetector(LIMIT)
    stalls.connected(0.0, 0)
    assert stalls.check(0.0, 0) is KeepaliveAction.ASK
    assert stalls.check(4.9, 1) is KeepaliveAction.WAIT
    assert stalls.check(5.0, 2) is KeepaliveAction.ASK
    stalls.answered(5.1)
    assert stalls.check(7.5, 2) is KeepaliveAction.WAIT
    assert stalls.check(7.6, 2) is KeepaliveAction.ASK


START = 1_700_000_000_000


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000, 1_001, -1_001, 365 * 86_400_000])
def test_step_is_one_event_and_is_shown_for_a_while(step_ms: int) -> None:
    detector = ClockStepDetector(START, 50.0)
    assert detector.check(START + 1_000, 51.0) == 0
    assert detector.check(START + 2_000 + step_ms, 52.0) == step_ms
    assert detector.check(START + 3_000 + step_ms, 53.0) == 0
    assert detector.steps == 1
    assert detector.newest_step_ms(53.0) == step_ms
    assert detector.newest_step_ms(52.0 + SHOWN_SECS) == 0


def test_clock_that_is_corrected_slowly_and_a_host_that_sleeps_are_no_steps() -> None:
    detector, wall, now = ClockStepDetector(START, 0.0), float(START), 0.0
    for _ in range(10_000):
        wall, now = wall + 1_000.5, now + 1.0  # 500 ppm, as fast as Linux slews
        assert detector.check(round(wall), now) == 0
    assert detector.check(round(wall) + 8 * 3_600_000, now + 8 * 3_600) == 0
    assert detector.steps == 0


@given(st.integers(-10_000, 10_000), st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 300)), min_size=1))
def test_gateways_clock_is_within_the_bounds(offset_ms: int, answers: list[tuple[int, int]]) -> None:
    clock, host_ms = GatewayClock(), START
    for pause, delay in answers:
        asked, host_ms = host_ms + pause, host_ms + pause + delay
        clock.answered((asked + delay // 2 + offset_ms) // 1000, asked, host_ms, (host_ms - START) / 1000)
    found = clock.offset
    assert found is not None
    assert abs(found.ms - offset_ms) <= found.error_ms + 1
    assert found.error_ms <= 500 + 300


def test_offset_that_changes_is_followed_within_a_window() -> None:
    clock = GatewayClock()
    for second in range(0, 300, 5):
        shift = 0 if second < 100 else 7_000
        now_ms = START + second * 1000 + 400
        clock.answered((now_ms + shift) // 1000, now_ms, now_ms + 10, float(second))
    assert clock.offset is not None
    assert abs(clock.offset.ms - 7_000) <= clock.offset.error_ms
    clock.forget()
    assert clock.offset is None
    assert WINDOW_SECS <= 60


def test_gap_is_as_long_as_it_was_whatever_the_clock_does() -> None:
    gaps = DataGaps()
    gaps.open([("SPY", START)], "connection_lost")
    gaps.clock_stepped(-3_600_000)
    gap = gaps.close("SPY", START - 3_600_000 + 4_000)
    assert gap is not None
    assert gap.secs == 4
