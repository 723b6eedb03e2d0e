"""Whole sessions in virtual time, with faults by a seed: what must hold does, and each interesting state is reached.

A plan that fails is shrunk by hypothesis and printed: `python -m ibkr_depth_pipeline_tests.sessions "Plan(...)"`
repeats it, to the last byte. SESSIONS sets how many the long test plays, SESSIONS_SEED which.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.sink.backlog import SymbolQueue
from ibkr_depth_pipeline.tasks import first_of
from ibkr_depth_pipeline_tests.sessions.hostile import KINDS
from ibkr_depth_pipeline_tests.sessions.session import play
from ibkr_depth_pipeline_tests.sessions.virtual_time import VirtualClock, VirtualLoop
from ibkr_depth_pipeline_tests.sessions.world import Fault, Plan

SESSIONS = int(os.environ.get("SESSIONS", "1000"))
SESSIONS_SEED = int(os.environ.get("SESSIONS_SEED", "20261126"))
LAST_FAULT_SECS = 30

STATES = {
    "another process goes on",
    "late block of a former holder refused",
    "roll with a full batch",
    "batch shrunk on trial",
    "batch_shrunk",
    "batch_grown",
    "slot_released_late",
    "gateway_stalled",
    "connection_lost",
    "connectivity_lost",
    "reconnected",
    "data_gap",
    "book_out_of_step",
    "book_reset",
    "line_silent",
    "line_asked_again",
    "depth_refused",
    "client_id_in_use",
    "redis_write_failed",
    "redis_back",
    "turn_of_lost_run_closed",
    "LeaseLost",
}
"""What a thousand sessions must come to: log events of the recorder, its errors, and what world.py finds."""

RARE = tuple(
    Plan(1, 3, symbols, standby, False, (Fault(at, kind, choice),))
    for at, kind, choice, symbols, standby in (
        (8.0, "line dies", 0, 3, False),
        (8.0, "line dies young", 0, 2, False),
        (8.0, "reset of a book", 0, 3, False),
        (8.0, "refused symbol", 1, 3, False),
        (8.0, "parted from Redis", 0, 2, True),
        (4.0, "slots taken", 0, 4, False),
        (4.0, "killed with a block on its way", 1, 3, True),
    )
)
"""Sessions that come to what few of a thousand do; they are played as well."""

faults = st.builds(
    Fault,
    at=st.integers(0, 10 * LAST_FAULT_SECS).map(lambda tenths: tenths / 10),
    kind=st.sampled_from(KINDS),
    choice=st.integers(0, 2**16),
)
plans = st.builds(
    Plan,
    seed=st.integers(0, 2**16),
    slots=st.sampled_from([1, 2, 3, 3]),
    symbols=st.one_of(st.integers(2, 3), st.integers(2, 5)),  # often no more than slots: lines that last
    standby=st.booleans(),
    rolls=st.integers(0, 4).map(lambda one: one == 4),
    faults=st.lists(faults, min_size=1, max_size=6).map(tuple),
)


def plan_of(number: int, count: int) -> Plan:
    """A plan by a number alone, with so many faults."""
    chance = random.Random(number)
    choices = [Fault(chance.randrange(100) / 10, chance.choice(KINDS), chance.randrange(2**16)) for _ in range(count)]
    return Plan(number, chance.choice([1, 2, 3]), chance.choice([2, 3, 4]), number % 2 == 0, False, tuple(choices))


@pytest.mark.parametrize("number", range(2))
def test_session_with_faults_stores_every_book_once_and_recovers(number: int) -> None:
    seen = play(plan_of(number, 3))
    assert seen.problems == []
    assert seen.snapshots > 0


def test_block_of_killed_process_that_arrives_after_takeover_is_refused() -> None:
    killed = Fault(4.0, "killed with a block on its way", 1)
    seen = play(Plan(1, 3, 3, True, False, (killed,)))
    assert seen.problems == []
    assert seen.states["late block of a former holder refused"] > 0
    assert seen.states["another process goes on"] > 0


def test_line_that_dies_before_it_has_habits_is_asked_for_again() -> None:
    seen = play(Plan(1, 3, 2, False, False, (Fault(8.0, "line dies young", 1),)))
    assert seen.problems == []
    assert seen.states["line_asked_again"] > 0


def test_same_plan_gives_same_session_in_another_process() -> None:
    plan = plan_of(7, 1)
    other = subprocess.run(
        [sys.executable, "-m", __package__, repr(plan)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"digest {play(plan).digest}\nnothing was wrong" in other.stdout


def test_time_passes_for_who_waits_for_a_moment_that_is_nearer_than_a_timer_can_tell() -> None:
    virtual = VirtualClock()
    loop = VirtualLoop(virtual)

    async def wait_until(at: float) -> int:
        rounds = 0
        while loop.time() < at:
            await first_of(asyncio.Event().wait(), within=at - loop.time())
            rounds += 1
        return rounds

    try:
        assert loop.run_until_complete(wait_until(math.nextafter(loop.time(), math.inf))) < 10
    finally:
        loop.close()


def test_queue_that_forgets_what_was_not_answered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(queue: SymbolQueue, entries: list[bytes]) -> None:
        queue.on_its_way = False

    monkeypatch.setattr(SymbolQueue, "put_back", forget)
    seen = play(Plan(1, 3, 3, False, False, (Fault(4.0, "connection to Redis cut", 3),)))
    assert any("does not follow" in problem for problem in seen.problems)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_thousand_sessions_hold_and_reach_every_interesting_state() -> None:
    reached: Counter[str] = Counter()

    @seed(SESSIONS_SEED)
    @settings(max_examples=SESSIONS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plans)
    def one(plan: Plan) -> None:
        seen = play(plan)
        reached.update(state for state, times in seen.states.items() if times)
        assert seen.problems == []

    for plan in RARE:
        one = example(plan)(one)
    one()
    assert STATES - reached.keys() == set(), f"in how many sessions each was reached: {dict(reached)}"
