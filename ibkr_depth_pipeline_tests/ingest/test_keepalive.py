"""Stalls and quiet markets told apart, in simulated time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.keepalive import KeepaliveAction, StallDetector

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
