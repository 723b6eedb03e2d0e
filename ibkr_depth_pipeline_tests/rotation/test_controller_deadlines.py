"""Any events in any order, under any settings: a deadline makes progress, and no request storm comes of it."""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import (
    Answered,
    Cancel,
    Connected,
    Deadline,
    Disconnected,
    Doubted,
    Halted,
    LateRows,
    Recheck,
    Rechecked,
    Refused,
    RequestIdRejected,
    Resumed,
    RotationCommand,
    RotationEvent,
    RotationPlan,
    SlotRefused,
    Stop,
    Subscribe,
    Suspended,
)
from ibkr_depth_pipeline.rotation.slots import Reconnect
from ibkr_depth_pipeline_tests.rotation.model_gateway import PLAN, symbols

SECONDS = st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0, 2.0, 7.3, 15.0, 60.0, 3600.0, 604800.0])
PLANS = st.builds(
    RotationPlan,
    max_batch=st.integers(1, 60),
    dwell=st.sampled_from([0.1, 1.0, 15.0, 86400.0]),
    first_row_cap=st.sampled_from([0.1, 2.0, 15.0, 3600.0]),
    cooldown=st.sampled_from([0.0, 0.001, 0.2, 8.0, 3600.0]),
    recovery_turns=st.sampled_from([1, 4, 1000]),
    unsupported_retry=st.sampled_from([1.0, 3600.0, 604800.0]),
    outage=st.sampled_from([1.0, 120.0, 3600.0]),
)

# What comes of a request, as makers of events: the number picks one of the requests that are on, or one that was.
OF_A_REQUEST = (
    Answered,
    SlotRefused,
    Halted,
    RequestIdRejected,
    LateRows,
    lambda request: Refused(request, "354"),
)
OF_THE_CONNECTION: tuple[RotationEvent, ...] = (
    Connected(),
    Connected(suspended=True),
    Disconnected(),
    Suspended(),
    Resumed(True),
    Resumed(False),
    Resumed(True, reported=False),
    Doubted(0.0),
    Doubted(5.0),
    Doubted(30.0),
)


class Checked:
    """A controller of which every step is checked: time, requests, and the invariant of its deadline."""

    def __init__(self, names: list[str], plan: RotationPlan, start: float = 0.0) -> None:
        self.controller = RotationController(names, plan, itertools.count(1))
        self.now = start
        self.last = 0

    def tell(self, event: RotationEvent) -> list[RotationCommand]:
        commands = self.controller.handle(event, self.now)
        self.last = max([self.last, *(command.request for command in commands if isinstance(command, Subscribe))])
        return commands

    def request(self, number: int) -> int:
        """One that is on, two times of three; else any that was."""
        on = list(self.controller.subscribed)
        if on and number % 3:
            return on[number % len(on)]
        return 1 + number % (self.last + 1)

    def deadline(self) -> list[RotationCommand]:
        """Tell that the deadline has come, and check that the next one is later."""
        deadline = self.controller.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        commands = self.tell(Deadline())
        after = self.controller.next_deadline()
        assert after is None or after > self.now, f"{self.now}: {after}"
        return commands


STEPS = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(OF_A_REQUEST), st.integers(0, 1000)),
    st.tuples(st.just("connection"), st.sampled_from(OF_THE_CONNECTION), st.just(0)),
    st.tuples(st.just("recheck"), st.booleans(), st.integers(0, 7)),
    st.tuples(st.just("deadline"), st.none(), st.just(0)),
    st.tuples(st.just("deadlines"), st.none(), st.integers(1, 5)),
)


def take(run: Checked, kind: str, what: object, number: int) -> None:
    if kind == "request":
        run.tell(what(run.request(number)))  # type: ignore[operator]
    elif kind == "connection":
        run.tell(what)  # type: ignore[arg-type]
    elif kind == "recheck":
        run.tell(Rechecked(f"S{number}", bool(what), "354"))
    else:
        for _ in range(max(1, number)):
            if run.controller.next_deadline() is not None:
                run.deadline()


