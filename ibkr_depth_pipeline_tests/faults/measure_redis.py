"""How long it takes from Redis being back until rows are stored again. Prints a table. See also measure_standby.

.venv/bin/python -m ibkr_depth_pipeline_tests.faults.measure_redis
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline_tests.faults.ingest_process import SYMBOLS
from ibkr_depth_pipeline_tests.faults.redis_proxy import Fault, RedisProxy
from ibkr_depth_pipeline_tests.sink.writing import SnapshotWriter, reading, snapshots, writing

AWAY_SECS = 6.0
"""Past the 5 s after which the writer gives an answer up."""

Repair = Callable[[], Coroutine[Any, Any, None]]
Break = Callable[[EmbeddedRedis, RedisProxy], Coroutine[Any, Any, Repair]]


async def killed(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    server.kill()
    return lambda: asyncio.to_thread(server.start)


async def paused(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    server.pause()

    async def resume() -> None:
        server.resume()

    return resume


async def out_of_memory(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    return await _configured(server, "maxmemory", "1", "0")


async def wrong_password(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    await _command(server, "ACL", "SETUSER", "default", "resetpass", ">other")
    client = reading(server.url.replace("redis://", "redis://:other@"))
    admin = await client.__aenter__()
    await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def back() -> None:
        await admin.execute_command("ACL", "SETUSER", "default", "nopass")
        await client.__aexit__(None, None, None)

    return back


async def read_only(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    await _command(server, "REPLICAOF", "127.0.0.1", "1")
    return lambda: _command(server, "REPLICAOF", "NO", "ONE")


async def slow(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    proxy.delay = 0.5

    async def fast() -> None:
        proxy.delay = 0.0

    return fast


async def reply_lost(server: EmbeddedRedis, proxy: RedisProxy) -> Repair:
    proxy.faults.append(Fault.LOSE_REPLY)
    while not proxy.met:  # noqa: ASYNC110
        await asyncio.sleep(0.001)

    async def nothing() -> None: ...

    return nothing


async def _command(server: EmbeddedRedis, *words: str) -> None:
    async with reading(server.url) as client:
        await client.execute_command(*words)


async def _configured(server: EmbeddedRedis, name: str, broken: str, sound: str) -> Repair:
    await _command(server, "CONFIG", "SET", name, broken)
    return lambda: _command(server, "CONFIG", "SET", name, sound)


@asynccontextmanager
async def appending(writer: SnapshotWriter) -> AsyncIterator[None]:
    """200 rows a second of each of three symbols."""

    async def append() -> None:
        upcoming = {symbol: snapshots(symbol, count=10**9, ts=time.time_ns() // 10**6) for symbol in SYMBOLS}
        for _ in itertools.count():
            for symbol in SYMBOLS:
                for snapshot in itertools.islice(upcoming[symbol], 2):
                    writer.append(snapshot)
            await asyncio.sleep(0.01)

    task = asyncio.ensure_future(append())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def recovery(fault: Break, away_secs: float) -> tuple[float, float]:
    """Seconds from the repair until a row is stored again, and until nothing older than the repair waits."""
    with EmbeddedRedis(persist=True) as server:
        async with RedisProxy(server.port) as proxy, writing(proxy.url) as writer:
            async with appending(writer):
                await asyncio.sleep(1)
                repair = await fault(server, proxy)
                await asyncio.sleep(away_secs)
                await repair()
                return await _caught_up(writer)


async def _caught_up(writer: SnapshotWriter) -> tuple[float, float]:
    began = time.monotonic()
    stored, waiting = sum(writer.figures.stored.values()), writer.figures.buffered_entries
    while sum(writer.figures.stored.values()) == stored:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    first = time.monotonic() - began
    while sum(writer.figures.stored.values()) < stored + waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return first, time.monotonic() - began


def main() -> None:
    structlog.configure(processors=[_silence])
    print(f"{'fault':<18}{'away s':>8}{'first row s':>13}{'caught up s':>13}")
    for fault in (killed, paused, out_of_memory, wrong_password, read_only, slow, reply_lost):
        away = 0.0 if fault is reply_lost else AWAY_SECS
        with contextlib.suppress(asyncio.CancelledError):
            first, caught_up = asyncio.run(recovery(fault, away))
            print(f"{fault.__name__:<18}{away:>8.0f}{first:>13.3f}{caught_up:>13.3f}", flush=True)


def _silence(_logger: Any, _name: str, _event: Any) -> Any:
    raise structlog.DropEvent


if __name__ == "__main__":
    main()
