"""The lease of a holder whose process has ended, or that gave it back, is taken without waiting for its time."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest

from ibkr_depth_pipeline.schema.keys import given_back_key, lease_key
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.sink.holder_process import HolderProcess
from ibkr_depth_pipeline.sink.lease import GRACE_SECS, LOOK_SECS, HolderWatch, Lease
from ibkr_depth_pipeline.sink.status import process_mark
from ibkr_depth_pipeline_tests.sink.writing import identity, reading

LONG_TTL_SECS = 300.0


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def run_of(process: subprocess.Popen[bytes]) -> RunIdentity:
    return replace(identity("one"), pid=process.pid, process=process_mark(process.pid))


async def test_lease_of_a_process_that_is_killed_is_taken_at_once(
    shared_redis_url: str, sleeper: subprocess.Popen[bytes]
) -> None:
    async with reading(shared_redis_url) as client:
        await Lease(client, "default", run_of(sleeper), LONG_TTL_SECS).acquire()
        second = Lease(client, "default", identity("two"), LONG_TTL_SECS)
        holder = await second.take_if_free()
        assert holder is not None
        waiting = asyncio.ensure_future(second.stand_by(holder, LONG_TTL_SECS))
        await asyncio.sleep(3 * LOOK_SECS)
        assert not waiting.done(), "the process is alive, though it renews nothing"
        sleeper.kill()
        await waiting
        assert second.fresh
        assert orjson.loads(await client.get(lease_key("default")))["run_id"] == "two"


async def test_start_after_a_kill_does_not_wait_for_the_lease_to_run_out(
    shared_redis_url: str, sleeper: subprocess.Popen[bytes]
) -> None:
    async with reading(shared_redis_url) as client:
        await Lease(client, "default", run_of(sleeper), LONG_TTL_SECS).acquire()
        sleeper.kill()
        sleeper.wait()
        second = Lease(client, "default", identity("two"), LONG_TTL_SECS)
        await second.acquire()
        assert second.fresh


async def test_two_that_stand_by_for_a_killed_one_do_not_both_get_its_lease(
    shared_redis_url: str, sleeper: subprocess.Popen[bytes]
) -> None:
    async with reading(shared_redis_url) as client:
        await Lease(client, "default", run_of(sleeper), LONG_TTL_SECS).acquire()
        others = [Lease(client, "default", identity(name), LONG_TTL_SECS) for name in ("two", "three")]
        waiting = []
        for lease in others:
            holder = await lease.take_if_free()
            assert holder is not None
            waiting.append(asyncio.ensure_future(lease.stand_by(holder, LONG_TTL_SECS)))
        sleeper.kill()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(3 * LOOK_SECS)
        assert [lease.fresh for lease in others].count(True) == 1
        assert [task.done() for task in waiting].count(True) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_lease_that_was_given_back_is_taken_at_once(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        first, second = (Lease(client, "default", identity(name), LONG_TTL_SECS) for name in ("one", "two"))
        await first.acquire()
        holder = await second.take_if_free()
        assert holder is not None
        waiting = asyncio.ensure_future(second.stand_by(holder, LONG_TTL_SECS))
        await first.release()
        await asyncio.wait([waiting], timeout=GRACE_SECS + 10)
        assert waiting.done()
        assert second.fresh
        assert 0 < await client.pttl(given_back_key("default")) <= 10_000


def test_lease_that_another_than_the_last_holder_gave_back_is_waited_for() -> None:
    watch = HolderWatch(b"two")
    watch.saw(b"two", 5000, 0.0, 0.0)
    watch.saw(None, -2, 0.1, 0.1, b"one")
    assert not watch.is_free
    watch.saw(None, -2, 0.2, 0.2, b"two")
    assert watch.is_free


def text_of(run: RunIdentity) -> bytes:
    return orjson.dumps(run)


async def ended_of(holder: bytes) -> bool:
    process = HolderProcess()
    process.watch(holder)
    await asyncio.sleep(0)
    try:
        return process.ended.is_set()
    finally:
        process.close()


async def test_process_whose_number_is_another_process_by_now_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    boot, namespace, start = process_mark(sleeper.pid).split()
    earlier = replace(run_of(sleeper), process=f"{boot} {namespace} {int(start) - 1}")
    assert await ended_of(text_of(earlier))


@pytest.mark.parametrize("part", [0, 1])
async def test_process_of_another_machine_or_namespace_is_never_known_to_have_ended(
    sleeper: subprocess.Popen[bytes], part: int
) -> None:
    words = process_mark(sleeper.pid).split()
    words[part] = "another"
    elsewhere = replace(run_of(sleeper), process=" ".join(words))
    sleeper.kill()
    sleeper.wait()
    assert not await ended_of(text_of(elsewhere))


@pytest.mark.parametrize("holder", [b"", b"no json", b"[]", b"{}", b'{"process":"","pid":1}', b'{"process":"a b c"}'])
async def test_holder_without_a_readable_process_is_left_to_its_time(holder: bytes) -> None:
    assert not await ended_of(holder)


async def test_descriptors_are_closed_when_the_holder_changes(sleeper: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    process = HolderProcess()
    for name in range(20):
        process.watch(text_of(replace(run_of(sleeper), run_id=str(name))))
    process.close()
    assert len(os.listdir("/proc/self/fd")) == before
