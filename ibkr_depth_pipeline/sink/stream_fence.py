"""Fences the streams off against a predecessor, and reads how far each is numbered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import as_unavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask_each
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.keys import StreamId, last_key, stream_key, venue_key
from ibkr_depth_pipeline.sink.connection import redis_at
from ibkr_depth_pipeline.sink.wire import Part, open_wire

Positions = dict[str, StreamId]
_AHEAD_MS = 1000

_RAISE_STREAM = """
if redis.replicate_commands then redis.replicate_commands() end
local ts, seq, last = tonumber(ARGV[2]), tonumber(ARGV[3]), '0-0'
local exists = redis.call('EXISTS', KEYS[1]) == 1
if exists then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then
      last = info[at + 1]
      local last_ts, last_seq = string.match(last, '(%d+)-(%d+)')
      ts, seq = math.max(ts, tonumber(last_ts)), math.max(seq, tonumber(last_seq))
    end
  end
end
if ARGV[4] and ARGV[4] ~= last then return last end
if not exists then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'fence', '$', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'fence')
end
local id = string.format('%.0f-%.0f', math.max(ts, tonumber(ARGV[1])), seq)
redis.call('XSETID', KEYS[1], id)
return id
"""
"""ARGV: unix ms now, and the ts and seq of the last-value hash. Makes the stream refuse every snapshot that was taken
before now, also those still on their way, keeps its numbering, and returns its last id. An absent stream is made. With
ARGV[4], an id, nothing is changed unless that is the stream's last id."""


async def raise_positions(client: Client, symbols: Iterable[str], now_ms: int, min_replicas: int = 0) -> Positions:
    """The newest snapshot stored of each of `symbols`; from then on the streams refuse all taken before `now_ms`.

    So what a predecessor still has on its way is never stored, provided that its clock is not ahead of ours. Waits
    for so many replicas, and logs where too few have it. A key of another type costs only its own symbol. Raises
    SinkUnavailable.
    """
    wanted = list(symbols)
    with as_unavailable():
        hashes = await positions_of_hashes(client, wanted)
        return await raise_streams(client, stream_key, hashes, now_ms, min_replicas)


async def raise_streams(
    client: Client, key_of: Callable[[str], str], known: Positions, now_ms: int, min_replicas: int
) -> Positions:
    """Raises the streams at key_of(symbol) as raise_positions does; known: ids that they are not to fall below.

    Raises what is in UNREACHABLE.
    """
    wanted = list(known)
    raises: list[Command] = [
        ("EVAL", _RAISE_STREAM, 1, key_of(symbol), now_ms, known[symbol].ts, known[symbol].seq) for symbol in wanted
    ]
    replies = tolerant(wanted, await ask_each(client, raises))
    if min_replicas:
        await _replicate(client, wanted, raises, min_replicas)
    return {
        symbol: known[symbol] if reply is None else StreamId.of(reply)
        for symbol, reply in zip(wanted, replies, strict=True)
    }


async def raise_unchanged(
    client: Client, key_of: Callable[[str], str], seen: Mapping[str, StreamId], wanted: Positions
) -> Positions:
    """The last ids afterwards: those `wanted`, but for streams whose last id is not the one `seen` any more.

    Raises what is in UNREACHABLE.
    """
    commands: list[Command] = [
        ("EVAL", _RAISE_STREAM, 1, key_of(symbol), 0, target.ts, target.seq, str(seen[symbol]))
        for symbol, target in wanted.items()
    ]
    replies = tolerant(list(wanted), await ask_each(client, commands))
    return {
        symbol: seen[symbol] if reply is None else StreamId.of(reply)
        for symbol, reply in zip(wanted, replies, strict=True)
    }


async def _replicate(client: Client, symbols: Sequence[str], raises: Sequence[Any], replicas: int) -> None:
    """Sends them once more, with a WAIT behind. A run without enough replicas goes on: it may well write elsewhere."""
    wire = open_wire(client, replicas)
    try:
        parts = [Part(command[3], [hiredis.pack_command(command)], 1) for command in raises]
        answers = await wire.exchange(parts)
    finally:
        await wire.close()
    missing = {symbol: answer for symbol, answer in zip(symbols, answers, strict=True) if isinstance(answer, Exception)}
    if missing:
        get_log().warning("fence_not_replicated", symbols=list(missing), error=str(next(iter(missing.values()))))


