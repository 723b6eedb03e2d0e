"""Which symbols are asked about, and when. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.resolver import (
    AT_ONCE,
    FIRST_PATIENCE_SECS,
    LONGEST_PATIENCE_SECS,
    SPACING_SECS,
    QuestionSchedule,
    patience_secs,
)

NAMES = [f"S{number:03}" for number in range(300)]


def asked(schedule: QuestionSchedule, now: float) -> list[str]:
    return [symbol for symbol, _ in schedule.due(now)]


def test_symbols_are_asked_about_in_their_order_and_a_bounded_number_at_once() -> None:
    schedule = QuestionSchedule(NAMES)
    assert asked(schedule, 0.0) == NAMES[:AT_ONCE]
    assert asked(schedule, 0.0) == []
    schedule.answered(NAMES[3], 0.0)
    assert asked(schedule, 0.0) == [NAMES[AT_ONCE]]


def test_question_without_an_answer_is_asked_again_with_growing_patience() -> None:
    schedule, now, patience = QuestionSchedule(["SPY"]), 0.0, []
    for _ in range(8):
        ((symbol, secs),) = schedule.due(now)
        patience.append(secs)
        now += secs
        schedule.unanswered(symbol, now)
    assert patience[:3] == [FIRST_PATIENCE_SECS * factor for factor in (1, 2, 4)]
    assert patience[-1] == LONGEST_PATIENCE_SECS == patience_secs(10_000)


def test_patience_is_twice_what_a_slow_gateway_takes() -> None:
    schedule = QuestionSchedule(["A", "B"], at_once=1)
    asked(schedule, 0.0)
    schedule.answered("A", 5.0, took=5.0)
    assert schedule.due(5.0) == [("B", 10.0)]


def test_symbols_that_stay_silent_hold_no_other_up() -> None:
    schedule = QuestionSchedule(NAMES, at_once=2)
    silent = asked(schedule, 0.0)
    for symbol in silent:
        schedule.unanswered(symbol, FIRST_PATIENCE_SECS)
    assert asked(schedule, FIRST_PATIENCE_SECS) == [*silent, *NAMES[2:4]]


def test_refusal_that_comes_at_once_is_not_asked_again_at_once() -> None:
    schedule = QuestionSchedule(["SPY"])
    assert asked(schedule, 0.0)
    schedule.unanswered("SPY", 0.01)
    assert asked(schedule, 0.02) == []
    assert schedule.next_at() == FIRST_PATIENCE_SECS


def test_question_of_a_broken_connection_is_asked_again_before_later_symbols() -> None:
    schedule = QuestionSchedule(NAMES, at_once=2)
    first = asked(schedule, 0.0)
    for symbol in first:
        schedule.lost(symbol, 1.0)
    assert asked(schedule, 2.0) == first


def test_news_of_the_gateway_ends_every_pause_and_gives_old_questions_up() -> None:
    schedule = QuestionSchedule(["A", "B", "C"], at_once=2)
    asked(schedule, 0.0)
    schedule.unanswered("A", FIRST_PATIENCE_SECS)
    assert asked(schedule, FIRST_PATIENCE_SECS) == ["A", "C"]
    assert schedule.hurry(FIRST_PATIENCE_SECS + 1) == ["B"]
    assert asked(schedule, FIRST_PATIENCE_SECS + 1) == ["B"]


def test_symbol_that_was_answered_is_asked_about_again_after_a_pause() -> None:
    schedule = QuestionSchedule(["SPY"])
    asked(schedule, 0.0)
    schedule.answered("SPY", 1.0)
    assert schedule.is_done
    schedule.add("SPY")
    assert asked(schedule, 1.0) == []
    assert asked(schedule, 1.0 + SPACING_SECS) == ["SPY"]
    schedule.add("SPY")
    assert asked(schedule, 1.0 + SPACING_SECS) == []


@given(st.lists(st.sampled_from(["answered", "unanswered", "lost", "hurry"]), max_size=200), st.integers(1, 5))
def test_every_symbol_is_answered_in_the_end(happenings: list[str], at_once: int) -> None:
    schedule, now, open_questions = QuestionSchedule(NAMES[:20], at_once), 0.0, []
    for happening in happenings:
        now += 1.0
        open_questions += asked(schedule, now)
        assert len(open_questions) <= 2 * at_once
        if happening == "hurry":
            given_up = schedule.hurry(now)
            open_questions = [symbol for symbol in open_questions if symbol not in given_up]
        elif open_questions:
            symbol = open_questions.pop(0)
            if happening == "answered":
                schedule.answered(symbol, now)
            else:
                getattr(schedule, happening)(symbol, now)
    while not schedule.is_done:
        for symbol in open_questions:
            schedule.answered(symbol, now)
        at = schedule.next_at()
        now = now if at is None else max(now, at)
        open_questions = asked(schedule, now)
        assert open_questions or schedule.is_done
