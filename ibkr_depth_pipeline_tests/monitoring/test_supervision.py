"""Which run is dead, and when a session gets a new one."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.monitoring.supervision import (
    DEAD_MS,
    RESTARTS,
    SCHEDULE_MS,
    START_MS,
    Launch,
    Phase,
    Run,
    Sight,
    Span,
    dead,
    missing,
    sights,
)

OPEN = 1_700_000_000_000
HOUR = 3_600_000
SESSION = Span("2023-11-14", OPEN, OPEN + 6 * HOUR)
NOON = OPEN + 3 * HOUR
STARTED = Run("r1", Phase.STARTED, OPEN, OPEN)


def ended(phase: Phase, at: int, lasted: int = 5000, run_id: str = "r1") -> Run:
    return Run(run_id, phase, at - lasted, at - lasted, at)


def test_a_run_whose_heartbeat_stands_is_alive() -> None:
    seen = sights((), [STARTED], "r1", NOON)
    assert dead([STARTED], seen, NOON, lease_wait_ms=0) == {}


def test_a_run_that_was_alive_is_dead_once_its_heartbeat_stays_away() -> None:
    alive = sights((), [STARTED], "r1", NOON)
    silent = sights(alive, [STARTED], "", NOON + 10_000)
    assert not dead([STARTED], silent, NOON + 10_000, lease_wait_ms=HOUR)
    silent = sights(silent, [STARTED], "", NOON + 10_000 + DEAD_MS)
    assert "last seen" in dead([STARTED], silent, NOON + 10_000 + DEAD_MS, lease_wait_ms=HOUR)["r1"]


def test_the_heartbeat_of_another_run_does_not_count() -> None:
    silent = sights((Sight("r1", NOON, NOON),), [STARTED], "r2", NOON + DEAD_MS)
    assert dead([STARTED], silent, NOON + DEAD_MS, lease_wait_ms=0)


def test_while_redis_is_away_nobody_is_dead_and_silence_counts_anew() -> None:
    seen = sights((Sight("r1", NOON, NOON),), [STARTED], None, NOON + HOUR)
    assert not dead([STARTED], seen, NOON + HOUR, lease_wait_ms=0)
    seen = sights(seen, [STARTED], "", NOON + HOUR + 1000)
    assert not dead([STARTED], seen, NOON + HOUR + 1000, lease_wait_ms=0)


def test_a_run_that_has_just_started_or_waits_for_the_lease_has_time() -> None:
    late = OPEN + START_MS + HOUR
    seen = sights((), [STARTED], "", OPEN)
    assert not dead([STARTED], seen, OPEN + START_MS - 1, lease_wait_ms=0)
    assert not dead([STARTED], seen, late - 1, lease_wait_ms=HOUR)
    assert "never seen" in dead([STARTED], seen, late, lease_wait_ms=HOUR)["r1"]


def test_a_session_without_any_run_gets_one_after_the_schedule_had_its_chance() -> None:
    assert isinstance(missing([], SESSION, OPEN + SCHEDULE_MS - 1, alive=""), str)
    assert missing([], SESSION, OPEN + SCHEDULE_MS, alive="") == Launch("2023-11-14 after none")


def test_yesterdays_run_does_not_count_and_no_two_launches_after_one_run_differ() -> None:
    yesterday = [ended(Phase.TERMINATED, OPEN - 20 * HOUR)]
    assert missing(yesterday, SESSION, NOON, alive="") == Launch("2023-11-14 after r1")


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.KILLED, Phase.SUCCEEDED])
def test_after_a_runs_end_dagsters_own_retry_comes_first(phase: Phase) -> None:
    runs = [ended(phase, NOON)]
    assert isinstance(missing(runs, SESSION, NOON + int(RESTARTS.first) - 1, alive=""), str)
    assert isinstance(missing(runs, SESSION, NOON + int(RESTARTS.first), alive=""), Launch)


def test_runs_that_fail_at_once_are_replaced_ever_more_rarely_but_always() -> None:
    runs = [ended(Phase.FAILED, NOON - number * 60_000, run_id=f"r{number}") for number in range(12)]
    assert isinstance(missing(runs, SESSION, NOON + int(RESTARTS.longest) - 1, alive=""), str)
    assert isinstance(missing(runs, SESSION, NOON + int(RESTARTS.longest), alive=""), Launch)
    recorded = ended(Phase.FAILED, NOON, lasted=HOUR, run_id="long")
    assert isinstance(missing([recorded, *runs], SESSION, NOON + int(RESTARTS.first), alive=""), Launch)


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.STARTED, Phase.ENDING])
def test_beside_a_run_that_is_not_over_none_is_started(phase: Phase) -> None:
    assert missing([Run("r1", phase, OPEN)], SESSION, NOON, alive="") == "an ingest run is under way"


REASONS = {
    "outside a session": (None, "", "", NOON, "outside the session"),
    "at the close": (SESSION, "", "", SESSION.close_ts - 1000, "about to close"),
    "beside a recorder that Dagster does not know": (SESSION, "cli", "", NOON, "run cli"),
    "while Redis is away": (SESSION, None, "", NOON, "Redis"),
    "when it is held": (SESSION, "", "held, as it should", NOON, "held, as it should"),
}


@pytest.mark.parametrize(("session", "alive", "hold", "now", "words"), REASONS.values(), ids=REASONS)
def test_no_run_is_started(session: Span | None, alive: str | None, hold: str, now: int, words: str) -> None:
    assert words in str(missing([], session, now, alive=alive, hold=hold))


@pytest.mark.parametrize("created", [OPEN - 40 * 60_000, OPEN + HOUR])
def test_a_run_that_somebody_launched_is_replaced_although_the_ingest_was_held(created: int) -> None:
    by_hand = [Run("r1", Phase.FAILED, created, created, NOON)]
    assert missing(by_hand, SESSION, NOON + HOUR, alive="", hold="held") == Launch("2023-11-14 after r1")


def test_the_run_of_the_session_before_does_not_end_the_hold() -> None:
    before = [Run("r1", Phase.SUCCEEDED, OPEN - 24 * HOUR, OPEN - 24 * HOUR, OPEN + 5000)]
    assert missing(before, SESSION, NOON, alive="", hold="held") == "held"


def test_a_run_that_a_person_terminated_stays_away_until_the_next_session() -> None:
    runs = [ended(Phase.TERMINATED, NOON)]
    assert "terminated by a person" in str(missing(runs, SESSION, NOON + HOUR, alive=""))
    tomorrow = Span("2023-11-15", OPEN + 24 * HOUR, OPEN + 30 * HOUR)
    assert isinstance(missing(runs, tomorrow, OPEN + 25 * HOUR, alive=""), Launch)
