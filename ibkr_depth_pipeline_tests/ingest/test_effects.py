"""Effects are carried out: at the gateway, in Redis, in the log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import structlog

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.ingest import effects as do
from ibkr_depth_pipeline.ingest.books import PipelineFigures
from ibkr_depth_pipeline.ingest.effects import EffectExecutor
from ibkr_depth_pipeline.ingest.figures import RateLimitedLog
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.schema.keys import heartbeat_key, venue_key
from ibkr_depth_pipeline.tasks import RunTasks
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, SnapshotWriter, eventually, reading, snapshots, writing

SPY = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA", ("ARCA",))


class Desk:
    """EffectExecutor on a gateway that is not connected and a Redis that is, and what they called."""

    def __init__(self, writer: SnapshotWriter, logged: list[Any]) -> None:
        self.stop = asyncio.Event()
        self.tasks = RunTasks(self.stop)
        self.writer = writer
        self.rechecked: list[str] = []
        self.given_up: list[str] = []
        self.dumped: list[tuple[str, str]] = []
        self.cancelled: list[tuple[int, int]] = []
        self._logged = logged
        gateway = TwsGateway(
            "127.0.0.1",
            9,
            request_ids=itertools.count(1),
            callbacks=GatewayCallbacks(),
            connect_timeout=1,
        )
        self.executor = EffectExecutor(
            gateway,
            writer,
            RateLimitedLog(PipelineFigures(), writer.figures, writer.log_limit),
            rows=15,
            start=self.tasks.start,
            resolve_again=self.rechecked.append,
            reconnect=self._reconnect,
            wall_ms=lambda: len(logged),  # a clock that goes on with each line that is logged
            cancelled=lambda request, ms: self.cancelled.append((request, ms)),
            dump_tape=lambda reason, detail: self.dumped.append((reason, detail)),
        )

    def _reconnect(self, reason: str) -> None:
        self.given_up.append(reason)
        self.executor.execute([do.LogLine("warning", "connection_lost")])

    def said(self) -> list[str]:
        return [line["event"] for line in self._logged]


@asynccontextmanager
async def desk(redis_url: str) -> AsyncIterator[Desk]:
    with structlog.testing.capture_logs() as logged:
        async with writing(redis_url) as writer:
            each = Desk(writer, logged)
            yield each
            await each.tasks.end()
            assert each.tasks.failure is None


async def test_executor_carries_out_every_effect(shared_redis_url: str) -> None:
    effects: list[do.Effect] = [
        do.RequestDepth(1, SPY),
        do.Cancel(1, "SPY"),
        do.Recheck("SPY"),
        do.RecordRefusal(SPY, "354: not subscribed"),
        do.RecordVenue(SPY, "ISLAND 354: not subscribed"),
        do.LogPersisted(("SPY",)),
        do.SetHeartbeatTtl(90, {}),
        do.Reconnect("slots leaked"),
        do.LogLine("info", "rotation_started"),
        do.DumpTape("reconnect", "closed"),
    ]
    assert {type(effect) for effect in effects} == set(get_args(do.Effect))
    async with desk(shared_redis_url) as here:
        here.executor.execute(effects)
        assert here.given_up == ["slots leaked"]
        assert here.dumped == [("reconnect", "closed")]
        assert here.rechecked == ["SPY"]


async def test_effects_are_executed_in_order_with_those_that_one_causes_in_between(
    shared_redis_url: str,
) -> None:
    async with desk(shared_redis_url) as here:
        here.executor.execute(
            [do.LogLine("warning", "slots_leaked"), do.Reconnect("slots leaked"), do.LogLine("info", "rotation_ended")]
        )
        assert here.said() == ["slots_leaked", "connection_lost", "rotation_ended"]


async def test_failure_to_send_is_logged_and_ends_nothing(shared_redis_url: str) -> None:
    async with desk(shared_redis_url) as here:
        here.executor.execute([do.RequestDepth(1, SPY), do.Cancel(1, "SPY")])
        assert here.said() == ["subscribed", "send_failed", "unsubscribed", "send_failed"]


async def test_line_is_known_to_be_live_only_until_the_moment_before_its_cancel(shared_redis_url: str) -> None:
    async with desk(shared_redis_url) as here:
        here.executor.execute([do.RequestDepth(1, SPY)])
        before = len(here.said())
        here.executor.execute([do.Cancel(1, "SPY")])
        assert here.cancelled == [(1, before)]
        assert len(here.said()) > before


async def test_refusal_is_stored_with_the_venue(shared_redis_url: str) -> None:
    async with desk(shared_redis_url) as here, reading(shared_redis_url) as redis:
        here.executor.execute([do.RecordRefusal(SPY, "354: not subscribed")])
        assert await here.writer.drain(DRAIN)
        stored = await redis.hgetall(venue_key("SPY"))
    assert b"354: not subscribed" in stored.values()


async def test_heartbeat_ttl_extends_standing_heartbeats_and_holds_for_later_ones(shared_redis_url: str) -> None:
    async with desk(shared_redis_url) as here, reading(shared_redis_url) as redis:
        await redis.set(heartbeat_key("SPY"), 1, ex=30)
        here.executor.execute([do.SetHeartbeatTtl(90, {"SPY": unix_ms()})])

        async def extended() -> bool:
            return int(await redis.ttl(heartbeat_key("SPY"))) > 30

        await eventually(extended)
    assert here.writer.heartbeat_ttl == 90


async def test_stored_snapshots_are_logged_once(shared_redis_url: str) -> None:
    async with desk(shared_redis_url) as here:
        for snapshot in snapshots("SPY", 3):
            here.writer.append(snapshot)
        assert await here.writer.drain(DRAIN)
        here.executor.execute([do.LogPersisted(("SPY",)), do.LogPersisted(("SPY",))])
        assert here.said() == ["snapshots_persisted"]
