"""The pace of messages: the bound of the token bucket, the reaction to a 100, and the order of the queue. Pure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.gateway.pacing import (
    BURST_SECS,
    CANCEL,
    DEFAULT_RATE,
    DEPTH,
    DETAILS,
    HOLD,
    LEAST_RATE,
    RECOVERY_SECS,
    SILENCE_SECS,
    SUSPECT_SECS,
    TIME,
    URGENT_IN_A_ROW,
    Outgoing,
    SendQueue,
    SendSchedule,
    TokenBucket,
)

RATES = st.floats(1, 60)
PAUSES = st.floats(0, 2)


def sent_by(bucket: TokenBucket, pauses: list[float], violations: frozenset[int] = frozenset()) -> list[float]:
    """The times at which a client that tries at these intervals sends messages."""
    now, sent = 1000.0, []
    for step, pause in enumerate(pauses):
        now += pause
        if step in violations:
            bucket.violated(now)
        while bucket.take(now):
            sent.append(now)
    return sent


@given(RATES, st.lists(PAUSES, max_size=40), st.frozensets(st.integers(0, 59), max_size=5))
def test_bucket_never_exceeds_its_burst_and_rate(rate: float, pauses: list[float], violations: frozenset[int]) -> None:
    burst, least = max(1.0, rate * BURST_SECS), float("inf")
    for number, at in enumerate(sent_by(TokenBucket(rate), pauses, violations)):
        least = min(least, number - rate * at)
        assert number - rate * at - least + 1 <= burst + 1e-3


@given(RATES)
def test_bucket_keeps_its_rate_when_it_is_used_as_soon_as_it_is_ready(rate: float) -> None:
    bucket, now = TokenBucket(rate), 0.0
    for _ in range(100):
        now = bucket.ready_at(now)
        assert bucket.take(now)
    assert now <= 100 / rate + 1e-3


def test_default_rate_leaves_half_of_the_limit_to_other_clients() -> None:
    assert DEFAULT_RATE * (1 + BURST_SECS) <= 25


def test_violation_halves_the_rate_and_silences_for_a_second() -> None:
    bucket = TokenBucket(20)
    assert bucket.violated(100.0)
    assert bucket.rate == 10
    assert bucket.ready_at(100.0) == pytest.approx(100.0 + SILENCE_SECS)


def test_violations_of_one_second_lower_the_rate_once() -> None:
    bucket = TokenBucket(20)
    assert [bucket.violated(100.0 + step / 10) for step in range(5)] == [True, False, False, False, False]
    assert bucket.rate == 10


def test_rate_is_never_lowered_below_its_bound_and_never_silent_for_good() -> None:
    bucket = TokenBucket(20)
    sent = sent_by(bucket, [0.1] * 2000, frozenset(range(2000)))
    assert bucket.rate == LEAST_RATE
    assert max(later - earlier for earlier, later in pairwise(sent)) < 3 / LEAST_RATE


def test_lowered_rate_stands_for_a_while_and_recovers_by_steady_additions() -> None:
    bucket = TokenBucket(20)
    bucket.violated(0.0)
    bucket.ready_at(HOLD.first)
    assert bucket.rate == 10
    bucket.ready_at(HOLD.first + RECOVERY_SECS / 4)
    assert bucket.rate == pytest.approx(15)
    bucket.ready_at(HOLD.first + RECOVERY_SECS)
    assert bucket.rate == 20


def test_recovery_that_meets_another_violation_waits_twice_as_long() -> None:
    bucket = TokenBucket(20)
    bucket.violated(0.0)
    bucket.violated(HOLD.first + 1)
    bucket.ready_at(HOLD.first + 1 + 2 * HOLD.first)
    assert bucket.rate == pytest.approx((10 + 20 / RECOVERY_SECS) / 2)


@given(st.lists(st.tuples(st.integers(), st.booleans()), max_size=200))
def test_each_kind_of_message_leaves_in_its_order_and_none_is_lost(messages: list[tuple[int, bool]]) -> None:
    queue: SendQueue[tuple[int, bool]] = SendQueue()
    for message in messages:
        queue.put(message, urgent=message[1])
    left = [queue.take() for _ in messages]
    assert not queue
    for urgent in (True, False):
        assert [each for each in left if each[1] is urgent] == [each for each in messages if each[1] is urgent]


def test_urgent_message_overtakes_hundreds_of_queries() -> None:
    queue: SendQueue[str] = SendQueue()
    for _ in range(300):
        queue.put("query", urgent=False)
    queue.put("depth", urgent=True)
    assert queue.take() == "depth"


def test_query_is_not_starved_by_urgent_messages() -> None:
    queue: SendQueue[str] = SendQueue()
    queue.put("query", urgent=False)
    taken = []
    for _ in range(20):
        queue.put("depth", urgent=True)
        taken.append(queue.take())
    assert taken.index("query") == URGENT_IN_A_ROW


def test_message_that_is_sent_again_goes_before_what_came_later() -> None:
    queue: SendQueue[str] = SendQueue()
    queue.put("later", urgent=True)
    queue.put_back(["cancel", "subscribe"])
    assert [queue.take() for _ in range(3)] == ["cancel", "subscribe", "later"]


def message(kind: int, request: int = 0) -> Outgoing:
    return Outgoing(f"{kind}\0001\0{request}\0", kind, request)


def schedule_with(*sent: Outgoing, needed: bool = True) -> SendSchedule:
    """A schedule that has sent these at second 0."""
    schedule = SendSchedule(TokenBucket(1000), lambda _: needed)
    for each in sent:
        schedule.put(each)
    assert list(schedule.due(0.0)) == list(sent)
    return schedule


@pytest.mark.parametrize("kind", [DEPTH, CANCEL, DETAILS, TIME])
def test_type_and_request_id_of_a_message_are_parsed_from_its_text(kind: int) -> None:
    sent = Outgoing.of_text(f"{kind}\0001\00077\000rest\0")
    assert (sent.kind, sent.request) == (kind, 0 if kind == TIME else 77)


def test_messages_before_a_100_are_sent_once_more_in_their_order_after_the_silence() -> None:
    schedule = schedule_with(message(DEPTH, 1), message(CANCEL, 2), message(TIME))
    schedule.violated(1.0)
    assert list(schedule.due(1.0)) == []
    at = schedule.next_at(1.0)
    assert at is not None
    repeated = list(schedule.due(at + 1))
    assert [(each.kind, each.again) for each in repeated] == [(DEPTH, True), (CANCEL, True), (TIME, True)]
    assert schedule.next_at(at + 1) is None


def test_messages_long_before_a_100_are_not_sent_again() -> None:
    schedule = schedule_with(message(DEPTH, 1))
    schedule.violated(SUSPECT_SECS + 0.1)
    assert schedule.next_at(SUSPECT_SECS + 0.1) is None


def test_message_that_is_not_needed_any_more_is_not_sent_again() -> None:
    schedule = schedule_with(message(DEPTH, 1), needed=False)
    schedule.violated(0.0)
    assert list(schedule.due(10.0)) == []
    assert schedule.next_at(10.0) is None


def test_contract_details_query_is_left_to_its_caller_after_a_100() -> None:
    schedule = schedule_with(message(DETAILS, 1))
    schedule.violated(0.0)
    assert schedule.next_at(0.0) is None


def test_cancel_of_a_depth_request_that_is_sent_again_follows_it() -> None:
    schedule = schedule_with(message(DEPTH, 1))
    schedule.violated(0.0)
    schedule.put(message(CANCEL, 1))
    assert [each.kind for each in schedule.due(10.0)] == [DEPTH, CANCEL]
