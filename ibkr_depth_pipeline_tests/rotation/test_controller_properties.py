"""The rotation against a model gateway that follows the rules of the real one, in simulated time."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.controller import RotationController, RotationPlan
from ibkr_depth_pipeline.rotation.events import (
    Answered,
    Cancel,
    Connected,
    Deadline,
    Disconnected,
    Full,
    Halted,
    Recheck,
    Rechecked,
    Refused,
    Resumed,
    RotationEvent,
    Subscribe,
    Suspended,
)

PLAN = RotationPlan(
    max_batch=3, dwell=15.0, first_row_cap=15.0, cooldown=8.0, recovery_turns=4, unsupported_retry=3600.0
)
LATENCY = 0.05


@dataclass
class ModelGateway:
    """Frees a slot `free_delay` after a cancel, and may ignore cancels that come before the first row."""

    limit: int
    free_delay: float = 0.0
    first_row: float = 0.3
    ignores_early_cancels: bool = False
    silent: frozenset[str] = frozenset()
    unsupported: frozenset[str] = frozenset()
    freed_at: dict[int, float] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    refusals: int = 0

    def held(self, now: float) -> int:
        self.freed_at = {request: at for request, at in self.freed_at.items() if at > now}
        return len(self.live) + len(self.freed_at)

    def subscribe(self, request: int, symbol: str, now: float) -> list[tuple[float, RotationEvent]]:
        if self.held(now) >= self.limit:
            self.refusals += 1
            return [(now + LATENCY, Full(request))]
        if symbol in self.unsupported:
            return [(now + LATENCY, Refused(request, "10092"))]
        self.live.add(request)
        return [] if symbol in self.silent else [(now + self.first_row, Answered(request))]

    def cancel(self, request: int, now: float) -> list[tuple[float, RotationEvent]]:
        if request not in self.live:
            return []  # the real one answers 310, also to a cancel that it ignores: it says nothing of the slot
        if self.ignores_early_cancels and request not in self.answered:
            return []
        self.live.discard(request)
        if self.free_delay:
            self.freed_at[request] = now + self.free_delay
        return []


class Run:
    """Drives a controller against a model gateway until a given time."""

    def __init__(self, symbols: list[str], gateway: ModelGateway, plan: RotationPlan = PLAN) -> None:
        self.gateway = gateway
        self.plan = plan
        self.controller = RotationController(symbols, plan, itertools.count(1))
        self.now = 0.0
        self.coverage = dict.fromkeys(symbols, 0.0)
        self.last_on = dict.fromkeys(symbols, 0.0)
        self.worst_gap = dict.fromkeys(symbols, 0.0)
        self.most = 0
        self.subscribed: set[int] = set()
        self._since: dict[int, float] = {}
        self._symbol: dict[int, str] = {}
        self._queue: list[tuple[float, int, RotationEvent]] = []
        self._order = itertools.count()
        self.tell(Connected())

    def later(self, at: float, event: RotationEvent) -> None:
        heapq.heappush(self._queue, (at, next(self._order), event))

    def tell(self, event: RotationEvent) -> None:
        if isinstance(event, Answered) and event.request in self.gateway.live:
            self.gateway.answered.add(event.request)
            self._begin(event.request)
        for command in self.controller.handle(event, self.now):
            follow: list[tuple[float, RotationEvent]] = []
            if isinstance(command, Subscribe):
                assert command.request not in self.subscribed, "a request id is never used twice"
                self.subscribed.add(command.request)
                self._symbol[command.request] = command.symbol
                follow = self.gateway.subscribe(command.request, command.symbol, self.now)
            elif isinstance(command, Cancel):
                self._end(command.request)
                follow = self.gateway.cancel(command.request, self.now)
            elif isinstance(command, Recheck):
                follow = [(self.now, Rechecked(command.symbol, command.symbol not in self.gateway.unsupported))]
            for at, answer in follow:
                self.later(at, answer)
        on = self.controller.subscribed
        self.most = max(self.most, len(on))
        assert len(on) <= self.plan.max_batch
        assert len(set(on.values())) == len(on), "a symbol is never subscribed to twice"
        deadline = self.controller.next_deadline()
        assert not isinstance(event, Deadline) or deadline is None or deadline > self.now, "a deadline makes progress"

    def _begin(self, request: int) -> None:
        symbol = self._symbol[request]
        self._since[request] = self.now
        self.worst_gap[symbol] = max(self.worst_gap[symbol], self.now - self.last_on[symbol])

    def _end(self, request: int) -> None:
        since = self._since.pop(request, None)
        if since is not None:
            self.coverage[self._symbol[request]] += self.now - since
            self.last_on[self._symbol[request]] = self.now

    def until(self, end: float) -> None:
        while True:
            deadline = self.controller.next_deadline()
            happening = self._queue[0][0] if self._queue else None
            times = [at for at in (deadline, happening) if at is not None]
            if not times or min(times) > end:
                self.now = end
                for request in list(self._since):  # count what is on now as well
                    self._end(request)
                    self._since[request] = end
                return
            self.now = max(self.now, min(times))
            if happening is not None and (deadline is None or happening <= deadline):
                self.tell(heapq.heappop(self._queue)[2])
            else:
                self.tell(Deadline())


def symbols(count: int) -> list[str]:
    return [f"S{number}" for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 25), batch=st.integers(1, 6), first_row=st.floats(0.01, 13.0), dwell=st.floats(1.0, 60.0))
def test_alone_on_the_account_there_is_no_309_and_every_symbol_gets_the_same_share(
    count: int, batch: int, first_row: float, dwell: float
) -> None:
    plan = RotationPlan(batch, dwell, 15.0, 8.0, 4, 3600.0)
    gateway = ModelGateway(limit=batch, first_row=first_row)
    run = Run(symbols(count), gateway, plan)
    turns = 40 * count
    run.until(turns * (dwell + first_row))
    assert gateway.refusals == 0
    assert run.most == min(batch, count)
    if count > batch:
        shares = run.coverage.values()
        assert max(shares) - min(shares) <= 2 * (dwell + first_row)


@settings(max_examples=40, deadline=None)
@given(delay=st.floats(0.01, 1.9), count=st.integers(2, 20), batch=st.integers(1, 3))
def test_a_gateway_that_frees_slots_late_costs_few_refusals_and_shrinks_nothing(
    delay: float, count: int, batch: int
) -> None:
    plan = RotationPlan(batch, 15.0, 15.0, 8.0, 4, 3600.0)
    gateway = ModelGateway(limit=batch, free_delay=delay)
    run = Run(symbols(count), gateway, plan)
    run.until(3600.0)
    assert run.controller.batch_size == batch
    refused_batches = 1 if delay < 0.5 - LATENCY else 2
    assert gateway.refusals <= refused_batches * batch


def test_a_gateway_that_frees_slots_300_ms_late_costs_at_most_one_refused_batch() -> None:
    gateway = ModelGateway(limit=3, free_delay=0.3)
    run = Run(symbols(10), gateway)
    run.until(4 * 3600.0)
    assert gateway.refusals <= 3
    assert run.controller.batch_size == 3


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(1, 2), count=st.integers(3, 20))
def test_under_a_lower_limit_every_symbol_keeps_its_turn_and_attempts_to_grow_become_rarer(
    limit: int, count: int
) -> None:
    gateway = ModelGateway(limit=limit)
    run = Run(symbols(count), gateway)
    run.until(3600.0)
    first_hour = gateway.refusals
    run.until(5 * 3600.0)
    assert min(run.coverage.values()) > 0
    assert run.controller.batch_size in (limit, limit + 1)
    # 4, 8, 16, 32 and then every 64 turns of 15.3 s; a limit of 1 starts with two refusals.
    assert gateway.refusals - first_hour <= 4 * 3600 / 15.3 / 64 + 1
    shares = run.coverage.values()
    assert min(shares) >= 0.7 * max(shares)


@settings(max_examples=40, deadline=None)
@given(limits=st.lists(st.tuples(st.integers(0, 3), st.floats(1, 300)), max_size=8), count=st.integers(3, 12))
def test_whatever_another_client_takes_the_batch_recovers_once_it_is_given_back(
    limits: list[tuple[int, float]], count: int
) -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(count), gateway)
    for limit, secs in limits:
        gateway.limit = limit
        run.until(run.now + secs)
    gateway.limit = 3
    run.until(run.now + 3600.0)
    before = dict(run.coverage)
    refused = gateway.refusals
    run.until(run.now + 3600.0)
    assert run.controller.batch_size == 3
    assert gateway.refusals == refused
    assert all(run.coverage[symbol] > before[symbol] for symbol in run.coverage) or count == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(silent=st.sets(st.integers(0, 9), max_size=10), ignores=st.booleans())
def test_silent_symbols_cost_their_cap_and_never_a_slot_for_good(silent: set[int], ignores: bool) -> None:
    quiet = frozenset(f"S{number}" for number in silent)
    gateway = ModelGateway(limit=3, silent=quiet, ignores_early_cancels=False)
    run = Run(symbols(10), gateway)
    run.until(3600.0)
    assert gateway.refusals == 0
    assert all(run.coverage[symbol] > 0 for symbol in run.coverage if symbol not in quiet)


def test_a_late_first_row_after_an_ignored_cancel_frees_the_slot_again() -> None:
    gateway = ModelGateway(limit=3, first_row=20.0, ignores_early_cancels=True)
    run = Run(symbols(10), gateway)
    run.until(3600.0)
    gateway.first_row = 0.3
    run.until(7200.0)
    refused = gateway.refusals
    run.until(2 * 7200.0)
    assert run.controller.batch_size == 3
    assert gateway.refusals == refused
    assert gateway.live == set(run.controller.subscribed)


def test_an_unsupported_symbol_leaves_no_slot_empty_and_is_tried_again_after_an_hour() -> None:
    gateway = ModelGateway(limit=3, unsupported=frozenset({"S1"}))
    run = Run(symbols(5), gateway)
    run.until(1.0)
    assert sorted(run.controller.subscribed.values()) == ["S0", "S2", "S3"]
    run.until(3500.0)
    assert run.coverage["S1"] == 0
    gateway.unsupported = frozenset()
    run.until(3800.0)
    assert run.coverage["S1"] > 0


FAULTS = st.sampled_from(["lost", "back", "1100", "1101", "1102", "316", "wait"])


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.tuples(FAULTS, st.floats(0.0, 40.0)), max_size=25), count=st.integers(1, 8))
def test_after_any_faults_the_rotation_goes_on_and_no_slot_is_leaked(
    steps: list[tuple[str, float]], count: int
) -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(count), gateway)
    for fault, secs in steps:
        if fault == "lost":
            gateway.live.clear()
            for request in list(run.controller.subscribed):
                run._end(request)
            run.tell(Disconnected())
        elif fault == "back":
            gateway.live.clear()
            run.tell(Disconnected())
            run.tell(Connected())
        elif fault == "1100":
            run.tell(Suspended())
        elif fault in ("1101", "1102"):
            run.tell(Resumed(data_lost=fault == "1101"))
        elif fault == "316" and run.controller.subscribed:
            run.tell(Halted(next(iter(run.controller.subscribed))))
        run.until(run.now + secs)
    gateway.live.clear()
    run.tell(Disconnected())
    run.tell(Connected())
    before = dict(run.coverage)
    run.until(run.now + 1800.0)
    assert gateway.live == set(run.controller.subscribed)
    assert run.controller.batch_size == 3
    if count > 3:
        assert all(run.coverage[symbol] > before[symbol] for symbol in before)
