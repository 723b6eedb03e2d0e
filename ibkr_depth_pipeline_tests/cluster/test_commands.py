"""Each part of the project against a cluster and against Sentinels while nothing fails: no command spans two slots."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio.connection import SSLConnection

from ibkr_depth_pipeline.archive.archiver import run_archiver
from ibkr_depth_pipeline.archive.reading import read_day
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.probe.venue_cache import VenueStore
from ibkr_depth_pipeline.reader import After, AsyncDepthReader, At, DepthReader, DepthSnapshot
from ibkr_depth_pipeline.schema.health import SymbolState
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, encode_interval
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key, turns_stream, venue_key
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.sink.connection import check_writable, open_redis
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.status import StatusPublisher, identity_of_this_process, read_health
from ibkr_depth_pipeline.sink.stream_fence import newest_ids, raise_positions
from ibkr_depth_pipeline_tests.archive.conftest import DAY, ids_of
from ibkr_depth_pipeline_tests.cluster.filling import BEGIN, SYMBOLS, fill
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, Servers, WatchedRedis, ask, version
from ibkr_depth_pipeline_tests.sink.writing import identity

VENUE = {"con_id": 1, "exchange": "ARCA", "primary_exchange": "ARCA", "valid_exchanges": "ARCA", "depth_supported": 1}
VENUE |= {"reason": "", "checked_ts": BEGIN}


def test_symbols_of_the_tests_lie_on_every_master(cluster: ClusterOfRedis) -> None:
    assert len({cluster.master_of(stream_key(symbol)).port for symbol in SYMBOLS}) == 3
    keys = [[key(symbol) for key in (stream_key, last_key, heartbeat_key, venue_key)] for symbol in SYMBOLS]
    assert any(len({cluster.master_of(key).port for key in of_symbol}) > 1 for of_symbol in keys)


async def test_check_writes_to_every_master_and_leaves_nothing(several: Servers) -> None:
    with several.client() as client:
        assert await check_writable(several.url) == version()
        assert list(client.scan_iter()) == []


async def test_check_finds_one_master_that_is_read_only(cluster: ClusterOfRedis) -> None:
    full = cluster.master_of(stream_key("SPY"))
    ask(full.port, "CONFIG", "SET", "min-replicas-to-write", 5)
    try:
        with pytest.raises(SinkUnavailable, match="NOREPLICAS"):
            await check_writable(cluster.url)
    finally:
        ask(full.port, "CONFIG", "SET", "min-replicas-to-write", 0)


async def test_positions_are_read_and_raised(several: Servers) -> None:
    with several.client() as client:
        fill(client, 7)
        client.hset(last_key("NEW"), mapping={"ts": BEGIN + 9, "seq": 12})
    sink = open_redis(several.url)
    raised = await raise_positions(sink, [*SYMBOLS, "NEW", "NEVER"], BEGIN + 1_000_000)
    assert {symbol: each.seq for symbol, each in raised.items()} == {**dict.fromkeys(SYMBOLS, 7), "NEW": 12, "NEVER": 0}
    assert {each.ts for each in raised.values()} == {BEGIN + 1_000_000}
    assert await newest_ids(sink, SYMBOLS) == {symbol: raised[symbol] for symbol in SYMBOLS}
    await sink.aclose()


async def test_lease_in_a_cluster_has_one_holder(several: Servers) -> None:
    sink = open_redis(several.url)
    first, second = (Lease(sink, "default", identity(name), 2) for name in ("one", "two"))
    await first.acquire()
    assert first.fresh
    await first.release()
    await second.acquire()
    await second.hold()
    await second.release()
    await sink.aclose()


async def test_figures_and_health(several: Servers) -> None:
    sink = open_redis(several.url)
    run = identity_of_this_process(1)
    with several.client() as client:
        fill(client, 3)
        for symbol in SYMBOLS:
            client.set(heartbeat_key(symbol), BEGIN, ex=30)
    await StatusPublisher(sink, "default").publish(FeedFigures(run, written_ts=2, connected=True))
    health = await read_health(several.url, "default", [*SYMBOLS, "NEVER"])
    assert health.feed.running
    assert {each.symbol: each.state for each in health.symbols} == {
        **dict.fromkeys(SYMBOLS, SymbolState.FRESH),
        "NEVER": SymbolState.MISSING,
    }
    await StatusPublisher(sink, "default").publish(FeedFigures(run, written_ts=3, ended_ts=3))
    assert not (await read_health(several.url, "default", SYMBOLS)).feed.running
    await sink.aclose()


async def test_probe_stores_and_finds_venues_in_a_cluster(several: Servers) -> None:
    store = VenueStore(several.url)
    for symbol in SYMBOLS:
        await store.record(Instrument(symbol, 1, "STK", "USD", "ARCA", "ARCA"), "no depth", 5)
    assert set(await store.refusals(SYMBOLS)) == set(SYMBOLS)
    with several.client() as client:
        for symbol in SYMBOLS:
            client.set(heartbeat_key(symbol), 7)
    assert await store.heartbeats() == dict.fromkeys(SYMBOLS, 7)
    await store.close()


async def test_both_readers_read_everything(several: Servers) -> None:
    with several.client() as client:
        fill(client, 5)
        for symbol in SYMBOLS:
            client.set(heartbeat_key(symbol), BEGIN, ex=30)
            client.hset(venue_key(symbol), mapping=VENUE)
    with DepthReader(several.url) as reader:
        async with AsyncDepthReader(several.url) as other:
            assert await other.symbols() == await asyncio.to_thread(reader.symbols) == tuple(sorted(SYMBOLS))
            newest = reader.latest_all()
            assert await other.latest_all() == newest
            assert {symbol: each.seq for symbol, each in newest.items()} == dict.fromkeys(SYMBOLS, 5)
            assert (await other.heartbeats(SYMBOLS)).keys() == reader.heartbeats(SYMBOLS).keys() == set(SYMBOLS)
            assert await other.venues(SYMBOLS) == reader.venues(SYMBOLS) != {}
            spans = [(symbol, BEGIN, None) for symbol in SYMBOLS]
            assert await other.first_of(spans) == reader.first_of(spans)
            assert [each.seq for each in reader.range("SPY")] == [1, 2, 3, 4, 5]
            assert (await other.to_arrow(*SYMBOLS)).equals(reader.to_arrow(*SYMBOLS))


async def test_both_readers_follow_all_symbols_at_once(several: Servers) -> None:
    wanted = {(symbol, seq) for symbol in SYMBOLS for seq in range(3, 11)}
    with several.client() as client, DepthReader(several.url) as reader:
        fill(client, 5)
        async with AsyncDepthReader(several.url) as other:
            followings = reader.follow(*SYMBOLS, start=After(2)), other.follow(*SYMBOLS, start=After(2))
            found: list[set[tuple[str, int]]] = [set(), set()]
            for first in (1, 6):
                if first > 1:
                    fill(client, 5, first)
                count = len(SYMBOLS) * (first + 2)
                while len(found[0]) < count:
                    found[0] |= _numbers(followings[0].read())
                while len(found[1]) < count:
                    found[1] |= _numbers(await followings[1].read())
            assert found == [wanted, wanted]
            assert followings[0].read(0.05) == await followings[1].read(0.05) == []
            later = asyncio.ensure_future(anext(followings[1]))
            await asyncio.to_thread(fill, client, 1, 11)
            assert isinstance(await later, DepthSnapshot)


async def test_both_readers_follow_the_intervals_of_all_symbols(several: Servers) -> None:
    with several.client() as client, DepthReader(several.url) as reader:
        for number in (1, 2):
            fill(client, 5, 5 * number - 4)
            for symbol in SYMBOLS:
                books = [book for book in reader.range(symbol) if book.seq > 5 * number - 5]
                turn = SubscriptionInterval(
                    *(symbol, number, "ARCA"),
                    first_row=books[0].ts,
                    complete=books[0].ts,
                    until=books[-1].ts,
                    first_seq=books[0].seq,
                    last_seq=books[-1].seq,
                    end=EndReason.TURN_OVER,
                )
                client.xadd(turns_stream(symbol), encode_interval(turn), id=f"{books[-1].ts}-{number}")
        async with AsyncDepthReader(several.url) as other:
            for items in (
                reader.follow(SYMBOLS, start=1, intervals=True).read(),
                await other.follow(start=1, intervals=True).read(),
            ):
                for symbol in SYMBOLS:
                    kinds = [type(item).__name__ for item in items if item.symbol == symbol]
                    assert kinds == ["IntervalStarted", *["DepthSnapshot"] * 5, "IntervalEnded"] * 2
            assert await other.intervals() == reader.intervals() != []


def _numbers(items: list[object]) -> set[tuple[str, int]]:
    return {(item.symbol, item.seq) for item in items if isinstance(item, DepthSnapshot)}


def test_range_of_several_pages_comes_whole(cluster: ClusterOfRedis) -> None:
    with cluster.client() as client, DepthReader(cluster.url) as reader:
        fill(client, 4_500, symbols=["SPY"])
        assert [each.seq for each in reader.range("SPY")] == list(range(1, 4_501))
        assert len(reader.follow("SPY", start=At(0), most=100).read()) == 100


def test_archiver_of_a_cluster_keeps_everything(several: Servers, tmp_path: Path) -> None:
    settings = load_settings(redis_url=several.url, archive_url=str(tmp_path / "archive"))
    with several.client() as client:
        fill(client, 1_500)
    outcome = run_archiver(settings, once=True)
    assert outcome.summary.snapshots == dict.fromkeys(SYMBOLS, 1_500)
    assert outcome.summary.gaps == []
    store = ArchiveStore(settings.archive_url)
    assert [each.seq for each in ids_of(read_day(store, DAY, "SPY"))] == list(range(1, 1_501))


async def test_server_that_is_no_cluster_is_named_as_such(redis_server: EmbeddedRedis) -> None:
    with pytest.raises(SinkUnavailable, match="Cluster mode is not enabled"):
        await check_writable(f"redis+cluster://{HOST}:{redis_server.port}")


async def test_name_unknown_to_the_sentinels_is_in_the_error(watched: WatchedRedis) -> None:
    with pytest.raises(SinkUnavailable, match="No master found for 'nobody'"):
        await check_writable(watched.url.replace("/depth", "/nobody"))


async def test_password_is_used_for_every_node(cluster: ClusterOfRedis) -> None:
    for server in cluster.servers:
        ask(server.port, "CONFIG", "SET", "requirepass", "hunter2")
    try:
        with pytest.raises(SinkUnavailable, match="invalid username-password") as refused:
            await check_writable(cluster.url.replace("://", "://:wrong@"))
        assert "wrong" not in str(refused.value)
        url = cluster.url.replace("://", "://:hunter2@")
        assert await check_writable(url) == version()
        with DepthReader(url) as reader:
            assert reader.symbols() == ()
    finally:
        for server in cluster.servers:
            with redis.Redis(HOST, server.port, password="hunter2") as client:
                client.config_set("requirepass", "")


def test_tls_and_passwords_reach_every_connection(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    for where in (
        "rediss+cluster://user:hunter2@one",
        "rediss+sentinel://user:hunter2@one/depth?sentinel_password=2nd",
    ):
        settings = load_settings(redis_url=where, redis_tls_ca_file=str(certificate))
        client: Any = open_redis(settings.redis_target)
        if "cluster" in where:
            (node,) = client.nodes_manager.startup_nodes.values()
            given, kind = node.connection_kwargs, node.connection_class
        else:
            given, kind = client.connection_pool.connection_kwargs, client.connection_pool.connection_class
            (sentinel,) = client.connection_pool.sentinel_manager.sentinels
            of_sentinel = sentinel.connection_pool.connection_kwargs
            assert (of_sentinel["password"], of_sentinel["ssl_ca_certs"]) == ("2nd", str(certificate))
        assert issubclass(kind, SSLConnection)
        assert (given["username"], given["password"], given["ssl_ca_certs"]) == ("user", "hunter2", str(certificate))
