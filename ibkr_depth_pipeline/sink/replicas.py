"""A flush counts only once so many replicas have it: what a master that dies had acknowledged is not lost with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import hiredis
from redis.exceptions import ReadOnlyError, RedisError

from ibkr_depth_pipeline.sink.connection import WAIT_MS
from ibkr_depth_pipeline.sink.wire import Answer, Part


class NotReplicated(RedisError):
    """Too few replicas have what was sent, so that nobody knows whether it will stay."""


class AnyWire(Protocol):
    """See Wire."""

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """An answer for each part. Raises what is in UNREACHABLE where nothing is known of any."""

    async def close(self) -> None:
        """Close the connection; the next exchange makes another one."""


class ReplicatedWire:
    """As the wire that it sends through, but that `replicas` of the server must have everything; 0 asks for none.

    Where too few have it within WAIT_MS the answer to each part that was not refused is NotReplicated. The part may be
    said again: WAIT then waits for all that the server had by then, not only for what it had not had before. A server
    that is a replica itself by now is left: the next exchange looks for the master.
    """

    def __init__(self, wire: AnyWire, replicas: int) -> None:
        self._wire = wire
        self._replicas = replicas
        wait: Any = ("WAIT", replicas, WAIT_MS)
        self._wait = Part("", [hiredis.pack_command(wait)], 1)

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """See AnyWire."""
        if not self._replicas:
            return await self._leave_replica(await self._wire.exchange(parts))
        *answers, waited = await self._wire.exchange([*parts, self._wait])
        await self._leave_replica(answers)
        reached = waited if isinstance(waited, Exception) else waited[0]
        if isinstance(reached, int) and reached >= self._replicas:
            return answers
        why = reached if isinstance(reached, Exception) else f"{reached} of {self._replicas} replicas have it"
        return [answer if _is_refused(answer) else NotReplicated(f"not replicated: {why}") for answer in answers]

    async def _leave_replica(self, answers: list[Answer]) -> list[Answer]:
        # of a block the second reply, to its first XADD, tells; the rest is left, as this is done for each flush
        replies = (reply for answer in answers if not isinstance(answer, Exception) for reply in answer[:2])
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await self._wire.close()
        return answers

    async def close(self) -> None:
        """See AnyWire."""
        await self._wire.close()


def _is_refused(answer: Answer) -> bool:
    """Whether there is nothing that a replica could have. Of a block that is carried out the last reply is a list, also
    where all of it is held already: that must be waited for."""
    return isinstance(answer, Exception) or isinstance(answer[-1], Exception)
