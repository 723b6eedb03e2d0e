"""A gateway that picks among all faults by a seed, beside the recorder with ten symbols, the real client and Redis.

After each burst of faults everything is put right, and every symbol must have rows again within a bound; what holds all
the time is checked all the time, and at the end every stored book must be one that was sent. The faults depend on the
seed alone, so a seed that fails is tried again with RANDOM_SEED, for RANDOM_SECS; RANDOM_BURST begins with that burst.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline_tests.faults.random_faults import (
    NORMAL,
    SYMBOLS,
    Act,
    Burst,
    bursts_of,
    gateway_of,
    never_chosen,
)
from ibkr_depth_pipeline_tests.faults.recovery import Trial, trial
from ibkr_depth_pipeline_tests.faults.sent_books import books_sent, unsent

RECOVERY_SECS = 90.0
"""Within so long of the end of all faults every symbol has rows: news of a farm (2108) alone is sat out for 30 s."""

FRESH_ROWS = 5
SLOT_SECS = 30.0
"""For so long the gateway may hold a slot for a request that was cancelled, or that has a successor."""

HEARTBEAT_SECS = 30.0
"""For so long a symbol may be called live without a row while others have some."""

MOST_LINES = 100.0
"""Log lines a second, over a burst and its recovery."""

MOST_309S = 60
MOST_CONNECTIONS = 40
"""In a burst and its recovery."""

COMMON: dict[str, Any] = {
    "ibkr_first_row_secs": 2,
    "ibkr_error309_cooldown_secs": 0.2,
    "ibkr_error309_recovery_cycles": 2,
    "ibkr_unsupported_retry_secs": 5,
    "ibkr_stall_secs": 1,
    "ibkr_connect_timeout_secs": 3,
    "ibkr_reconnect_max_secs": 1,
    "ibkr_outage_secs": 2,
    "ibkr_silent_line_secs": 2,
}
MODES: dict[str, dict[str, Any]] = {
    "rotating": {"ibkr_max_concurrent_depth": 3, "ibkr_rotation_secs": 1},
    "holding": {"ibkr_max_concurrent_depth": 10, "ibkr_rotation_secs": 5},
}


@dataclass
class Watcher:
    """Checks what holds all the time: no slot leaked, no heartbeat for a dead line, no end of the run."""

    run: Trial
    problems: list[str] = field(default_factory=list)
    _read: int = 0
    _last_rows: dict[str, float] = field(default_factory=dict)
    _held_since: dict[tuple[int, int], float] = field(default_factory=dict)
    _row_times: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    _cancelled: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.run.gateway.journal.listen(self._observe)

    def _observe(self, entry: Any) -> None:
        if entry.kind == "rows":
            self._last_rows[entry.name] = time.monotonic()
        elif entry.kind == "request" and entry.name == "cancelMktDepth":
            self._cancelled.add((entry.connection, int(entry.detail["reqId"])))

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            self._check_slots(now)
            self._check_heartbeats(now)

    def _check_slots(self, now: float) -> None:
        useless = set(self._useless_lines())
        self._held_since = {line: self._held_since.get(line, now) for line in useless}
        for line, since in self._held_since.items():
            if now - since > SLOT_SECS:
                self._report(
                    f"request {line[1]} of connection {line[0]} holds a slot for nothing since {now - since:.0f} s"
                )

    def _useless_lines(self) -> list[tuple[int, int]]:
        found = []
        for client in self.run.gateway.clients.values():
            newest: dict[str, int] = {}
            for subscription in client.session.subscriptions:
                name, request = subscription.listing.name, subscription.request_id
                newest[name] = max(request, newest.get(name, 0))
            for subscription in client.session.subscriptions:
                line = (client.number, subscription.request_id)
                if line in self._cancelled or subscription.request_id != newest[subscription.listing.name]:
                    found.append(line)
        return found

    def _check_heartbeats(self, now: float) -> None:
        lines, self._read = self.run.logged[self._read :], len(self.run.logged)
        for line in lines:
            if line["event"] != "heartbeats" or not self._last_rows:
                continue
            newest = max(self._last_rows.values())
            for symbol in line["symbols"]:
                silent = newest - self._last_rows.get(symbol, newest)
                if silent > HEARTBEAT_SECS and now - newest < 1.0:
                    self._report(f"{symbol} is called live, {silent:.0f} s after its last row")

    def _report(self, problem: str) -> None:
        if not self.problems:
            self.problems.append(problem)


@dataclass
class RandomRun:
    """One recorder beside one gateway at random."""

    run: Trial
    watcher: Watcher
    seed: int
    slots: int
    rate: float
    bursts: list[Burst] = field(default_factory=list)
    slowest: float = 0.0

    async def burst(self, burst: Burst) -> None:
        """One burst, and the recovery from it, checked."""
        self.bursts.append(burst)
        print(f"seed {self.seed} {burst}", flush=True)
        before, lines, began = Counter(self.counts()), len(self.run.logged), time.monotonic()
        await self._carry_out(burst)
        recovering = time.monotonic()
        try:
            await asyncio.wait_for(self._recovered(), RECOVERY_SECS)
        except asyncio.TimeoutError:
            raise AssertionError(f"{await self._behind()}: no rows within {RECOVERY_SECS:.0f} s of {burst}") from None
        secs = time.monotonic() - began
        self.slowest = max(self.slowest, time.monotonic() - recovering)
        print(f"    recovered in {time.monotonic() - recovering:.1f} s", flush=True)
        self._check(burst, Counter(self.counts()) - before, (len(self.run.logged) - lines) / secs)

    def _check(self, burst: Burst, happened: Counter[str], lines_a_second: float) -> None:
        assert not self.watcher.problems, f"{self.watcher.problems} in {burst}"
        assert happened["309"] <= MOST_309S, f"{happened} in {burst}"
        assert happened["connections"] <= MOST_CONNECTIONS, f"{happened} in {burst}"
        if lines_a_second > MOST_LINES:
            common = Counter(line["event"] for line in self.run.logged[-2000:]).most_common(6)
            raise AssertionError(f"{lines_a_second:.0f} log lines a second in {burst}: {common}")

    def counts(self) -> dict[str, int]:
        counts = self.run.gateway.journal.counts
        return {"309": counts["error", "309"], "connections": counts["opened", ""]}

    async def _carry_out(self, burst: Burst) -> None:
        began = time.monotonic()
        for act in burst.acts:
            await asyncio.sleep(max(0.0, began + act.at - time.monotonic()))
            await self._act(act)
        await asyncio.sleep(max([0.0, *(act.arguments.get("seconds") or 0.0 for act in burst.acts if _ends(act))]))

    async def _act(self, act: Act) -> None:
        arguments = dict(act.arguments)
        if arguments.get("slots") == NORMAL:
            arguments["slots"] = self.slots
        outcome = getattr(self.run.gateway, act.name)(**arguments)
        if inspect.isawaitable(outcome):
            await outcome

    async def _recovered(self) -> None:
        """Wait until every symbol has rows that came after all faults."""
        goals = {symbol: await self.run.run.length(symbol) + FRESH_ROWS for symbol in SYMBOLS}

        async def all_of_them() -> bool:
            return not self.watcher.problems and all(
                [await self.run.run.length(symbol) >= goal for symbol, goal in goals.items()]
            )

        while not await all_of_them() and not self.watcher.problems:
            assert not self.run.run.task.done(), f"the run ended: {self.run.run.task.exception()}"
            await asyncio.sleep(0.05)

    async def _behind(self) -> list[str]:
        before = {symbol: await self.run.run.length(symbol) for symbol in SYMBOLS}
        await asyncio.sleep(3.0)
        for line in self.run.logged[-80:]:
            print("   ", {name: str(value)[:120] for name, value in line.items()})
        return [symbol for symbol in SYMBOLS if await self.run.run.length(symbol) == before[symbol]]

    async def verify(self) -> None:
        """Every stored book was sent; numbers and times are in order."""
        await self.run.whole()
        sent = books_sent(self.run.gateway.journal.entries())
        stored = 0
        for symbol in SYMBOLS:
            snapshots = await self.run.run.stream(symbol)
            stored += len(snapshots)
            wrong = unsent(snapshots, sent.get(symbol, []))
            assert wrong is None, f"{symbol}: snapshot {wrong[0] if wrong else 0} is no book that was sent: {wrong}"
        rows = sum(self.run.gateway.journal.row_counts.values())
        print(
            f"\nMEASURED seed {self.seed}: {len(self.bursts)} bursts, slowest recovery {self.slowest:.1f} s, "
            f"{self.counts()}, {stored} snapshots of {rows} rows, {len(self.run.logged)} log lines, not come to: "
            f"{sorted(never_chosen(self.bursts))}"
        )


def _ends(act: Act) -> bool:
    return act.name not in ("set_greeting_delay", "set_details_delay", "set_slot_free_delay", "set_clock_offset")


async def run_random(redis_url: str, mode: str, seed: int, secs: float, *, first: int = 0, rate: float = 10.0) -> None:
    settings = {name: value for name, value in {**COMMON, **MODES[mode]}.items() if name in Settings.model_fields}
    slots = settings["ibkr_max_concurrent_depth"]
    options = gateway_of(seed, slots, rate)
    unhandled: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(str(context)))
    print(f"RANDOM_SEED={seed} {mode}, {options}")
    async with trial(redis_url, *SYMBOLS, options=options, **settings) as run:
        watcher = Watcher(run)
        watching = asyncio.ensure_future(watcher.watch())
        try:
            at_random = RandomRun(run, watcher, seed, slots, rate)
            await at_random._recovered()
            deadline = time.monotonic() + secs
            for burst in itertools.islice(bursts_of(seed), first, None):
                if time.monotonic() > deadline:
                    break
                await at_random.burst(burst)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await run.run.stop()
        await at_random.verify()
    assert not unhandled, unhandled
    errors = [line for line in run.logged if line["log_level"] in ("error", "critical")]
    assert not errors, errors


def environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", MODES)
async def test_gateway_that_fails_at_random_leaves_every_symbol_recovered_and_only_books_it_sent(
    shared_redis_url: str, mode: str
) -> None:
    secs = environment("RANDOM_SECS", 600)
    await run_random(shared_redis_url, mode, environment("RANDOM_SEED", 1), secs, first=environment("RANDOM_BURST", 0))


async def test_gateway_that_fails_at_random_for_a_moment_leaves_only_books_it_sent(shared_redis_url: str) -> None:
    await run_random(shared_redis_url, "holding", environment("RANDOM_SEED", 11), 15)


def test_faults_of_a_seed_are_always_the_same() -> None:
    first, again, other = (list(itertools.islice(bursts_of(seed), 60)) for seed in (7, 7, 8))
    assert first == again
    assert [burst.acts for burst in first] != [burst.acts for burst in other]
    assert not never_chosen(first), "each kind has its turn"
