"""The exactly-once writer against a model: whatever happens on the way to a real Redis, the stream holds each snapshot
once and in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline_tests.faults.redis_proxy import Fault, RedisProxy, port_of
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, numbers, reading, snapshots, writing

SYMBOLS = ("SPY", "QQQ")
T = TypeVar("T")


class WriterMachine(RuleBasedStateMachine):
    """Appends, faults of every kind, kills of connections, late arrivals and flushes in any order."""

    server: EmbeddedRedis
    buffer_bytes = 1 << 26

    def __init__(self) -> None:
        super().__init__()
        self.server.flush()
        self.loop = asyncio.new_event_loop()
        self.proxy = RedisProxy(self.server.port)
        self.run(self.proxy.__aenter__())
        self.context = writing(self.proxy.url, buffer_bytes=self.buffer_bytes)
        self.writer = self.run(self.context.__aenter__())
        self.upcoming = {symbol: snapshots(symbol, count=10**9) for symbol in SYMBOLS}
        self.appended = dict.fromkeys(SYMBOLS, 0)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(symbol=st.sampled_from(SYMBOLS), count=st.integers(1, 40))
    def append(self, symbol: str, count: int) -> None:
        async def at_once() -> None:
            self.take(symbol, count)

        self.run(at_once())

    @rule(symbol=st.sampled_from(SYMBOLS), first=st.integers(1, 10), then=st.integers(1, 40))
    def append_behind_a_block_on_its_way(self, symbol: str, first: int, then: int) -> None:
        async def one_after_the_other() -> None:
            self.take(symbol, first)
            for _ in range(3):  # the writer wakes up and sends what it finds
                await asyncio.sleep(0)
            self.take(symbol, then)

        self.run(one_after_the_other())

    def take(self, symbol: str, count: int) -> None:
        for snapshot in itertools.islice(self.upcoming[symbol], count):
            self.writer.append(snapshot)
        self.appended[symbol] += count

    @rule(fault=st.sampled_from(Fault))
    def plan(self, fault: Fault) -> None:
        self.proxy.faults.append(fault)

    @rule(turns=st.integers(1, 50))
    def let_it_work(self, turns: int) -> None:
        async def some_turns() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(some_turns())

    @rule()
    def kill_connections(self) -> None:
        async def kill() -> None:
            async with reading(self.server.url) as client:
                await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        self.run(kill())

    @rule()  # at any time: a rule that depended on when things happen would be none to hypothesis
    def late_blocks_arrive(self) -> None:
        self.run(self.proxy.deliver_late())

    @rule()
    def flush(self) -> None:
        assert self.run(self.writer.drain(DRAIN))
        assert (self.writer.figures.buffered_entries, self.writer.figures.buffered_bytes) == (0, 0)
        for symbol in SYMBOLS:
            self.compare(symbol, self.stored(symbol))

    def compare(self, symbol: str, stored: list[int]) -> None:
        """Everything was written."""
        assert stored == self.all_of(symbol)
        assert self.writer.figures.stored.get(symbol, 0) == len(stored)

    @invariant()
    def the_stream_is_in_order(self) -> None:
        for symbol in SYMBOLS:
            stored = self.stored(symbol)
            assert self.is_in_order(stored, self.all_of(symbol))

    def is_in_order(self, stored: list[int], appended: list[int]) -> bool:
        return stored == appended[: len(stored)]

    def stored(self, symbol: str) -> list[int]:
        async def ask() -> list[int]:
            async with reading(self.server.url) as client:
                return await numbers(client, symbol)

        return self.run(ask())

    def all_of(self, symbol: str) -> list[int]:
        return list(range(1, self.appended[symbol] + 1))

    def teardown(self) -> None:
        try:
            self.flush()
            self.run(self.proxy.deliver_late())
            self.flush()
        finally:
            self.run(self.context.__aexit__(None, None, None))
            self.run(self.proxy.__aexit__(None, None, None))
            self.loop.close()


class BoundedWriterMachine(WriterMachine):
    """The same with room for few: what the bound takes is counted, and nothing else is missing.

    What it took while a block was unanswered may be stored all the same.
    """

    buffer_bytes = 8_000
    dropped = 0

    def compare(self, symbol: str, stored: list[int]) -> None:
        figures = self.writer.figures
        uncounted = len(stored) - figures.stored.get(symbol, 0)
        dropped = figures.dropped.get(symbol, 0)
        assert 0 <= uncounted <= dropped
        assert len(stored) - uncounted + dropped == self.appended[symbol]
        assert sum(seq > figures.newest_seq.get(symbol, 0) for seq in stored) <= uncounted
        BoundedWriterMachine.dropped += dropped

    def is_in_order(self, stored: list[int], appended: list[int]) -> bool:
        return stored == sorted(set(stored) & set(appended))


def check_the_model(machine: type[WriterMachine], server: EmbeddedRedis, examples: int) -> None:
    machine.server = server
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[
                Phase.explicit,
                Phase.reuse,
                Phase.generate,
            ],  # no shrinking: each step takes the time of real servers
        ),
    )


def test_any_interleaving_of_faults_leaves_each_snapshot_once_and_in_order(redis_server: EmbeddedRedis) -> None:
    check_the_model(WriterMachine, redis_server, 20)


def test_snapshots_missing_because_of_a_full_buffer_were_counted(redis_server: EmbeddedRedis) -> None:
    BoundedWriterMachine.dropped = 0
    check_the_model(BoundedWriterMachine, redis_server, 20)
    assert BoundedWriterMachine.dropped


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_1500_interleavings_of_faults_leave_each_snapshot_once_and_in_order(redis_server: EmbeddedRedis) -> None:
    check_the_model(WriterMachine, redis_server, 1500)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_snapshots_missing_because_of_a_buffer_that_is_often_full_were_counted(redis_server: EmbeddedRedis) -> None:
    check_the_model(BoundedWriterMachine, redis_server, 1500)


@pytest.mark.parametrize("size", [20, 1], ids=["of many", "of one"])
@pytest.mark.parametrize("first", list(Fault), ids=lambda fault: fault.name.lower())
async def test_every_pair_of_faults_leaves_each_snapshot_once_and_in_order(
    shared_redis_url: str, first: Fault, size: int
) -> None:
    for second in Fault:
        await suffer(shared_redis_url, (first, second), size)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_every_sequence_of_four_faults_leaves_each_snapshot_once_and_in_order(
    redis_server: EmbeddedRedis,
) -> None:
    for fates in itertools.product(Fault, repeat=4):
        redis_server.flush()
        await suffer(redis_server.url, fates, 20)


async def suffer(url: str, fates: tuple[Fault, ...], size: int) -> None:
    """A writer meets `fates`, one for each block of `size` snapshots, and late blocks arrive at the end."""
    async with RedisProxy(port_of(url)) as proxy:
        async with writing(proxy.url) as writer, reading(url) as client:
            await client.flushall()
            upcoming = snapshots(count=size * (len(fates) + 1))
            for fault in fates:
                proxy.faults.append(fault)
                met = len(proxy.met)
                for snapshot in itertools.islice(upcoming, size):
                    writer.append(snapshot)
                while len(proxy.met) == met:  # noqa: ASYNC110 - the proxy does not tell
                    await asyncio.sleep(0)
            for snapshot in upcoming:
                writer.append(snapshot)
            assert await writer.drain(DRAIN)
            await proxy.deliver_late()
            assert await writer.drain(DRAIN)
            assert await numbers(client) == list(range(1, size * (len(fates) + 1) + 1)), fates
            assert tuple(proxy.met) == fates
