"""A master and its replica are dead for good: what the other masters hold is archived as if nothing had happened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ibkr_depth_pipeline.archive.archiver import run_archiver
from ibkr_depth_pipeline.archive.figures import ingests
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import ArchiverTiming
from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.schema.keys import ingest_key, stream_key
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON
from ibkr_depth_pipeline_tests.archive.following import Following
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS, fill
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis

DEAD = SYMBOLS[0]


def kill_the_master_of(cluster: ClusterOfRedis, key: str) -> None:
    dead = cluster.master_of(key)
    cluster.replica_of(dead).kill()
    dead.kill()


@pytest.fixture
def settings(cluster: ClusterOfRedis, tmp_path: Path) -> Settings:
    return load_settings(redis_url=cluster.url, archive_url=str(tmp_path / "archive"), archive_flush_secs=0.2)


@pytest.fixture
def the_rest(cluster: ClusterOfRedis) -> list[str]:
    """The symbols whose streams do not lie on the master that is to die."""
    dead = cluster.master_of(stream_key(DEAD))
    return [symbol for symbol in SYMBOLS if cluster.master_of(stream_key(symbol)) is not dead]


async def test_symbols_of_living_masters_are_read_without_pause(
    cluster: ClusterOfRedis, settings: Settings, the_rest: list[str]
) -> None:
    timing = ArchiverTiming(retries=Backoff(3600.0, 3600.0), discovery_secs=0.05)
    *known, new = the_rest
    with cluster.client() as client:
        fill(client, 100, symbols=[DEAD, *known])
        following = Following(settings, timing)
        for symbol in (DEAD, *known):
            await following.until_kept(symbol, 100)
        await asyncio.to_thread(kill_the_master_of, cluster, stream_key(DEAD))
        for first in (101, 1101, 2101):
            await asyncio.to_thread(fill, client, 1000, first, known)
            for symbol in known:
                await following.until_kept(symbol, first + 999)
        await asyncio.to_thread(fill, client, 100, symbols=[new])
        await following.until_kept(new, 100)
    assert (await following.stop()).gaps == []


async def test_archiver_started_beside_a_dead_master_keeps_the_rest_and_reports_itself_incomplete(
    cluster: ClusterOfRedis, settings: Settings, the_rest: list[str]
) -> None:
    with cluster.client() as client:
        fill(client, 100)
    names = ["a", "b", "c", "default", "e", "f"]
    dead = cluster.master_of(stream_key(DEAD))
    heard = [name for name in names if cluster.master_of(ingest_key(name)) is not dead]
    with cluster.client() as client:
        for name in names:
            client.set(ingest_key(name), FeedFigures(RunIdentity(name, "a-host", 77, NOON), NOON).to_json())
    await asyncio.to_thread(kill_the_master_of, cluster, stream_key(DEAD))
    with pytest.raises(SinkUnavailable):
        await asyncio.to_thread(run_archiver, settings, once=True)
    following = Following(settings)
    for symbol in the_rest:
        await following.until_kept(symbol, 100)
    assert sorted((await following.stop()).snapshots) == sorted(the_rest)
    assert 0 < len(heard) < len(names)
    assert ingests(ArchiveStore(settings.archive_url), DAY) == heard
