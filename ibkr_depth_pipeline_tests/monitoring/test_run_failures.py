"""Failed and canceled runs: one alert each, repetitions counted."""

from __future__ import annotations

from ibkr_depth_pipeline.monitoring.run_failures import (
    FRESH_MS,
    MOST_LIKENESSES,
    REPEAT_MS,
    Ending,
    News,
    tell_endings,
    tell_problem,
)

NOW = 1_700_000_000_000


def ending(run_id: str, reason: str = "the gateway is away", at: int = NOW, job: str = "ingest") -> Ending:
    return Ending(run_id, job, "failed", reason, at - 65_000, at)


def test_each_run_is_told_once() -> None:
    news, alerts = tell_endings(News(NOW - 1000), [ending("r1")], NOW, "default")
    assert [alert.title for alert in alerts] == ["IBKR depth default: ingest failed"]
    assert alerts[0].text == "Run r1 failed after 1 min 5 s.\nthe gateway is away"
    assert tell_endings(news, [ending("r1")], NOW + 15_000, "default") == (news, ())


def test_what_ended_before_the_first_look_is_no_news() -> None:
    assert tell_endings(News(NOW + 1), [ending("r1")], NOW + 5, "default")[1] == ()


def test_the_same_failure_again_and_again_is_counted_and_told_with_the_next_alert() -> None:
    news = News(NOW - 1000)
    told = []
    for number in range(5):
        at = NOW + number * 60_000
        news, alerts = tell_endings(news, [ending(f"r{number}", f"no answer after {number} s", at)], at, "default")
        told += alerts
    assert len(told) == 1
    _, (again,) = tell_endings(news, [ending("r9", "no answer after 9 s", NOW + REPEAT_MS)], NOW + REPEAT_MS, "d")
    assert "4 more like that one" in again.text


def test_another_reason_and_another_job_are_told_at_once() -> None:
    endings = [ending("r1"), ending("r2", "Redis is away"), ending("r3", job="probe")]
    assert len(tell_endings(News(NOW - 1000), endings, NOW, "default")[1]) == 3


def test_two_failures_that_take_turns_are_counted_each() -> None:
    news, told = News(NOW - 1000), []
    for minute in range(60):
        at = NOW + minute * 60_000
        reason = ("the gateway refused", "the lease is held")[minute % 2]
        news, alerts = tell_endings(news, [ending(f"r{minute}", reason, at)], at, "default")
        told += alerts
    assert len(told) == 4, "two at once, two half an hour later"


def test_what_another_job_does_makes_no_old_ending_news() -> None:
    probe = ending("p", job="probe")
    news, told = News(NOW - 1000), 0
    for number in range(200):
        at = NOW + number * 60_000
        endings = [probe, *(ending(f"r{number}-{each}", at=at) for each in range(20))]
        news, alerts = tell_endings(news, endings, at, "default")
        told += sum("probe" in alert.title for alert in alerts)
    assert told == 1


def test_what_is_remembered_is_bounded() -> None:
    endings = [ending(f"r{number}", f"odd {chr(number)}", job=f"job-{chr(number)}") for number in range(200, 400)]
    news, _ = tell_endings(News(NOW - 1000), endings, NOW, "default")
    assert len(news.last) == MOST_LIKENESSES
    later, alerts = tell_endings(news, endings, NOW + FRESH_MS + 1, "default")
    assert (dict(later.known), later.since_ts, alerts) == ({}, NOW + 1, ())


def test_what_ended_while_the_sensor_was_away_is_news_all_the_same() -> None:
    _, alerts = tell_endings(News(NOW - 1000), [ending("r1")], NOW + 10 * FRESH_MS, "default")
    assert len(alerts) == 1


def test_settings_that_are_bad_are_told_once_and_again_only_when_they_were_mended_between() -> None:
    news, told = News(NOW), []
    for problem in ("", "A=1", "A=1", "A=1; B=2", "", "A=1"):
        news, alerts = tell_problem(news, problem, NOW, "default")
        told += [alert.text.splitlines()[0] for alert in alerts]
    assert told == ["A=1", "A=1; B=2", "A=1"]
