"""Symbols in focus: any program may ask, by a key with a TTL, that a symbol keeps a slot for a while.

The key is read by the ingest that has the symbol in its universe. Its value says who asks, for log and status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.redis_link.pipeline import ask, ask_each
from ibkr_depth_pipeline.schema.keys import focus_key
from ibkr_depth_pipeline.settings import mask_url
from ibkr_depth_pipeline.sink.connection import open_redis

_LONGEST_NAME = 64


class FocusRequest(NamedTuple):
    """Who asks for the symbol, and for how many seconds from now on."""

    symbol: str
    by: str
    secs: float


async def read_focus(client: Client, symbols: Sequence[str]) -> list[FocusRequest]:
    """The requests that stand, the longest last. A key of another type, or without a TTL, asks for nothing.

    Raises what is in UNREACHABLE.
    """
    values = await ask_each(client, [("GET", focus_key(symbol)) for symbol in symbols])
    asked = [(symbol, value) for symbol, value in zip(symbols, values, strict=True) if isinstance(value, bytes)]
    if not asked:
        return []
    left = await ask_each(client, [("PTTL", focus_key(symbol)) for symbol, _ in asked])
    found = [
        FocusRequest(symbol, value.decode(errors="replace")[:_LONGEST_NAME], ttl / 1000)
        for (symbol, value), ttl in zip(asked, left, strict=True)
        if isinstance(ttl, int) and ttl > 0
    ]
    return sorted(found, key=lambda request: request.secs)


async def request_focus(url: str, symbol: str, by: str, secs: float) -> None:
    """Ask for the symbol for so long from now on, or, with 0, no longer. Raises SinkUnavailable."""
    client = open_redis(url)
    key = focus_key(symbol)
    try:
        await ask(client, [("SET", key, by, "PX", int(secs * 1000)) if secs else ("DEL", key)])
    except UNREACHABLE as error:
        raise SinkUnavailable(f"Redis at {mask_url(url)}: {str(error) or type(error).__name__}") from None
    finally:
        await client.aclose()
