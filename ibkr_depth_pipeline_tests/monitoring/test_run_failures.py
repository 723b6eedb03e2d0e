"""Failed and canceled runs: one alert each, repetitions counted."""

from __future__ import annotations

from ibkr_depth_pipeline.monitoring.run_failures import (
    FRESH_MS,
    MOST_SIGNATURES,
    REPEAT_MS,
    FailedRun,
    FailureHistory,
    alert_failed_runs,
    alert_settings_problem,
)

NOW = 1_700_000_000_000


def failed_run(run_id: str, reason: str = "the gateway is away", at: int = NOW, job: str = "ingest") -> FailedRun:
    return FailedRun(run_id, job, "failed", reason, at - 65_000, at)


def test_failed_run_is_alerted_once() -> None:
    history, alerts = alert_failed_runs(FailureHistory(NOW - 1000), [failed_run("r1")], NOW, "default")
    assert [alert.title for alert in alerts] == ["IBKR depth default: ingest failed"]
    assert alerts[0].text == "Run r1 failed after 1 min 5 s.\nthe gateway is away"
    assert alert_failed_runs(history, [failed_run("r1")], NOW + 15_000, "default") == (history, ())


def test_run_that_failed_before_the_first_tick_is_not_alerted() -> None:
    assert alert_failed_runs(FailureHistory(NOW + 1), [failed_run("r1")], NOW + 5, "default")[1] == ()


def test_repeated_failure_is_counted_in_the_next_alert() -> None:
    history = FailureHistory(NOW - 1000)
    raised = []
    for number in range(5):
        at = NOW + number * 60_000
        history, alerts = alert_failed_runs(
            history, [failed_run(f"r{number}", f"no answer after {number} s", at)], at, "default"
        )
        raised += alerts
    assert len(raised) == 1
    _, (again,) = alert_failed_runs(
        history, [failed_run("r9", "no answer after 9 s", NOW + REPEAT_MS)], NOW + REPEAT_MS, "d"
    )
    assert "4 more like that one" in again.text


def test_new_reason_and_other_job_are_alerted_at_once() -> None:
    failed = [failed_run("r1"), failed_run("r2", "Redis is away"), failed_run("r3", job="probe")]
    assert len(alert_failed_runs(FailureHistory(NOW - 1000), failed, NOW, "default")[1]) == 3


def test_alternating_failures_are_counted_separately() -> None:
    history, raised = FailureHistory(NOW - 1000), []
    for minute in range(60):
        at = NOW + minute * 60_000
        reason = ("the gateway refused", "the lease is held")[minute % 2]
        history, alerts = alert_failed_runs(history, [failed_run(f"r{minute}", reason, at)], at, "default")
        raised += alerts
    assert len(raised) == 4, "two at once, two half an hour later"


def test_failures_of_one_job_do_not_alert_old_ones_of_another_again() -> None:
    probe = failed_run("p", job="probe")
    history, raised = FailureHistory(NOW - 1000), 0
    for number in range(200):
        at = NOW + number * 60_000
        failed = [probe, *(failed_run(f"r{number}-{each}", at=at) for each in range(20))]
        history, alerts = alert_failed_runs(history, failed, at, "default")
        raised += sum("probe" in alert.title for alert in alerts)
    assert raised == 1


def test_failure_history_is_bounded() -> None:
    failed = [failed_run(f"r{number}", f"odd {chr(number)}", job=f"job-{chr(number)}") for number in range(200, 400)]
    history, _ = alert_failed_runs(FailureHistory(NOW - 1000), failed, NOW, "default")
    assert len(history.last) == MOST_SIGNATURES
    later, alerts = alert_failed_runs(history, failed, NOW + FRESH_MS + 1, "default")
    assert (dict(later.known), later.since_ts, alerts) == ({}, NOW + 1, ())


def test_run_that_failed_while_the_sensor_was_away_is_alerted() -> None:
    _, alerts = alert_failed_runs(FailureHistory(NOW - 1000), [failed_run("r1")], NOW + 10 * FRESH_MS, "default")
    assert len(alerts) == 1


def test_bad_settings_are_alerted_once_until_they_are_mended() -> None:
    history, raised = FailureHistory(NOW), []
    for problem in ("", "A=1", "A=1", "A=1; B=2", "", "A=1"):
        history, alerts = alert_settings_problem(history, problem, NOW, "default")
        raised += [alert.text.splitlines()[0] for alert in alerts]
    assert raised == ["A=1", "A=1; B=2", "A=1"]
