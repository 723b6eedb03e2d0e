"""Whether a Redis keeps what it is given: what it evicts, whether it has room, whether it survives a restart.

CONFIG GET is refused to many users and by managed servers, so what INFO shows is taken first; if a server shows
neither, nothing is logged about it. In a cluster each master is asked.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import ClusterClient
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.connection import redis_at

BYTES_PER_ENTRY = 600
"""Memory of a stream entry of ten rows a side, as `MEMORY USAGE key SAMPLES 0` gives it for a full stream, divided by
XLEN: docs/redis-schema.md, Memory."""

ENTRIES_PER_ROWS_ENTRY = 8
"""An entry of the stream of rows takes an eighth of one of snapshots: docs/data.md, Receive time."""

_KEEPS = "noeviction"


class Advice(NamedTuple):
    """A line for an operator. What is no warning is information."""

    subject: str
    text: str
    is_warning: bool = True


class Server(NamedTuple):
    """What a master shows of itself; None for what it does not."""

    policy: str | None
    max_bytes: int | None
    appends: bool | None
    saves: bool | None


async def redis_advice(url: str, entries: int) -> list[Advice]:
    """What to know of the Redis at `url` that is to hold so many stream entries. Raises SinkUnavailable."""
    async with redis_at(url) as client:
        servers = await _servers(client)
    advice = [each for name, server in servers.items() for each in advice_of(name, server, entries // len(servers))]
    return list(dict.fromkeys(advice))


def entries_of(settings: Settings, symbols: int) -> int:
    """How many entries of snapshots take as much memory as all streams of so many symbols."""
    entries = symbols * settings.ibkr_stream_maxlen
    return entries + entries // ENTRIES_PER_ROWS_ENTRY if settings.ibkr_stream_rows else entries


async def log_redis_advice(settings: Settings, symbols: int) -> None:
    """Log what there is to know of the Redis that is to hold so many symbols. Where it can't be asked, nothing is."""
    with contextlib.suppress(SinkUnavailable):
        for each in await redis_advice(settings.redis_target, entries_of(settings, symbols)):
            level = logging.WARNING if each.is_warning else logging.INFO
            get_log().log(level, each.subject.replace(" ", "_"), text=each.text)


async def _servers(client: Any) -> dict[str, Server]:
    if not isinstance(client, ClusterClient):
        return {"": await _server(client, {})}
    await client.find_nodes()
    nodes = [node for name in client.masters() if (node := client.get_node(node_name=name)) is not None]
    return {f"{node.name}: ": await _server(client, {"target_nodes": node}) for node in nodes}


async def _server(client: Any, where: Mapping[str, Any]) -> Server:
    try:
        told = await client.execute_command("INFO", **where)
    except ResponseError:
        told = {}
    told = told if isinstance(told, dict) else {}
    save = await _setting(client, "save", where)
    policy = told.get("maxmemory_policy") or await _setting(client, "maxmemory-policy", where)
    return Server(
        policy=policy or None,
        max_bytes=_whole(told.get("maxmemory")),
        appends=None if "aof_enabled" not in told else bool(told["aof_enabled"]),
        saves=None if save is None else bool(save),
    )


async def _setting(client: Any, name: str, where: Mapping[str, Any]) -> str | None:
    """None where the user may not ask, or there is no such setting."""
    try:
        reply = await client.execute_command("CONFIG GET", name, **where)
    except ResponseError:
        return None
    if isinstance(reply, dict):
        reply = [word for item in reply.items() for word in item]
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in reply]
    return words[1] if len(words) > 1 else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None


def advice_of(name: str, server: Server, entries: int) -> Iterator[Advice]:
    """What to know of one master, called `name` in each line, that is to hold so many entries. Pure."""
    if server.policy is not None and server.policy != _KEEPS:
        lost = "heartbeats, leases and claims" if server.policy.startswith("volatile") else "whole streams"
        text = f"maxmemory-policy is {server.policy}: when memory is short, {lost} are thrown away without a word; set "
        yield Advice("redis eviction", f"{name}{text}it to {_KEEPS}")
    wanted = entries * BYTES_PER_ENTRY
    if server.max_bytes and server.max_bytes < wanted:
        text = (
            f"maxmemory is {_mib(server.max_bytes)}, and {entries} entries (universe x IBKR_STREAM_MAXLEN) take about "
        )
        yield Advice("redis memory", f"{name}{text}{_mib(wanted)}")
    if server.appends is False and server.saves is False:
        text = "neither appendonly nor save is on: a restart of it begins empty; what is archived is kept"
        yield Advice("redis persistence", f"{name}{text}", is_warning=False)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