async def newest_ids(client: Client, symbols: Iterable[str], key_of: Callable[[str], str] = stream_key) -> Positions:
    """The last id of each stream, zeros for an absent one. Raises what is in UNREACHABLE."""
    return await _of_streams(client, list(symbols), key_of)


async def streams_ahead(url: str, symbols: Sequence[str], now_ms: int) -> dict[str, int]:
    """symbol -> the time of its stream's last id, if that is more than a second later than now_ms.

    Raises SinkUnavailable.
    """
    async with redis_at(url) as client:
        found = await newest_ids(client, symbols)
    return {symbol: newest.ts for symbol, newest in found.items() if newest.ts > now_ms + _AHEAD_MS}


async def recorded_contracts(url: str, symbols: Sequence[str]) -> dict[tuple[int, str], str]:
    """(con_id, venue) -> symbol, of those of `symbols` whose venue hash says that they have depth.

    Raises SinkUnavailable.
    """
    async with redis_at(url) as client:
        fields = ("con_id", "exchange", "depth_supported")
        replies = await ask_each(client, [("HMGET", venue_key(symbol), *fields) for symbol in symbols])
    found: dict[tuple[int, str], str] = {}
    for symbol, reply in zip(symbols, replies, strict=True):
        if not isinstance(reply, Exception) and None not in reply and reply[2] == b"1":
            found[int(reply[0]), reply[1].decode()] = symbol
    return found


async def positions_of_hashes(client: Client, symbols: Sequence[str]) -> Positions:
    """The snapshot in each last-value hash; zeros for none. Raises what is in UNREACHABLE."""
    asked = await ask_each(client, [("HMGET", last_key(symbol), "ts", "seq") for symbol in symbols])
    replies = tolerant(symbols, asked)
    return {symbol: _of_fields(reply or ()) for symbol, reply in zip(symbols, replies, strict=True)}


async def newest_snapshots(client: Client, symbols: Sequence[str]) -> Positions:
    """The newest snapshot that is stored of each; zeros for none. Raises what is in UNREACHABLE."""
    hashes = await positions_of_hashes(client, symbols)
    replies = await ask_each(client, [("XINFO", "STREAM", stream_key(symbol)) for symbol in symbols])
    known = [None if "no such key" in str(reply) else reply for reply in replies]
    return {
        symbol: max(hashes[symbol], _last_entry(reply), key=lambda position: position.seq)
        for symbol, reply in zip(symbols, tolerant(symbols, known), strict=True)
    }


def _last_entry(information: Any) -> StreamId:
    """The id of the stream's last entry; raised ids and deleted entries do not count."""
    entry = _mapping(information).get(b"last-entry") if information is not None else None
    return StreamId() if entry is None else StreamId.of(entry[0])


async def _of_streams(client: Client, symbols: Sequence[str], key_of: Callable[[str], str]) -> Positions:
    replies = await ask_each(client, [("XINFO", "STREAM", key_of(symbol)) for symbol in symbols])
    known = [None if "no such key" in str(reply) else reply for reply in replies]
    return {
        symbol: StreamId() if reply is None else StreamId.of(_last_id(reply))
        for symbol, reply in zip(symbols, tolerant(symbols, known), strict=True)
    }


def _last_id(information: Any) -> bytes:
    return bytes(_mapping(information)[b"last-generated-id"])


def _mapping(information: Any) -> dict[bytes, Any]:
    """From a list of names and values, or, if the client speaks RESP3, from a mapping."""
    if isinstance(information, dict):
        return information
    return dict(zip(information[::2], information[1::2], strict=True))


def tolerant(symbols: Sequence[str], replies: Sequence[Any]) -> list[Any]:
    """`replies` with None for each key that is of another type; any other error is raised."""
    readable: list[Any] = []
    for symbol, reply in zip(symbols, replies, strict=True):
        if isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
            get_log().error("redis_read_failed", symbol=symbol, error=str(reply))
            readable.append(None)
        elif isinstance(reply, Exception):
            raise reply
        else:
            readable.append(reply)
    return readable


def _of_fields(values: Sequence[bytes | None]) -> StreamId:
    return StreamId(*(int(value) if value is not None and value.isdigit() else 0 for value in values))
