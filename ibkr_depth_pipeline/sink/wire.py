"""A whole flush in one go: packed commands out on a connection of our own, and their replies read in bulk.

redis-py connects and authenticates; then its streams are used as they are. Its pipelines pack command by command and
arm a timer for each reply: at full speed that was more than half of a recording's time (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import hiredis
import redis.asyncio as redis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError

from ibkr_depth_pipeline.sink.connection import ANSWER_TIMEOUT_SECS

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # redis-py brings it where Python is older

_READ_BYTES = 1 << 16
_NOTHING = object()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Part:
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
                await _in_time(self._connection.connect())
            packed = [each for part in parts for each in part.packed]
            first = await _in_time(self._send_and_read(packed))  # one timer for both, as most flushes are small
            replies = await self._read_on(first, sum(part.replies for part in parts))
        except BaseException:
            await self.close()
            raise
        ends = iter(replies)
        return [[next(ends) for _ in range(part.replies)] for part in parts]

    async def _send_and_read(self, packed: list[bytes]) -> bytes:
        writer: asyncio.StreamWriter = self._connection._writer
        writer.writelines(packed)
        await writer.drain()
        return await self._more()

    async def _more(self) -> bytes:
        reader: asyncio.StreamReader = self._connection._reader
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionError("Redis closed the connection")
        return data

    async def _read_on(self, data: bytes, wanted: int) -> list[Any]:
        parser = hiredis.Reader(
            protocolError=ConnectionError, replyError=DefaultParser.parse_error, notEnoughData=_NOTHING
        )
        replies: list[Any] = []
        while True:
            parser.feed(data)
            while (reply := parser.gets()) is not _NOTHING:
                if isinstance(reply, ConnectionError):  # loading, or no master: it says so to each command
                    raise reply
                replies.append(reply)
            if len(replies) >= wanted:
                return replies
            data = await _in_time(self._more())

    async def close(self) -> None:
        """Close the connection; the next exchange makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _in_time(work: Awaitable[_T]) -> _T:
    try:
        async with timeout(ANSWER_TIMEOUT_SECS):
            return await work
    except asyncio.TimeoutError:  # which is not yet TimeoutError itself before Python 3.11
        raise TimeoutError(f"Redis did not answer within {ANSWER_TIMEOUT_SECS:g} s") from None
