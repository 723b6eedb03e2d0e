"""Many commands of one key each, at once: in one pipeline, or in one to each node of a cluster that owns a key.

Nothing is repeated but a command that a node of a cluster refused because another one has its key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode

from ibkr_depth_pipeline.redis_link.aio import Client, ClusterClient
from ibkr_depth_pipeline.redis_link.failures import LOST, UNREACHABLE, refused
from ibkr_depth_pipeline.redis_link.internals import raw_pipeline, timeout
from ibkr_depth_pipeline.redis_link.routing import Command, Share, key_of

_SCANNED_AT_ONCE = 1000


async def ask(client: Client, commands: Sequence[Command], within: float | None = None) -> list[Any]:
    """The reply to each command, as RESP2 has it. Raises what is in UNREACHABLE, also if only one was refused.

    `within` so many seconds a server must have answered, None: within the time-out of its connections.
    """
    replies = await ask_each(client, commands, within)
    if error := refused(replies):
        raise error
    return replies


async def ask_each(client: Client, commands: Sequence[Command], within: float | None = None) -> list[Any]:
    """The reply to each command, as RESP2 has it, or the exception that stands for it.

    Raises what is in UNREACHABLE if nothing can be reached. Parts of a cluster may be: the exceptions say which. See
    `ask`.
    """
    if not commands:
        return []
    if isinstance(client, ClusterClient):
        cluster = client

        async def send(share: Share[ClusterNode]) -> list[Any]:
            return await _ask_node(cluster, share, commands, within)

        return await client.route([key_of(command) for command in commands], send)
    async with timeout(within):
        return list(await raw_pipeline(client, commands).execute(raise_on_error=False))


async def ask_at_once(client: Client, commands: Sequence[Command]) -> list[Any]:
    """As `ask`, in one MULTI: `commands` are of one key, and all of them are carried out, or none."""
    if isinstance(client, ClusterClient):
        await client.find_nodes()
        block = [("MULTI",), *commands, ("EXEC",)]
        replies = await client.exchange(client.owner(key_of(commands[0])), block)
        if error := refused(replies):
            raise error
        return list(replies[-1])
    return list(await raw_pipeline(client, commands, transaction=True).execute())


async def _ask_node(
    client: ClusterClient, share: Share[ClusterNode], commands: Sequence[Command], within: float | None
) -> list[Any]:
    wanted: list[Command] = [commands[place] for place in share.places]
    if share.asking:
        wanted = [word for command in wanted for word in (("ASKING",), command)]
    try:
        client.check(share.node)
        async with timeout(within):
            replies = await client.exchange(share.node, wanted)
    except UNREACHABLE as error:
        client.has_failed(share.node)
        return [error] * len(share.places)
    if any(isinstance(reply, LOST) for reply in replies):
        client.has_failed(share.node)
    return replies[1::2] if share.asking else replies


async def scan_each(client: Client, pattern: str, kind: str | None = None) -> tuple[set[bytes], list[Exception]]:
    """The keys that match, of type `kind` if one is named; and why some masters of a cluster did not list theirs.

    Raises what is in UNREACHABLE if none did.
    """
    if isinstance(client, redis.Redis):
        return {key async for key in client.scan_iter(match=pattern, count=_SCANNED_AT_ONCE, _type=kind)}, []
    await client.find_nodes()
    nodes = [node for name in client.masters() if (node := client.get_node(node_name=name)) is not None]
    answers = await asyncio.gather(*(_scan_node(client, node, pattern, kind) for node in nodes))
    troubles = [answer for answer in answers if isinstance(answer, Exception)]
    if troubles and len(troubles) == len(answers):
        raise troubles[0]
    return {key for answer in answers if not isinstance(answer, Exception) for key in answer}, troubles


async def _scan_node(
    client: ClusterClient, node: ClusterNode, pattern: str, kind: str | None
) -> set[bytes] | Exception:
    wanted = ("MATCH", pattern, "COUNT", _SCANNED_AT_ONCE, *(("TYPE", kind) if kind else ()))
    found: set[bytes] = set()
    cursor = b"0"
    try:
        client.check(node)
        while True:
            [reply] = await client.exchange(node, [("SCAN", cursor, *wanted)])
            if isinstance(reply, Exception):
                raise reply
            cursor, keys = reply
            found.update(keys)
            if cursor == b"0":
                return found
    except UNREACHABLE as error:
        if isinstance(error, LOST):
            client.has_failed(node)
        return error
