"""The streams as the archiver reads them: from an id on, batch by batch, without ever waiting in Redis."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ibkr_depth_pipeline.archive.decoding import RawEntry
from ibkr_depth_pipeline.archive.layout import EntryId
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.redis_link.asking import ask_each
from ibkr_depth_pipeline.settings import mask_url
from ibkr_depth_pipeline.sink.connection import UNREACHABLE, open_redis
from ibkr_depth_pipeline.sink.figures import FeedFigures
from ibkr_depth_pipeline.sink.keys import ingest_key, last_key, stream_key

ENTRIES_AT_ONCE = 1000
"""Most entries of a stream in one answer: about a megabyte."""

_PREFIX = stream_key("")
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.\-/&+]*(?: [A-Z0-9.\-/&+]+)?")  # as universe.py allows; no check of ours matches


class Streams:
    """A Redis, seen as streams. Each command names one key, so keys may live in different slots of a cluster.

    Methods raise SinkUnavailable, with the reason and without a password.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.client: Any = open_redis(url)

    async def close(self) -> None:
        await self.client.aclose()

    async def symbols(self) -> list[str]:
        """The symbols that have a stream, by name."""
        try:
            keys = self.client.scan_iter(match=f"{_PREFIX}*", count=1000, _type="stream")
            found = [key.decode() async for key in keys]
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        names = (key[len(_PREFIX) :] for key in found)
        return sorted(name for name in names if _SYMBOL.fullmatch(name))

    async def read(self, positions: Mapping[str, EntryId]) -> tuple[dict[str, list[RawEntry]], SinkUnavailable | None]:
        """What stands behind each position, oldest first, at most ENTRIES_AT_ONCE; only symbols that have something.

        And, where a part of a cluster is away, why some symbols could not be read.
        """
        commands = [
            ("XREAD", "COUNT", ENTRIES_AT_ONCE, "STREAMS", stream_key(symbol), str(position))
            for symbol, position in positions.items()
        ]
        try:
            replies = await ask_each(self.client, commands)
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        trouble = next((self._unavailable(reply) for reply in replies if isinstance(reply, Exception)), None)
        found = {symbol: _entries(reply) for symbol, reply in zip(positions, replies, strict=True)}
        return {symbol: entries for symbol, entries in found.items() if entries}, trouble

    async def oldest(self, symbol: str) -> EntryId | None:
        """The oldest id that the stream holds; None where it is empty."""
        try:
            entries = await self.client.xrange(stream_key(symbol), count=1)
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        return EntryId.of(entries[0][0]) if entries else None

    async def newest_mirrored(self, symbol: str) -> EntryId | None:
        """Time and number in the last-value hash; None where there is none."""
        try:
            ts, seq = await self.client.hmget(last_key(symbol), ["ts", "seq"])
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        return EntryId(int(ts), int(seq)) if ts and seq else None

    async def ingests(self) -> list[str]:
        """The names of the ingests that tell of themselves."""
        prefix = ingest_key("")
        try:
            found = [key.decode() async for key in self.client.scan_iter(match=f"{prefix}*", count=1000)]
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        return sorted(name for key in found if ":" not in (name := key[len(prefix) :]))

    async def ingest_figures(self, name: str) -> FeedFigures | None:
        """What the newest run of the ingest `name` tells of itself; None where there is nothing."""
        try:
            return FeedFigures.of_json(await self.client.get(ingest_key(name)))
        except UNREACHABLE as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> SinkUnavailable:
        return SinkUnavailable(f"Redis at {mask_url(self._url)}: {str(error) or type(error).__name__}")


def _entries(reply: Any) -> list[RawEntry]:
    """The one stream of an XREAD's answer; empty where there is nothing new, or nothing is known."""
    if not reply or isinstance(reply, Exception):
        return []
    ((_, entries),) = reply
    return [(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in entries]
