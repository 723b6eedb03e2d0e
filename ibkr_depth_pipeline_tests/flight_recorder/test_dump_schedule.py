"""Dumps are few however many faults come, and every fault is named in one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.dump_schedule import DumpSchedule, DumpTrigger

RING = 300.0
LOST = DumpTrigger("reconnect", "closed")
ODD = DumpTrigger("book_out_of_step", "SPY: crossed")


def test_triggers_of_two_seconds_are_one_dump() -> None:
    schedule = DumpSchedule(RING)
    schedule.trigger(LOST, 10.0)
    schedule.trigger(ODD, 11.0)
    schedule.trigger(LOST, 11.5)
    assert schedule.due_at == 12.0
    assert schedule.take(11.9) == {}
    assert schedule.take(12.0) == {LOST: 2, ODD: 1}
    assert schedule.due_at is None


def test_trigger_soon_after_a_dump_waits_until_the_ring_is_another_one() -> None:
    schedule = DumpSchedule(RING)
    schedule.trigger(LOST, 0.0)
    assert schedule.take(2.0)
    schedule.trigger(ODD, 50.0)
    assert schedule.due_at == 2.0 + RING
    assert schedule.take(2.0 + RING) == {ODD: 1}


def test_pause_grows_while_faults_go_on_and_is_short_again_after_a_calm() -> None:
    schedule, dumped, now = DumpSchedule(RING), [], 0.0
    while now < 86_400:
        schedule.trigger(LOST, now)
        if schedule.take(now):
            dumped.append(now)
        now += 10.0
    assert len(dumped) < 30
    assert dumped[1] - dumped[0] == RING
    schedule.take(now + 4000)
    schedule.trigger(ODD, now + 20_000)
    assert schedule.take(now + 20_002) == {ODD: 1}
    schedule.trigger(ODD, now + 20_010)
    assert schedule.due_at == now + 20_002 + RING


@given(st.lists(st.tuples(st.floats(0, 600), st.sampled_from([LOST, ODD])), max_size=200))
def test_every_trigger_is_named_in_a_dump(steps: list[tuple[float, DumpTrigger]]) -> None:
    schedule, now, came, named = DumpSchedule(RING), 0.0, [], 0
    for pause, trigger in steps:
        now += pause
        named += sum(schedule.take(now).values())
        schedule.trigger(trigger, now)
        came.append(trigger)
    named += sum(schedule.take(now + 86_400).values())
    assert named == len(came)
