"""The rotation against gateways that misbehave: any event at any time, answers out of order, cancels that are lost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import (
    Advised,
    Answered,
    Cancel,
    Connected,
    Deadline,
    Disconnected,
    Doubted,
    FarmsReported,
    Halted,
    LateRows,
    Rechecked,
    Refused,
    RequestIdRejected,
    Resumed,
    RotationEvent,
    SlotRefused,
    Stop,
    Subscribe,
    Suspended,
)
from ibkr_depth_pipeline.rotation.slot_allocator import BatchResized, SlotReleasedLate
from ibkr_depth_pipeline.rotation.slots import RECONNECT_PACE, Reconnect
from ibkr_depth_pipeline_tests.rotation.model_gateway import PLAN, ModelGateway, Run, symbols

REQUESTS = st.integers(1, 30)
ANY_EVENT = st.one_of(
    st.builds(Connected),
    st.builds(Disconnected),
    st.builds(Answered, REQUESTS),
    st.builds(LateRows, REQUESTS),
    st.builds(SlotRefused, REQUESTS),
    st.builds(Refused, REQUESTS, st.just("354"), st.booleans()),
    st.builds(Advised, REQUESTS),
    st.builds(FarmsReported, st.booleans(), st.booleans()),
    st.builds(Halted, REQUESTS),
    st.builds(RequestIdRejected, REQUESTS),
    st.builds(Suspended),
    st.builds(Resumed, st.booleans(), st.booleans()),
    st.builds(Doubted, st.floats(0, 60)),
    st.builds(Rechecked, st.sampled_from(symbols(6)), st.booleans()),
    st.builds(Deadline),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(ANY_EVENT, st.floats(0, 30)), max_size=80), st.integers(1, 4))
def test_any_events_in_any_order_raise_nothing_and_leave_no_request_unaccounted(
    steps: list[tuple[RotationEvent, float]], batch: int
) -> None:
    plan = type(PLAN)(batch, 15.0, 15.0, 8.0, 4, 3600.0)
    controller = RotationController(symbols(6), plan, itertools.count(1))
    now, asked, given_back = 0.0, set[int](), set[int]()

    def tell(event: RotationEvent) -> None:
        if isinstance(event, SlotRefused | Refused | RequestIdRejected):
            given_back.add(event.request)
        if isinstance(event, Disconnected | Connected):
            given_back.update(asked)
        for command in controller.handle(event, now):
            if isinstance(command, Subscribe):
                assert command.request not in asked
                asked.add(command.request)
            elif isinstance(command, Cancel):
                assert command.request in asked
                given_back.add(command.request)

    for event, secs in [*steps, (Connected(), 0.0)]:
        tell(event)
        on = controller.subscribed
        assert len(on) <= batch
        assert len(set(on.values())) == len(on)
        assert asked - given_back <= set(on), "what is on is known, and nothing else is on"
        now += secs
        deadline = controller.next_deadline()
        if deadline is not None and deadline <= now:
            tell(Deadline())
    tell(Stop())
    assert controller.subscribed == {}
    assert asked <= given_back


@dataclass
class LeakyGateway(ModelGateway):
    """A real gateway at its worst: an early cancel is lost for good, and the line brings rows when it feels like it."""

    leaked: set[int] = field(default_factory=set)

    def cancel(self, request: int, now: float) -> list[tuple[float, RotationEvent]]:
        if request in self.live and request not in self.answered:
            self.leaked.add(request)
            return [(now + secs, LateRows(request)) for secs in (30.0, 60.0, 90.0)]
        if request in self.leaked:
            return []
        return super().cancel(request, now)


class LeakyRun(Run):
    """Carries Reconnect out, and counts it."""

    reconnects = 0

    def reconnect(self) -> None:
        self.reconnects += 1
        self.gateway.live.clear()
        self._queue.clear()
        for request in list(self._since):
            self._end(request)
        self.tell(Disconnected())
        self.tell(Connected())


def run_leaky(run: LeakyRun, end: float) -> None:
    """As Run.until, with reconnects."""
    handle = run.controller.handle
    wanted: list[Reconnect] = []

    def watched(event: RotationEvent, now: float) -> list[object]:
        commands = handle(event, now)
        wanted.extend(command for command in commands if isinstance(command, Reconnect))
        return list(commands)

    run.controller.handle = watched  # type: ignore[method-assign, assignment]
    while run.now < end:
        run.until(min(end, run.now + 1.0))
        if wanted:
            wanted.clear()
            run.reconnect()
    run.controller.handle = handle  # type: ignore[method-assign]


@settings(max_examples=10)
@given(silent=st.sets(st.integers(0, 9), min_size=1, max_size=4))
def test_slots_that_lost_cancels_hold_are_had_again_by_reconnects_that_stay_rare(silent: set[int]) -> None:
    gateway = LeakyGateway(limit=3, silent=frozenset(f"S{number}" for number in silent))
    run = LeakyRun(symbols(10), gateway)
    run_leaky(run, 3600.0)
    before = dict(run.coverage)
    run_leaky(run, 7200.0)
    assert run.reconnects <= 7200.0 / RECONNECT_PACE.first
    assert all(run.coverage[symbol] > before[symbol] for symbol in symbols(10) if symbol not in gateway.silent)


@settings(max_examples=20)
@given(st.permutations([1, 2, 3]), st.integers(0, 2))
def test_309s_may_be_answered_in_any_order(order: list[int], limit: int) -> None:
    controller = RotationController(symbols(5), PLAN, itertools.count(1))
    asked = [command.request for command in controller.handle(Connected(), 0.0) if isinstance(command, Subscribe)]
    assert asked == [1, 2, 3]
    commands = [command for request in order[limit:] for command in controller.handle(SlotRefused(request), 0.1)]
    assert not [command for command in commands if isinstance(command, Cancel)], "a refused request holds no slot"
    assert controller.batch_size >= 1
    assert len(controller.subscribed) == limit


def test_slots_still_taken_after_a_connect_are_tried_one_at_a_time_and_nothing_shrinks() -> None:
    controller = RotationController(symbols(5), PLAN, itertools.count(1))
    now, requests = 0.0, [1, 2, 3]
    controller.handle(Connected(), now)
    for _ in range(4):
        for request in requests:
            commands = controller.handle(SlotRefused(request), now)
            assert [type(command) for command in commands] == [SlotReleasedLate]
        deadline = controller.next_deadline()
        assert deadline is not None
        assert 0 < deadline - now <= 2.0, "within 3 s of the slots being free"
        now = deadline
        commands = controller.handle(Deadline(), now)
        requests = [command.request for command in commands if isinstance(command, Subscribe)]
        assert len(requests) == 1
    commands = controller.handle(Answered(requests[0]), now + 0.3)
    assert len([command for command in commands if isinstance(command, Subscribe)]) == 2, "the rest of the batch"
    assert controller.batch_size == 3


def test_slots_that_stay_taken_after_a_connect_shrink_the_batch_in_the_end() -> None:
    gateway = ModelGateway(limit=0)
    run = Run(symbols(5), gateway)
    run.until(60.0)
    assert run.controller.batch_size == 1
    assert gateway.refusals < 25


def test_symbol_that_stays_silent_is_asked_for_again_ever_more_rarely() -> None:
    gateway = ModelGateway(limit=3, silent=frozenset({"S0"}))
    run = Run(symbols(2), gateway)
    run.until(600.0)
    asked = len(run.subscribed) - 1
    assert asked <= 2 + 600 / 60 + 1
    assert run.coverage["S1"] > 570


def test_late_refusal_of_a_cancelled_request_says_nothing_of_the_one_after_it() -> None:
    gateway = ModelGateway(limit=3, silent=frozenset({"S0"}))
    run = Run(symbols(1), gateway)
    run.until(PLAN.first_row_cap + 1)
    assert run.controller.subscribed == {2: "S0"}
    assert run.controller.handle(Refused(1, "354"), run.now) == []
    assert run.controller.handle(SlotRefused(1), run.now) == []
    assert run.controller.subscribed == {2: "S0"}
    assert not [command for command in run.controller.handle(Answered(2), run.now) if isinstance(command, BatchResized)]


@settings(max_examples=10)
@given(st.sets(st.integers(0, 4), min_size=1, max_size=3))
def test_symbols_that_always_meet_a_309_keep_no_slot_from_the_others(unlucky: set[int]) -> None:
    never = {f"S{number}" for number in unlucky}

    class Unlucky(ModelGateway):
        def subscribe(self, request: int, symbol: str, now: float) -> list[tuple[float, RotationEvent]]:
            if symbol in never:
                return [(now + 0.05, SlotRefused(request))]
            return super().subscribe(request, symbol, now)

    run = Run(symbols(5), Unlucky(limit=3))
    run.until(600.0)
    before = dict(run.coverage)
    run.until(1800.0)
    assert all(run.coverage[symbol] > before[symbol] for symbol in symbols(5) if symbol not in never)
