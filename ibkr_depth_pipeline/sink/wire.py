"""A whole flush in one go: packed commands out on a connection of our own, and their replies read in bulk.

redis-py connects and authenticates; then its streams are used as they are. Its pipelines pack command by command and
arm a timer for each reply: at full speed that was more than half of a recording's time (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
import redis.asyncio as redis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError

from ibkr_depth_pipeline.sink.connection import ANSWER_TIMEOUT_SECS

_READ_BYTES = 1 << 16
_NOTHING = object()


class Part(NamedTuple):
    """Commands on one key, packed as Redis reads them; they go out together and in order. `replies`: how many."""

    key: str
    packed: Sequence[bytes]
    replies: int


Answer = list[Any] | Exception
"""The replies to a part, with what Redis refused as exceptions among them; or why nothing is known of any of them."""


class Wire:
    """To one Redis server. `exchange` from one task only; `close` it at the end."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._connection: Any = None

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """Send all parts and wait for every reply. Returns an answer for each part.

        Raises what is in UNREACHABLE where nothing is known of any; then, and when cancelled, the connection is given
        up, as its replies would be taken for those of the next flush.
        """
        try:
            if self._connection is None:
                self._connection = self._pool.make_connection()
                await self._connection.connect()
            self._connection._writer.writelines([each for part in parts for each in part.packed])
            replies = await self._read(sum(part.replies for part in parts))
        except BaseException:
            await self.close()
            raise
        ends = iter(replies)
        return [[next(ends) for _ in range(part.replies)] for part in parts]

    async def _read(self, wanted: int) -> list[Any]:
        parser = hiredis.Reader(
            protocolError=ConnectionError, replyError=DefaultParser.parse_error, notEnoughData=_NOTHING
        )
        replies: list[Any] = []
        while len(replies) < wanted:
            parser.feed(await self._more())
            while (reply := parser.gets()) is not _NOTHING:
                if isinstance(reply, ConnectionError):  # loading, or no master: it says so to each command
                    raise reply
                replies.append(reply)
        return replies

    async def _more(self) -> bytes:
        """The next bytes from Redis. A timer that aborts the connection costs a tenth of what asyncio.timeout does."""
        reader: asyncio.StreamReader = self._connection._reader  # redis-py itself reads reply by reply
        overdue = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT_SECS, self._connection._writer.transport.abort)
        try:
            data = await reader.read(_READ_BYTES)
        finally:
            overdue.cancel()
        if not data:
            raise ConnectionError(f"Redis closed the connection, or did not answer within {ANSWER_TIMEOUT_SECS:g} s")
        return data

    async def close(self) -> None:
        """Close the connection; the next exchange makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
