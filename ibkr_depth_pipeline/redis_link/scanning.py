"""Every key that matches, of one server, or of those masters of a cluster that answer."""

from __future__ import annotations

import asyncio

from redis.asyncio.cluster import ClusterNode

from ibkr_depth_pipeline.redis_link.awaited import Client
from ibkr_depth_pipeline.redis_link.cluster import LOST, UNREACHABLE, ClusterClient

_AT_ONCE = 1000


async def scan_each(client: Client, pattern: str, kind: str | None = None) -> tuple[set[bytes], list[Exception]]:
    """The keys that match, of type `kind` where one is named; and why some masters of a cluster did not say theirs.

    Raises what is in UNREACHABLE where none did.
    """
    if not isinstance(client, ClusterClient):
        return {key async for key in client.scan_iter(match=pattern, count=_AT_ONCE, _type=kind)}, []
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
    wanted = ("MATCH", pattern, "COUNT", _AT_ONCE, *(("TYPE", kind) if kind else ()))
    found: set[bytes] = set()
    cursor = b"0"
    try:
        client.check(node)
        async with client.borrowed(node) as connection:
            while True:
                await connection.send_command("SCAN", cursor, *wanted)
                cursor, keys = await connection.read_response()
                found.update(keys)
                if cursor == b"0":
                    return found
    except UNREACHABLE as error:
        if isinstance(error, LOST):
            client.has_failed(node)
        return error