@settings(max_examples=200)
@given(st.lists(st.tuples(STEPS, SECONDS), max_size=60), st.integers(0, 8), PLANS, st.sampled_from([0.0, 1e9]))
def test_next_deadline_is_later_than_the_one_handled(
    steps: list[tuple[tuple[str, object, int], float]], count: int, plan: RotationPlan, start: float
) -> None:
    run = Checked(symbols(count), plan, start)
    run.tell(Connected())
    for (kind, what, number), secs in steps:
        take(run, kind, what, number)
        run.now += secs
        deadline = run.controller.next_deadline()
        if deadline is not None and deadline <= run.now:
            run.deadline()
    run.tell(Stop())
    assert run.controller.subscribed == {}


@pytest.mark.parametrize("seed", range(12))
def test_long_random_histories_keep_the_deadline_ahead(seed: int) -> None:
    """As above, over thousands of steps: states that only a long history reaches."""
    chance = random.Random(seed)
    plan = RotationPlan(
        max_batch=chance.choice([1, 2, 3, 8]),
        dwell=chance.choice([0.1, 1.0, 15.0]),
        first_row_cap=chance.choice([0.1, 2.0, 15.0]),
        cooldown=chance.choice([0.0, 0.2, 8.0]),
        recovery_turns=chance.choice([1, 4]),
        unsupported_retry=chance.choice([1.0, 3600.0]),
        outage=chance.choice([1.0, 120.0]),
    )
    run = Checked(symbols(chance.randint(1, 8)), plan)
    run.tell(Connected())
    for _ in range(2000):
        kind = chance.choices(["request", "connection", "recheck", "deadline"], [10, 1, 1, 10])[0]
        what: object = {
            "request": chance.choice(OF_A_REQUEST),
            "connection": chance.choice(OF_THE_CONNECTION),
            "recheck": chance.random() < 0.7,
        }.get(kind)
        take(run, kind, what, chance.randrange(1000) if kind == "request" else chance.randrange(8))
        run.now += chance.choice([0.0, 0.0, 0.01, 0.3, 1.0, 5.0, 100.0])


def test_symbol_that_waits_to_be_asked_for_again_while_slots_are_tried_one_at_a_time_wakes_nobody_up() -> None:
    for event in (Halted, RequestIdRejected):
        run = Checked(symbols(6), PLAN)
        run.tell(Connected())
        for request in (1, 2, 3):
            run.tell(SlotRefused(request))
        run.deadline()
        (request,) = run.controller.subscribed
        run.tell(event(request))
        wakeups = 0
        while run.now < 60.0 and run.controller.next_deadline() is not None:
            run.deadline()
            wakeups += 1
        assert wakeups < 120


# ---- a gateway that answers every request at once with the same, or with anything

ANSWERS = {
    "full": lambda request: [SlotRefused(request)],
    "refused": lambda request: [Refused(request, "354")],
    "id rejected": lambda request: [RequestIdRejected(request)],
    "halted": lambda request: [Halted(request)],
    "halted after a row": lambda request: [Answered(request), Halted(request)],
    "reset of the servers": lambda request: [Answered(request), Resumed(True)],
    "doubted": lambda request: [Answered(request), Doubted(0.0)],
    "silence": lambda request: [],
    "row": lambda request: [Answered(request)],
}
EXTREMES = [
    replace(PLAN, cooldown=0.0),
    replace(PLAN, max_batch=60, cooldown=0.0, recovery_turns=1),
    RotationPlan(3, 0.1, 0.1, 0.0, 1, 1.0),
    RotationPlan(1, 0.1, 3600.0, 0.0, 1, 1.0),
    RotationPlan(60, 86400.0, 0.1, 0.0, 1, 1.0),
    PLAN,
]
SECS = 120.0


