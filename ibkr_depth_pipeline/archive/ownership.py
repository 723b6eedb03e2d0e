"""One archiver at a time for one archive: a lock in a local folder, a lease in Redis for any other store.

The lock ends with its process. The lease expires, so the successor of a killed archiver waits until its time is over;
and a holder that could not renew in time writes nothing until it holds the lease again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType

from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import Streams
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import ArchiveHeld, LeaseHeld, LeaseLost
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.status import identity_of_this_process

ROLE = "archiver"


class Ownership:
    """`async with Ownership(...) as owned:` the archive is ours. Raises ArchiveHeld if it is another's."""

    def __init__(self, store: ArchiveStore, streams: Streams, ttl_secs: float) -> None:
        self._store = store
        self._stack = ExitStack()
        self._lease = None if store.is_local else _lease(store, streams, ttl_secs)
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Ownership:
        self._stack.enter_context(self._store.alone(ROLE))
        if self._lease is not None:
            try:
                await self._lease.acquire()
            except LeaseHeld as held:
                raise self._anothers(held) from None
            self._keeping = asyncio.ensure_future(self._lease.keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None and self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeaseLost):
                await self._keeping
            await self._lease.release()
        self._stack.close()

    async def confirm(self, check_for_others: Callable[[], Awaitable[None]]) -> None:
        """Confirms the ownership before a file is written. Raises ArchiveHeld if the archive is another archiver's.

        If another may have had it in between, `check_for_others` is awaited, which must raise ArchiveHeld if another
        has written; if that fails, it is awaited again next time. Raises SinkUnavailable without an answer.
        """
        if self._lease is None:
            return
        while not await self._ours_all_the_time(self._lease):
            with self._lease.checking():
                await check_for_others()

    async def _ours_all_the_time(self, lease: Lease) -> bool:
        try:
            return await lease.confirm()
        except LeaseLost as lost:
            raise self._anothers(lost) from None

    def _anothers(self, why: LeaseHeld | LeaseLost) -> ArchiveHeld:
        return ArchiveHeld(f"{self._store.url}: another archiver is at work there ({why})")


def _lease(store: ArchiveStore, streams: Streams, ttl_secs: float) -> Lease:
    name = f"archive.{hashlib.sha256(store.url.encode()).hexdigest()[:16]}"
    identity = identity_of_this_process(unix_ms())
    return Lease(streams.client, name, identity, ttl_secs)
