"""Many commands of one key each, at once: in one pipeline, or in one to each node of a cluster that owns a key.

Nothing is said twice, but what a node of a cluster refused because another has the key by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.exceptions import AskError, MovedError, ResponseError

from ibkr_depth_pipeline.redis_link.awaited import Client, timeout
from ibkr_depth_pipeline.redis_link.cluster import LOST, UNREACHABLE, ClusterClient
from ibkr_depth_pipeline.redis_link.commands import Command, key_of


async def ask(client: Client, commands: Sequence[Command], within: float | None = None) -> list[Any]:
    """The reply to each command, as RESP2 has it. Raises what is in UNREACHABLE, also where only one was refused.

    `within` so many seconds a server must have answered, None: within what its connections have been given.
    """
    replies = await ask_each(client, commands, within)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def ask_each(client: Client, commands: Sequence[Command], within: float | None = None) -> list[Any]:
    """The reply to each command, as RESP2 has it, or the exception that stands for it.

    Raises what is in UNREACHABLE where nothing can be reached. Parts of a cluster may be: the exceptions say which. See
    `ask`.
    """
    if not commands:
        return []
    if isinstance(client, ClusterClient):
        return await _ask_cluster(client, commands, within)
    assert isinstance(client, redis.Redis)
    pipe: Any = Pipeline(client.connection_pool, {}, transaction=False, shard_hint=None)
    for command in commands:
        pipe.execute_command(*command)
    async with timeout(within):
        return list(await pipe.execute(raise_on_error=False))


async def ask_at_once(client: Client, commands: Sequence[Command]) -> list[Any]:
    """As `ask`, in one MULTI: `commands` are of one key, and all of them are carried out, or none."""
    if isinstance(client, ClusterClient):
        await client.find_nodes()
        async with client.borrowed(client.owner(key_of(commands[0]))) as connection:
            await connection.send_packed_command(connection.pack_commands([("MULTI",), *commands, ("EXEC",)]))
            queued = [await _reply(connection) for _ in range(len(commands) + 1)]
            outcome = await _reply(connection)
        refused = next((reply for reply in [*queued, outcome] if isinstance(reply, Exception)), None)
        if refused is not None:
            raise refused
        return list(outcome)
    assert isinstance(client, redis.Redis)
    pipe: Any = Pipeline(client.connection_pool, {}, transaction=True, shard_hint=None)
    for command in commands:
        pipe.execute_command(*command)
    return list(await pipe.execute())


async def _ask_cluster(client: ClusterClient, commands: Sequence[Command], within: float | None) -> list[Any]:
    await client.find_nodes()
    replies = await _ask_owners(client, dict(enumerate(commands)), within)
    moved = {place: commands[place] for place, reply in replies.items() if isinstance(reply, MovedError)}
    if moved:  # nothing of it was carried out, so it may be said again
        await client.refresh()
        replies.update(await _ask_owners(client, moved, within))
    for place, reply in replies.items():
        if isinstance(reply, AskError):  # or MOVED once more, which names the owner as well
            replies[place] = await _ask_importer(client, commands[place], reply, within)
    return [replies[place] for place in range(len(commands))]


async def _ask_owners(client: ClusterClient, commands: dict[int, Command], within: float | None) -> dict[int, Any]:
    shares, nobodys = client.shares({place: key_of(command) for place, command in commands.items()})
    answers = await asyncio.gather(
        *(_ask_node(client, node, [commands[place] for place in share], within) for node, share in shares)
    )
    replies: dict[int, Any] = dict(nobodys)
    for (_, share), answer in zip(shares, answers, strict=True):
        replies.update(zip(share, answer, strict=True))
    return replies


async def _ask_importer(client: ClusterClient, command: Command, why: AskError, within: float | None) -> Any:
    """The slot is on its way to another node, which has the key already, or will: only this once it is to be asked."""
    node = client.get_node(why.host, why.port)
    return why if node is None else (await _ask_node(client, node, [("ASKING",), command], within))[-1]


async def _ask_node(
    client: ClusterClient, node: ClusterNode, commands: Sequence[Command], within: float | None
) -> list[Any]:
    try:
        client.check(node)
        async with timeout(within), client.borrowed(node) as connection:
            await connection.send_packed_command(connection.pack_commands(commands))
            replies = [await _reply(connection) for _ in commands]
    except UNREACHABLE as error:
        client.has_failed(node)
        return [error] * len(commands)
    if any(isinstance(reply, LOST) for reply in replies):
        client.has_failed(node)
    return replies


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refused:
        return refused
