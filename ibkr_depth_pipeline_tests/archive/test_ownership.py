"""Whoever has lost the lease for a while writes nothing before it has looked what others wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ibkr_depth_pipeline.archive.ownership import Ownership
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import Streams
from ibkr_depth_pipeline.errors import ArchiveHeld, ArchiveUnavailable
from ibkr_depth_pipeline.schema.keys import lease_key
from ibkr_depth_pipeline_tests.archive.conftest import Mirror


class Looks:
    """Looks for others, of which each fails in its way, and then those that find nobody."""

    def __init__(self, *failures: Exception) -> None:
        self.count = 0
        self._failures = list(failures)

    async def __call__(self) -> None:
        self.count += 1
        if self._failures:
            raise self._failures.pop(0)


@pytest.fixture
async def owned(shared_redis_url: str) -> AsyncIterator[Ownership]:
    """An archive that is no local folder, ours by a lease."""
    streams = Streams(shared_redis_url)
    async with Ownership(ArchiveStore("memory://archive"), streams, ttl_secs=1.0) as owned:
        yield owned
    await streams.close()


async def lose_the_lease(mirror: Mirror) -> None:
    """Until its holder has taken it again and knows that: it has renewed it."""
    (key,) = mirror.redis.keys(lease_key("*"))
    mirror.redis.delete(key)
    left = [-2]
    while len(left) < 3:  # none, taken, renewed
        await asyncio.sleep(0.01)
        if (now := mirror.redis.pttl(key)) > left[-1]:
            left.append(now)
        else:
            left[-1] = now


async def test_kept_lease_needs_no_check_for_other_archivers(owned: Ownership) -> None:
    looks = Looks()
    await owned.confirm(looks)
    assert looks.count == 0


async def test_failed_check_for_others_is_repeated_until_one_succeeds(mirror: Mirror, owned: Ownership) -> None:
    looks = Looks(ArchiveUnavailable("no answer"), FileNotFoundError("gone"))
    await lose_the_lease(mirror)
    with pytest.raises(ArchiveUnavailable):
        await owned.confirm(looks)
    with pytest.raises(FileNotFoundError):
        await owned.confirm(looks)
    await owned.confirm(looks)
    await owned.confirm(looks)
    assert looks.count == 3


async def test_check_that_finds_another_archiver_ends_the_run(mirror: Mirror, owned: Ownership) -> None:
    await lose_the_lease(mirror)
    with pytest.raises(ArchiveHeld):
        await owned.confirm(Looks(ArchiveHeld("another")))


async def test_lease_lost_during_the_check_needs_another_check(mirror: Mirror, owned: Ownership) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            await lose_the_lease(mirror)

    await lose_the_lease(mirror)
    await owned.confirm(look)
    assert looks == 2
