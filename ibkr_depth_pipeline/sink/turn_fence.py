"""Fences the streams of turns off against a predecessor, and closes the intervals that it left open.

A run that was killed leaves its open intervals in their hashes. Its successor, which holds the lease, closes each at
the last stored row: what the run knew after that is known no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import ResponseError

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import as_unavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask_each
from ibkr_depth_pipeline.schema.intervals import (
    INTERVAL_FIELDS,
    EndReason,
    SubscriptionInterval,
    decode_interval,
    encode_interval,
)
from ibkr_depth_pipeline.schema.keys import StreamId, open_turn_hash, turns_stream, venue_key
from ibkr_depth_pipeline.schema.size_units import UNIT_FIELDS, SizeUnit, unit_of_fields
from ibkr_depth_pipeline.sink.stream_fence import newest_snapshots, raise_streams, tolerant
from ibkr_depth_pipeline.sink.turns import AFTER_SEQ, REMOVE_OPEN

_HASH_FIELDS = (*INTERVAL_FIELDS, AFTER_SEQ)


async def close_lost_turns(
    client: Client, symbols: Iterable[str], now_ms: int, min_replicas: int = 0
) -> dict[str, int]:
    """symbol -> the number of its newest subscription; none of a predecessor is left open.

    From then on the streams refuse what ended before `now_ms`. Call it once the streams of snapshots are raised. Raises
    SinkUnavailable.
    """
    with as_unavailable():
        unknown = dict.fromkeys(symbols, StreamId())
        newest = await raise_streams(client, turns_stream, unknown, now_ms, min_replicas)
        lost = await _open_turns(client, list(newest))
        left = {symbol: found for symbol, found in lost.items() if found[0].subscription > newest[symbol].seq}
        stored = await newest_snapshots(client, list(left))
        ended = [closed(interval, after_seq, stored[symbol]) for symbol, (interval, after_seq) in left.items()]
        await _store(client, ended, newest, now_ms)
        await _remove(client, lost)
    numbers = {symbol: newest[symbol].seq for symbol in newest}
    return numbers | {symbol: max(numbers[symbol], interval.subscription) for symbol, (interval, _) in lost.items()}


def closed(interval: SubscriptionInterval, after_seq: int, stored: StreamId) -> SubscriptionInterval:
    """The interval of a lost run, ended at the newest stored snapshot. Its own are those past after_seq. Pure."""
    if stored.seq <= after_seq:
        nothing: dict[str, Any] = dict.fromkeys(("first_row", "complete", "until", "first_seq", "last_seq"))
        return replace(interval, **nothing, rows=0, end=EndReason.PROCESS_LOST)
    counted = after_seq if interval.last_seq is None else interval.last_seq
    first_row = stored.ts if interval.first_row is None else min(interval.first_row, stored.ts)
    return replace(
        interval,
        first_row=first_row,
        complete=interval.complete if interval.complete is not None and interval.complete <= stored.ts else None,
        until=stored.ts,
        first_seq=after_seq + 1,
        last_seq=stored.seq,
        rows=max(0, interval.rows + stored.seq - counted),
        end=EndReason.PROCESS_LOST,
    )


async def _open_turns(client: Client, symbols: Sequence[str]) -> dict[str, tuple[SubscriptionInterval, int]]:
    replies = await ask_each(client, [("HMGET", open_turn_hash(symbol), *_HASH_FIELDS) for symbol in symbols])
    found: dict[str, tuple[SubscriptionInterval, int]] = {}
    for symbol, reply in zip(symbols, tolerant(symbols, replies), strict=True):
        fields = {
            name.encode(): value for name, value in zip(_HASH_FIELDS, reply or (), strict=False) if value is not None
        }
        if fields:
            try:
                found[symbol] = decode_interval(symbol, fields), _number(fields)
            except SchemaMismatch as error:
                get_log().error("redis_read_failed", symbol=symbol, error=str(error))
    return found


async def stored_sizes(client: Client, symbols: Iterable[str]) -> dict[str, SizeUnit]:
    """What the venue hashes know of the unit of each symbol's sizes. Raises SinkUnavailable."""
    wanted = list(symbols)
    with as_unavailable():
        asked = await ask_each(client, [("HMGET", venue_key(symbol), *UNIT_FIELDS) for symbol in wanted])
        replies = tolerant(wanted, asked)
    found = {}
    for symbol, reply in zip(wanted, replies, strict=True):
        told = zip(UNIT_FIELDS, reply or (), strict=False)
        texts = {name: text.decode(errors="replace") for name, text in told if text is not None}
        with contextlib.suppress(ValueError):
            found[symbol] = unit_of_fields(texts)
    return found


def _number(fields: Mapping[bytes, bytes]) -> int:
    text = fields.get(AFTER_SEQ.encode(), b"")
    return int(text) if text.isdigit() else 0


async def _store(
    client: Client, ended: Sequence[SubscriptionInterval], newest: Mapping[str, StreamId], now_ms: int
) -> None:
    """Stores each with an id that no other run can have used for it. One that is refused was stored before."""
    commands: list[tuple[Any, ...]] = []
    for interval in ended:
        stream_id = StreamId(max(now_ms, newest[interval.symbol].ts), interval.subscription)
        words = [word for field in encode_interval(interval).items() for word in field]
        commands.append(("XADD", turns_stream(interval.symbol), str(stream_id), *words))
    for interval, reply in zip(ended, await ask_each(client, commands), strict=True):
        if isinstance(reply, ResponseError):
            get_log().error("turn_not_closed", symbol=interval.symbol, error=str(reply))
        elif isinstance(reply, Exception):
            raise reply
        else:
            get_log().warning("turn_of_lost_run_closed", symbol=interval.symbol, subscription=interval.subscription)


async def _remove(client: Client, lost: Mapping[str, tuple[SubscriptionInterval, int]]) -> None:
    commands = [
        ("EVAL", REMOVE_OPEN, 1, open_turn_hash(symbol), interval.subscription)
        for symbol, (interval, _) in lost.items()
    ]
    tolerant(list(lost), await ask_each(client, commands))