def carry_on(run: Checked, answers: random.Random | str, secs: float) -> tuple[Counter[str], int]:
    """Drives it for so long. Returns how often each symbol was asked for, and how many refusals for want of a slot."""
    asked: Counter[str] = Counter()
    full = 0
    end = run.now + secs
    events: deque[RotationEvent] = deque([Connected()])
    while True:
        if events:
            event = events.popleft()
            full += isinstance(event, SlotRefused)
            commands = run.tell(event)
        else:
            deadline = run.controller.next_deadline()
            if deadline is None or deadline > end:
                return asked, full
            commands = run.deadline()
        for command in commands:
            if isinstance(command, Subscribe):
                asked[command.symbol] += 1
                answer = answers if isinstance(answers, str) else answers.choice(list(ANSWERS))
                events += ANSWERS[answer](command.request)
            elif isinstance(command, Cancel):
                assert command.request <= run.last
            elif isinstance(command, Recheck):
                events.append(Rechecked(command.symbol, True))
            elif isinstance(command, Reconnect):
                events += [Disconnected(), Connected()]
        assert sum(asked.values()) < 100_000, "a storm"


def most_asked(plan: RotationPlan, secs: float) -> float:
    """A symbol is asked for once a turn, and once a second otherwise."""
    return 3 + secs / min(1.0, plan.dwell, plan.first_row_cap)


@pytest.mark.parametrize("plan", EXTREMES)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("count", [1, 3, 10])
def test_gateway_that_answers_always_the_same_gets_few_requests(plan: RotationPlan, answer: str, count: int) -> None:
    run = Checked(symbols(count), plan)
    asked, full = carry_on(run, answer, SECS)
    assert max(asked.values()) <= most_asked(plan, SECS)
    if answer == "full":
        assert full <= plan.max_batch + 12 + SECS / 2, "after a connect every 2 s, then with a back-off up to 8 s"
        _, later = carry_on_without_connect(run)
        assert later <= SECS / 8 + 2


def carry_on_without_connect(run: Checked) -> tuple[Counter[str], int]:
    """Another so many seconds of 309s on the connection that there is."""
    full, end = 0, run.now + SECS
    while (deadline := run.controller.next_deadline()) is not None and deadline <= end:
        requests = [command.request for command in run.deadline() if isinstance(command, Subscribe)]
        for request in requests:
            full += 1
            run.tell(SlotRefused(request))
    return Counter(), full


@pytest.mark.parametrize("plan", EXTREMES)
@pytest.mark.parametrize("seed", range(4))
def test_gateway_that_answers_anything_gets_few_requests(plan: RotationPlan, seed: int) -> None:
    asked, _ = carry_on(Checked(symbols(6), plan), random.Random(seed), SECS)
    assert max(asked.values()) <= most_asked(plan, SECS)


@settings(max_examples=30)
@given(PLANS, st.integers(1, 12), st.integers(0, 59), st.integers(0, 10_000))
def test_refusals_for_want_of_a_slot_stay_few_under_any_settings(
    plan: RotationPlan, count: int, limit: int, seed: int
) -> None:
    """A gateway with so many slots, whoever else takes one now and then; rows come at once."""
    run, chance = Checked(symbols(count), plan), random.Random(seed)
    full, now_full, events = 0, 0, deque[RotationEvent]([Connected()])
    while run.now < SECS:
        if events:
            commands = run.tell(events.popleft())
        else:
            deadline = run.controller.next_deadline()
            if deadline is None:
                break
            commands = run.deadline()
        for command in commands:
            if isinstance(command, Subscribe):
                free = limit - chance.choice([0, 0, 0, 1])
                now_full = len(run.controller.subscribed) > free
                full += now_full
                events.append((SlotRefused if now_full else Answered)(command.request))
            elif isinstance(command, Reconnect):
                events += [Disconnected(), Connected()]
    turns = SECS / min(plan.dwell, SECS) + 2
    assert full <= plan.max_batch + 17 + SECS / 8 + min(SECS / 0.25, 3 * turns * plan.max_batch)
