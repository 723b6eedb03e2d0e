"""A hot standby: what it prepares, what it leaves alone, and what it survives while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from ibkr_depth_pipeline.errors import LeaseLost
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.schema.keys import PREFIX, standby_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline.universe.changes import UniverseFile
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, settings_for, universe_of
from ibkr_depth_pipeline_tests.faults.redis_proxy import RedisProxy, port_of
from ibkr_depth_pipeline_tests.sink.writing import identity, reading

SYMBOLS = ("SPY", "QQQ", "IWM")
SETTINGS: dict[str, Any] = {
    "ibkr_standby": "on",
    "ibkr_rotation_secs": 3600,
    "ibkr_stall_secs": 1,
    "ibkr_reconnect_max_secs": 0.2,
}


@dataclass
class Waiting:
    """A standby beside a gateway; the test itself holds the lease."""

    gateway: SimulatedGateway
    run: Recording
    lease: Lease
    redis_url: str
    logged: list[Any]

    async def health(self) -> IngestHealth:
        return (await read_health(self.redis_url, "default", ())).feed

    async def ready(self, symbols: int = 3) -> None:
        """Wait until it is seen to be ready in Redis."""

        async def seen() -> bool:
            standbys = (await self.health()).standbys
            return [(each.is_ready, each.symbols) for each in standbys] == [(True, symbols)]

        await self.run.until(seen)

    async def logs(self, event: str, times: int = 1) -> None:
        async def logged() -> bool:
            return sum(line["event"] == event for line in self.logged) >= times

        await self.run.until(logged)

    def asked(self, request: str) -> int:
        return len(self.gateway.journal.requests(request))


@asynccontextmanager
async def waiting(
    redis_url: str, *, way: str = "", file: UniverseFile | None = None, **settings: Any
) -> AsyncIterator[Waiting]:
    """A standby that waits for the lease that the test holds; `way`: the URL by which it reaches Redis."""
    with structlog.testing.capture_logs() as logged:
        async with reading(redis_url) as client, SimulatedGateway(GatewayOptions()) as gateway:
            lease = Lease(client, "default", identity("one"), 300)
            await lease.acquire()
            universe = file.load() if file else universe_of(*SYMBOLS)
            async with recording(gateway, way or redis_url, universe, file=file, **{**SETTINGS, **settings}) as run:
                yield Waiting(gateway, run, lease, redis_url, logged)


async def test_standby_is_connected_and_resolved_and_records_at_once_when_the_lease_is_given_back(
    shared_redis_url: str,
) -> None:
    async with waiting(shared_redis_url) as standby:
        await standby.ready()
        questions = standby.asked("reqContractDetails")
        await standby.lease.release()
        for symbol in SYMBOLS:
            await standby.run.grows(symbol, 5)
        assert len(standby.gateway.journal.entries("opened")) == 1, "on the connection that it had"
        assert standby.asked("reqContractDetails") == questions == 3
        health = await standby.health()
        assert health.standbys == ()


async def test_standby_holds_no_slot_and_no_claim_and_writes_nothing_but_its_own_status(shared_redis_url: str) -> None:
    async with waiting(shared_redis_url) as standby:
        await standby.ready()
        assert standby.asked("reqMktDepth") == 0
        keys = await standby.run.redis.keys(f"{PREFIX}:*")
        assert {key.decode() for key in keys} == {f"{PREFIX}:lease:default", standby_key("default")}
        (found,) = (await standby.health()).standbys
        assert (found.client_id, found.resolved) == (807, 3)
        assert not (await standby.health()).running, "it is not taken for one that records"


async def test_standby_that_is_stopped_leaves_nothing_behind(shared_redis_url: str) -> None:
    async with waiting(shared_redis_url) as standby:
        await standby.ready()
        summary = await standby.run.stop()
        assert (summary.drained, summary.snapshots) == (True, {})
        assert await standby.run.redis.exists(standby_key("default"), stream_key("SPY")) == 0
        assert standby.lease.fresh


async def test_standby_whose_client_id_is_taken_uses_the_next_one(shared_redis_url: str) -> None:
    async with waiting(shared_redis_url) as first:
        await first.ready()
        second = IngestSession(settings_for(first.gateway, shared_redis_url, **SETTINGS), universe_of(*SYMBOLS))
        task = asyncio.ensure_future(second.run())

        async def both_seen() -> bool:
            standbys = (await first.health()).standbys
            return {each.client_id for each in standbys if each.is_ready} == {807, 808}

        await first.run.until(both_seen)
        second.stop()
        await task


async def test_gateway_that_goes_away_while_a_standby_waits_is_connected_to_again(shared_redis_url: str) -> None:
    async with waiting(shared_redis_url) as standby:
        await standby.ready()
        standby.gateway.stop_listening()
        standby.gateway.drop_connections()
        await standby.logs("standby_not_ready")
        await standby.gateway.listen()
        await standby.logs("standby_ready", 2)
        await standby.lease.release()
        await standby.run.grows("SPY", 5)


async def test_lease_that_is_free_while_the_gateway_is_away_is_taken_and_recorded_once_it_is_back(
    shared_redis_url: str,
) -> None:
    async with waiting(shared_redis_url) as standby:
        await standby.ready()
        standby.gateway.stop_listening()
        standby.gateway.drop_connections()
        await standby.logs("standby_not_ready")
        await standby.lease.release()
        await standby.logs("lease_acquired", 2)
        await standby.gateway.listen()
        await standby.run.grows("SPY", 5)


async def test_redis_that_goes_away_while_a_standby_waits_is_waited_for(shared_redis_url: str) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy, waiting(shared_redis_url, way=proxy.url) as standby:
        await standby.ready()
        proxy.mute = True
        lost = proxy.lost

        async def cut_off() -> bool:
            return proxy.lost > lost + 2

        await standby.run.until(cut_off)
        assert standby.asked("reqMktDepth") == 0
        proxy.mute = False
        await standby.ready()
        await standby.lease.release()
        await standby.run.grows("SPY", 5)


async def test_universe_that_changes_while_a_standby_waits_is_what_it_records(
    shared_redis_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "symbols.yaml"
    path.write_text("symbols: [SPY, QQQ]\n")
    async with waiting(shared_redis_url, file=UniverseFile(path)) as standby:
        await standby.ready(2)
        path.write_text("symbols: [SPY, {symbol: IWM, weight: 2}, AAPL]\n")
        await standby.ready(3)
        assert not await standby.run.redis.keys(f"{PREFIX}:claim:*")
        await standby.lease.release()
        for symbol in ("SPY", "IWM", "AAPL"):
            await standby.run.grows(symbol, 5)
        assert await standby.run.length("QQQ") == 0
        claimed = {key.decode().rpartition(":")[2] for key in await standby.run.redis.keys(f"{PREFIX}:claim:*")}
        assert claimed == {"SPY", "IWM", "AAPL"}


async def test_standby_ends_before_the_close_so_that_it_takes_nothing_over_then(
    shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibkr_depth_pipeline.ingest.standby.ENDS_EARLY_SECS", 199.5)
    async with reading(shared_redis_url) as client, SimulatedGateway(GatewayOptions()) as gateway:
        lease = Lease(client, "default", identity("one"), 300)
        await lease.acquire()
        session = IngestSession(settings_for(gateway, shared_redis_url, **SETTINGS), universe_of("SPY"))
        summary = await session.run(200)
        assert summary.snapshots == {}
        assert summary.up_ms is not None
        assert summary.up_ms < 200_000
        assert lease.fresh


async def test_standby_that_nobody_heard_of_for_the_ttl_is_gone_from_the_status(shared_redis_url: str) -> None:
    async with waiting(shared_redis_url) as standby:
        await standby.ready()
        dead = b'1000 dead {"run":{"run_id":"dead","host":"h","pid":1,"started_ts":1},"since_ts":1}\n'
        await standby.run.redis.append(standby_key("default"), dead)

        async def swept() -> bool:
            return b"dead" not in await standby.run.redis.get(standby_key("default"))

        assert len((await standby.health()).standbys) == 1
        await standby.run.until(swept)


async def test_recording_with_a_standby_counts_those_that_are_ready(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions()) as gateway:
        async with recording(gateway, shared_redis_url, universe_of(*SYMBOLS), **SETTINGS) as first:

            async def shows(count: int) -> bool:
                figures = (await read_health(shared_redis_url, "default", ())).feed.figures
                return figures is not None and figures.standbys_ready == count

            await first.until(lambda: shows(0))
            async with recording(gateway, shared_redis_url, universe_of(*SYMBOLS), **SETTINGS):
                await first.until(lambda: shows(1))


async def test_reserve_gives_the_recording_back_once_another_one_stands_by(
    shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibkr_depth_pipeline.ingest.standby.HAND_BACK_SECS", 0.1)
    monkeypatch.setattr("ibkr_depth_pipeline.ingest.standby.HAND_OVER_CYCLE_SECS", 0.1)
    async with waiting(shared_redis_url, ibkr_standby="reserve") as reserve:
        await reserve.ready()
        await reserve.lease.release()
        await reserve.run.grows("SPY", 5)
        for role, ends in (("reserve", False), ("on", True)):
            settings = {**SETTINGS, "ibkr_standby": role}
            async with recording(reserve.gateway, shared_redis_url, universe_of(*SYMBOLS), **settings) as other:

                async def stands_by() -> bool:
                    standbys = (await reserve.health()).standbys
                    return any(each.is_ready for each in standbys)

                await other.until(stands_by)
                if ends:
                    assert (await reserve.run.task).drained
                    await other.grows("SPY", 5)
                else:
                    await asyncio.sleep(0.5)
                    assert not reserve.run.task.done(), "two reserves would hand it back and forth"


@pytest.mark.faults
async def test_recorder_that_is_cut_off_from_redis_is_taken_over_from_and_stores_nothing_once_it_is_back(
    shared_redis_url: str,
) -> None:
    settings = {**SETTINGS, "ibkr_lease_ttl_secs": 2}
    async with RedisProxy(port_of(shared_redis_url)) as proxy, SimulatedGateway(GatewayOptions(slots=6)) as gateway:
        cut_off = IngestSession(settings_for(gateway, proxy.url, **settings), universe_of(*SYMBOLS))
        lost = asyncio.ensure_future(cut_off.run())
        await gateway.wait_for(lambda: len(gateway.journal.entries("subscribed")) == 3)
        async with recording(gateway, shared_redis_url, universe_of(*SYMBOLS), **settings) as standby:
            await standby.grows("SPY", 20)
            await gateway.wait_for(lambda: len(gateway.clients) == 2)
            assert not lost.done()
            proxy.delay = 4.0
            before = await standby.length("SPY")

            async def took_over() -> bool:
                return len(gateway.journal.entries("subscribed")) >= 6

            await standby.until(took_over)
            await standby.grows("SPY", 20)
            proxy.delay = 0.0
            with pytest.raises(LeaseLost):
                await lost
            await standby.grows("SPY", 20)
            stream = await standby.stream("SPY")
            assert [each.seq for each in stream] == list(range(1, len(stream) + 1))
            assert len(stream) > before
