"""Failed and canceled runs: one alert each, repetitions counted."""

from __future__ import annotations

from ibkr_depth_pipeline.alerts.run_news import MOST_KNOWN, REPEAT_MS, Ending, News, tell_endings

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


def test_what_is_remembered_is_bounded() -> None:
    endings = [ending(f"r{number}") for number in range(MOST_KNOWN * 2)]
    news, _ = tell_endings(News(NOW - 1000), endings, NOW, "default")
    assert len(news.known) == MOST_KNOWN
