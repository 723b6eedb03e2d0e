"""What the end-to-end tests share: a run of the recorder beside a simulated gateway, and a look into Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import redis.asyncio as redis

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.ingest.composition import IngestTimings
from ibkr_depth_pipeline.ingest.figures import IngestSummary
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline.universe.changes import UniverseFile

Rows = list[list[Any]]


@dataclass(frozen=True)
class Snapshot:
    """An entry of a stream, as a reader sees it."""

    ts: int
    seq: int
    venue: str
    bids: Rows
    asks: Rows


class Recording:
    """A run of the recorder under way."""

    def __init__(self, session: IngestSession, task: asyncio.Task[IngestSummary], redis_url: str) -> None:
        self._session = session
        self.task = task
        self.redis = redis.Redis.from_url(redis_url)

    async def stream(self, symbol: str) -> list[Snapshot]:
        """Every snapshot stored of `symbol`, oldest first."""
        return [snapshot_of(fields) for _, fields in await self.redis.xrange(stream_key(symbol))]

    async def newest(self, symbol: str) -> Snapshot:
        """The last snapshot stored of `symbol`."""
        ((_, fields),) = await self.redis.xrevrange(stream_key(symbol), count=1)
        return snapshot_of(fields)

    async def length(self, symbol: str) -> int:
        return int(await self.redis.xlen(stream_key(symbol)))

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        """Wait for `condition`; fails as the run does, if it ends before. The test's timeout bounds it."""
        while not await condition():
            if self.task.done():
                raise AssertionError(f"the run ended: {self.task.exception() or self.task.result()}")
            await asyncio.sleep(0.01)

    async def grows(self, symbol: str, by: int = 1) -> None:
        """Wait until `symbol` has `by` more snapshots than now."""
        before = await self.length(symbol)

        async def longer() -> bool:
            return await self.length(symbol) >= before + by

        await self.until(longer)

    async def stop(self) -> IngestSummary:
        self._session.stop()
        return await self.task


def snapshot_of(fields: Mapping[bytes, bytes]) -> Snapshot:
    """An entry of a stream as it was read."""
    return Snapshot(
        int(fields[b"ts"]),
        int(fields[b"seq"]),
        fields[b"venue"].decode(),
        orjson.loads(fields[b"bids"]),
        orjson.loads(fields[b"asks"]),
    )


def dropped_in_a_turn(summary: IngestSummary) -> dict[str, int]:
    """What was dropped, without the rows that were on their way when their request was cancelled: any end has some."""
    return {key: count for key, count in summary.dropped.items() if not key.endswith("retired_request")}


def settings_for(gateway: SimulatedGateway, redis_url: str, **overrides: Any) -> Settings:
    """Settings that reach the two servers; streams are kept whole."""
    defaults: dict[str, Any] = {
        "ibkr_host": gateway.host,
        "ibkr_port": gateway.port,
        "redis_url": redis_url,
        "ibkr_stream_maxlen": 10_000_000,
        "symbol_config_path": Path("unused.yaml"),
    }
    return load_settings(**{**defaults, **overrides})


def universe_of(*symbols: str | SymbolSpec) -> Universe:
    """A universe of plain names or whole entries."""
    return Universe(tuple(SymbolSpec(each) if isinstance(each, str) else each for each in symbols))


@asynccontextmanager
async def recording(
    gateway: SimulatedGateway,
    redis_url: str,
    universe: Universe,
    wall_ms: Callable[[], int] = unix_ms,
    timings: IngestTimings | None = None,
    file: UniverseFile | None = None,
    until_close: bool = False,
    **overrides: Any,
) -> AsyncIterator[Recording]:
    """The recorder at work; stopped at the end, and a failure of it fails the test. wall_ms is its host's clock."""
    session = IngestSession(
        settings_for(gateway, redis_url, **overrides),
        universe,
        file=file,
        until_close=until_close,
        wall_ms=wall_ms,
        timings=timings or IngestTimings(),
    )
    task = asyncio.ensure_future(session.run())
    run = Recording(session, task, redis_url)
    try:
        yield run
        await run.stop()
    finally:
        session.stop()
        await asyncio.gather(task, return_exceptions=True)
        await run.redis.aclose()
