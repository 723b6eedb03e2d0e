"""The servers, started once for all tests here; each test finds them whole and empty, and may kill and pause them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, Servers, WatchedRedis


@pytest.fixture(scope="session")
def _cluster() -> Iterator[ClusterOfRedis]:
    with ClusterOfRedis() as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: ClusterOfRedis) -> ClusterOfRedis:
    """Three masters, three replicas."""
    _cluster.heal()
    return _cluster


@pytest.fixture(scope="session")
def _watched() -> Iterator[WatchedRedis]:
    with WatchedRedis() as watched:
        yield watched


@pytest.fixture
def watched(_watched: WatchedRedis) -> WatchedRedis:
    """A master and its replica, and three Sentinels."""
    _watched.heal()
    return _watched


@pytest.fixture(params=["cluster", "watched"])
def several(request: pytest.FixtureRequest) -> Servers:
    """First the one, then the other."""
    servers: Servers = request.getfixturevalue(request.param)
    return servers
