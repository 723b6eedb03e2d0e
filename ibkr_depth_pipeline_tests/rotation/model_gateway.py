"""A model gateway that follows the rules of the real one, and a run of the rotation against it, in simulated time."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import (
    Answered,
    Cancel,
    Connected,
    Deadline,
    Recheck,
    Rechecked,
    Refused,
    RotationEvent,
    RotationPlan,
    SlotRefused,
    Subscribe,
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
            return [(now + LATENCY, SlotRefused(request))]
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

    def subscribed_to(self, symbol: str) -> list[int]:
        return [request for request, whose in self._symbol.items() if whose == symbol]

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
