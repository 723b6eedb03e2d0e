"""Which run is dead, and when a session gets a new one."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.monitoring.supervision import (
    ABSENT_MS,
    DEAD_MS,
    RESTARTS,
    SCHEDULE_MS,
    START_MS,
    Launch,
    Phase,
    RecordingWindow,
    RunHeartbeat,
    StandbyAbsence,
    TrackedRun,
    dead_runs,
    launch_decision,
    observe_heartbeats,
    track_standby,
)
from ibkr_depth_pipeline.schema.alerts import AlertKind

OPEN = 1_700_000_000_000
HOUR = 3_600_000
SESSION = RecordingWindow("2023-11-14", OPEN, OPEN + 6 * HOUR)
NOON = OPEN + 3 * HOUR
STARTED = TrackedRun("r1", Phase.STARTED, OPEN, OPEN)


def ended(phase: Phase, at: int, lasted: int = 5000, run_id: str = "r1") -> TrackedRun:
    return TrackedRun(run_id, phase, at - lasted, at - lasted, at)


def test_run_with_a_heartbeat_is_alive() -> None:
    seen = observe_heartbeats((), [STARTED], "r1", NOON)
    assert dead_runs([STARTED], seen, NOON, lease_wait_ms=0) == {}


def test_run_is_dead_after_its_heartbeat_has_been_gone_for_a_while() -> None:
    alive = observe_heartbeats((), [STARTED], "r1", NOON)
    silent = observe_heartbeats(alive, [STARTED], "", NOON + 10_000)
    assert not dead_runs([STARTED], silent, NOON + 10_000, lease_wait_ms=HOUR)
    silent = observe_heartbeats(silent, [STARTED], "", NOON + 10_000 + DEAD_MS)
    assert "last seen" in dead_runs([STARTED], silent, NOON + 10_000 + DEAD_MS, lease_wait_ms=HOUR)["r1"]


def test_heartbeat_of_another_run_does_not_count() -> None:
    silent = observe_heartbeats((RunHeartbeat("r1", NOON, NOON),), [STARTED], "r2", NOON + DEAD_MS)
    assert dead_runs([STARTED], silent, NOON + DEAD_MS, lease_wait_ms=0)


def test_no_run_is_dead_while_redis_is_unreachable_and_silence_is_counted_again_afterwards() -> None:
    seen = observe_heartbeats((RunHeartbeat("r1", NOON, NOON),), [STARTED], None, NOON + HOUR)
    assert not dead_runs([STARTED], seen, NOON + HOUR, lease_wait_ms=0)
    seen = observe_heartbeats(seen, [STARTED], "", NOON + HOUR + 1000)
    assert not dead_runs([STARTED], seen, NOON + HOUR + 1000, lease_wait_ms=0)


def test_run_that_starts_or_waits_for_the_lease_has_a_grace_period() -> None:
    late = OPEN + START_MS + HOUR
    seen = observe_heartbeats((), [STARTED], "", OPEN)
    assert not dead_runs([STARTED], seen, OPEN + START_MS - 1, lease_wait_ms=0)
    assert not dead_runs([STARTED], seen, late - 1, lease_wait_ms=HOUR)
    assert "never seen" in dead_runs([STARTED], seen, late, lease_wait_ms=HOUR)["r1"]


def test_session_without_a_run_gets_one_after_the_schedules_time() -> None:
    assert isinstance(launch_decision([], SESSION, OPEN + SCHEDULE_MS - 1, alive=""), str)
    assert launch_decision([], SESSION, OPEN + SCHEDULE_MS, alive="") == Launch("2023-11-14 after none")


def test_yesterdays_run_does_not_count_and_names_the_launch() -> None:
    yesterday = [ended(Phase.TERMINATED, OPEN - 20 * HOUR)]
    assert launch_decision(yesterday, SESSION, NOON, alive="") == Launch("2023-11-14 after r1")


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.KILLED])
def test_ended_run_is_replaced_after_dagsters_own_retry_had_its_time(phase: Phase) -> None:
    runs = [ended(phase, NOON)]
    assert isinstance(launch_decision(runs, SESSION, NOON + int(RESTARTS.first) - 1, alive=""), str)
    assert isinstance(launch_decision(runs, SESSION, NOON + int(RESTARTS.first), alive=""), Launch)


def test_run_that_succeeded_is_replaced_at_once_unless_it_only_began() -> None:
    recorded = [ended(Phase.SUCCEEDED, NOON, lasted=int(RESTARTS.first))]
    assert isinstance(launch_decision(recorded, SESSION, NOON, alive=""), Launch)
    brief = [ended(Phase.SUCCEEDED, NOON, lasted=1000)]
    assert isinstance(launch_decision(brief, SESSION, NOON + int(RESTARTS.first) - 1001, alive=""), str)
    assert isinstance(launch_decision(brief, SESSION, NOON + int(RESTARTS.first) - 1000, alive=""), Launch)


def test_runs_that_fail_at_once_are_replaced_with_exponential_backoff() -> None:
    runs = [ended(Phase.FAILED, NOON - number * 60_000, run_id=f"r{number}") for number in range(12)]
    assert isinstance(launch_decision(runs, SESSION, NOON + int(RESTARTS.longest) - 1, alive=""), str)
    assert isinstance(launch_decision(runs, SESSION, NOON + int(RESTARTS.longest), alive=""), Launch)
    recorded = ended(Phase.FAILED, NOON, lasted=HOUR, run_id="long")
    assert isinstance(launch_decision([recorded, *runs], SESSION, NOON + int(RESTARTS.first), alive=""), Launch)


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.STARTED, Phase.ENDING])
def test_second_run_is_not_started_beside_an_active_one(phase: Phase) -> None:
    assert launch_decision([TrackedRun("r1", phase, OPEN)], SESSION, NOON, alive="") == "an ingest run is under way"


REASONS = {
    "outside a session": (None, "", "", NOON, "outside the session"),
    "at the close": (SESSION, "", "", SESSION.close_ts - 1000, "about to close"),
    "beside a recorder that Dagster does not know": (SESSION, "cli", "", NOON, "run cli"),
    "while Redis is away": (SESSION, None, "", NOON, "Redis"),
    "when it is held": (SESSION, "", "held, as it should", NOON, "held, as it should"),
}


@pytest.mark.parametrize(("session", "alive", "hold", "now", "words"), REASONS.values(), ids=REASONS)
def test_no_run_is_started(session: RecordingWindow | None, alive: str | None, hold: str, now: int, words: str) -> None:
    assert words in str(launch_decision([], session, now, alive=alive, hold=hold))


@pytest.mark.parametrize("created", [OPEN - 40 * 60_000, OPEN + HOUR])
def test_manually_launched_run_is_replaced_although_the_ingest_was_held(created: int) -> None:
    by_hand = [TrackedRun("r1", Phase.FAILED, created, created, NOON)]
    assert launch_decision(by_hand, SESSION, NOON + HOUR, alive="", hold="held") == Launch("2023-11-14 after r1")


def test_run_of_the_previous_session_does_not_end_the_hold() -> None:
    before = [TrackedRun("r1", Phase.SUCCEEDED, OPEN - 24 * HOUR, OPEN - 24 * HOUR, OPEN + 5000)]
    assert launch_decision(before, SESSION, NOON, alive="", hold="held") == "held"


def test_run_terminated_by_a_person_is_not_replaced_until_the_next_session() -> None:
    runs = [ended(Phase.TERMINATED, NOON)]
    assert "terminated by a person" in str(launch_decision(runs, SESSION, NOON + HOUR, alive=""))
    tomorrow = RecordingWindow("2023-11-15", OPEN + 24 * HOUR, OPEN + 30 * HOUR)
    assert isinstance(launch_decision(runs, tomorrow, OPEN + 25 * HOUR, alive=""), Launch)


# ---- the standby


def test_run_that_stands_by_is_alive_although_another_one_records() -> None:
    seen = observe_heartbeats((), [STARTED], "r2", NOON, standing_by=["r1"])
    assert seen == (RunHeartbeat("r1", NOON, 0),)
    silent = observe_heartbeats(seen, [STARTED], "r2", NOON + 1000)
    silent = observe_heartbeats(silent, [STARTED], "r2", NOON + 1000 + DEAD_MS)
    assert list(dead_runs([STARTED], silent, NOON + 1000 + DEAD_MS, lease_wait_ms=0)) == ["r1"]


def test_run_of_the_other_job_that_took_over_is_no_reason_against_its_standby() -> None:
    failed = [TrackedRun("r1", Phase.FAILED, OPEN, OPEN, NOON - HOUR)]
    assert "does not know" in str(launch_decision(failed, SESSION, NOON, alive="s1"))
    assert isinstance(launch_decision(failed, SESSION, NOON, alive="s1", others={"s1"}), Launch)


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.STARTED, Phase.ENDING])
def test_lost_recorder_that_is_retried_already_is_not_launched_twice(phase: Phase) -> None:
    runs = [TrackedRun("r2", phase, NOON), TrackedRun("r1", Phase.FAILED, OPEN, OPEN, NOON)]
    assert launch_decision(runs, SESSION, NOON + HOUR, alive="s1", others={"s1"}) == "an ingest run is under way"


def test_missing_standby_is_alerted_once_and_its_return_once() -> None:
    absence, kind = track_standby(StandbyAbsence(), False, NOON)
    assert kind is None
    absence, kind = track_standby(absence, False, NOON + ABSENT_MS - 1)
    assert kind is None
    absence, kind = track_standby(absence, False, NOON + ABSENT_MS)
    assert kind is AlertKind.TROUBLE
    absence, kind = track_standby(absence, False, NOON + 2 * ABSENT_MS)
    assert kind is None
    absence, kind = track_standby(absence, None, NOON + 3 * ABSENT_MS)
    assert kind is None
    absence, kind = track_standby(absence, True, NOON + 4 * ABSENT_MS)
    assert kind is AlertKind.RECOVERY
    assert track_standby(absence, True, NOON + 5 * ABSENT_MS) == (StandbyAbsence(), None)


def test_standby_that_is_replaced_soon_raises_no_alert() -> None:
    absence, _ = track_standby(StandbyAbsence(), False, NOON)
    assert track_standby(absence, True, NOON + ABSENT_MS) == (StandbyAbsence(), None)
