"""A flush counts only once so many replicas have it: what a master that dies had acknowledged is not lost with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import hiredis
from redis.exceptions import RedisError, ResponseError

from ibkr_depth_pipeline.redis_link.awaited import is_deposed
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
    said again: WAIT then waits for all that the server had by then, not only for what it had not had before, also on
    another connection. A server that lacks replicas or refuses as one that is no master is left: the next exchange
    looks for the master.

    `lacks_replicas`: whether the newest exchange found too few, also where everything was refused.
    """

    def __init__(self, wire: AnyWire, replicas: int) -> None:
        self.lacks_replicas = False
        self._wire = wire
        self._replicas = replicas
        wait: Any = ("WAIT", replicas, WAIT_MS)
        self._wait = Part("", [hiredis.pack_command(wait)], 1)

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """See AnyWire."""
        if not self._replicas:
            answers = await self._wire.exchange(parts)
            await self._leave_deposed(answers)
            return answers
        *answers, waited = await self._wire.exchange([*parts, self._wait])
        reached = waited if isinstance(waited, Exception) else waited[0]
        self.lacks_replicas = isinstance(reached, int) and reached < self._replicas
        await self._leave_deposed(answers)
        if isinstance(reached, int) and not self.lacks_replicas:
            return answers
        why = reached if isinstance(reached, Exception) else f"{reached} of {self._replicas} replicas have it"
        return [answer if _is_refused(answer) else NotReplicated(f"not replicated: {why}") for answer in answers]

    async def _leave_deposed(self, answers: list[Answer]) -> None:
        """Where another server may be master by now."""
        # of a block the second reply, to its first XADD, tells; the rest is left, as this is done for each flush
        replies = (reply for answer in answers if not isinstance(answer, Exception) for reply in answer[:2])
        if self.lacks_replicas or any(isinstance(reply, ResponseError) and is_deposed(reply) for reply in replies):
            await self._wire.close()

    async def close(self) -> None:
        """See AnyWire."""
        await self._wire.close()


def _is_refused(answer: Answer) -> bool:
    """Whether there is nothing that a replica could have. Of a block that is carried out the last reply is a list, also
    where all of it is held already: that must be waited for."""
    return isinstance(answer, Exception) or isinstance(answer[-1], Exception)
