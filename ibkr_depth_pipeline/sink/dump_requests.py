"""A request to a running ingest to write out the last minutes of its wire, and its answer: keys that expire.

Any program may ask (`ask_for_dump`); the ingest of that name checks every second, and answers twice: that it has begun,
and what came of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from socket import gethostname
from typing import Any

import orjson

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.redis_link.pipeline import ask
from ibkr_depth_pipeline.schema.keys import dump_answer_key, dump_request_key
from ibkr_depth_pipeline.sink.connection import redis_at
from ibkr_depth_pipeline.tasks import end

CYCLE_SECS = 1.0
REQUEST_TTL_SECS, ANSWER_TTL_SECS = 30, 300
ANSWER_SECS, DONE_SECS = 10.0, 280.0
"""How long an ingest may take to begin, and to end."""

_POLL_SECS = 0.1
_LONGEST_TEXT = 64


class DumpRefused(DepthPipelineError):
    """The ingest wrote no tape, or did not answer; the text says which ingest, and why."""


@dataclass(frozen=True, slots=True)
class DumpAnswer:
    """What came of a request: `path` on `host`, or why there is none. Neither: it has begun."""

    id: str
    host: str
    path: str = ""
    error: str = ""


class DumpRequests:
    """`run` it beside the recording of the ingest called `name`. dump(by) returns a tape's path and why there is none.

    While Redis is away nobody can ask.
    """

    def __init__(self, client: Client, name: str, dump: Callable[[str], Awaitable[tuple[str, str]]]) -> None:
        self._client = client
        self._request = dump_request_key(name)
        self._name = name
        self._dump = dump
        self._host = gethostname()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Carry requests out until cancelled."""
        try:
            while True:
                await asyncio.sleep(CYCLE_SECS)
                with suppress(*UNREACHABLE):
                    (value,) = await ask(self._client, [("GET", self._request)])
                    if value is not None:
                        await ask(self._client, [("DEL", self._request)])
                        self._start(value)
        finally:
            await end(self._tasks)

    def _start(self, value: Any) -> None:
        if asked := _request_in(value):
            task = asyncio.ensure_future(self._carry_out(*asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, number: str, by: str) -> None:
        get_log().info("dump_asked", by=by)
        await self._store(DumpAnswer(number, self._host))
        path, error = await self._dump(by)
        await self._store(DumpAnswer(number, self._host, path, error))

    async def _store(self, answer: DumpAnswer) -> None:
        key = dump_answer_key(self._name, answer.id)
        with suppress(*UNREACHABLE):
            await ask(self._client, [("SET", key, orjson.dumps(asdict(answer)), "EX", ANSWER_TTL_SECS)])


def _request_in(value: Any) -> tuple[str, str] | None:
    """The id of the request and who asks; None for what is none."""
    try:
        found = orjson.loads(value)
        return str(found["id"])[:_LONGEST_TEXT], str(found.get("by", ""))[:_LONGEST_TEXT]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


async def ask_for_dump(url: str, name: str, by: str) -> DumpAnswer:
    """Has the ingest called `name` write a tape. Raises DumpRefused and SinkUnavailable."""
    number = secrets.token_hex(8)
    async with redis_at(url) as client:
        if not await _asked(client, name, orjson.dumps({"id": number, "by": by})):
            raise DumpRefused(f"the ingest {name} does not take requests: an earlier one still waits")
        if await _answer(client, name, number, ANSWER_SECS) is None:
            await ask(client, [("DEL", dump_request_key(name))])
            raise DumpRefused(f"the ingest {name} does not answer: is it of a version without a flight recorder?")
        answer = await _answer(client, name, number, DONE_SECS, done=True)
    if answer is None:
        raise DumpRefused(f"the ingest {name} has begun to write the tape, and has not ended: see its log")
    if answer.error:
        raise DumpRefused(f"the ingest {name} on {answer.host} wrote no tape: {answer.error}")
    return answer


async def _asked(client: Client, name: str, request: bytes) -> bool:
    """Sets the request once no other one waits. False if that does not come."""
    until = monotonic() + ANSWER_SECS
    while monotonic() < until:
        (done,) = await ask(client, [("SET", dump_request_key(name), request, "EX", REQUEST_TTL_SECS, "NX")])
        if done is not None:
            return True
        await asyncio.sleep(_POLL_SECS)
    return False


async def _answer(client: Client, name: str, number: str, secs: float, *, done: bool = False) -> DumpAnswer | None:
    """The answer to that request; None if none comes in time."""
    until = monotonic() + secs
    while monotonic() < until:
        (value,) = await ask(client, [("GET", dump_answer_key(name, number))])
        answer = None if value is None else DumpAnswer(**orjson.loads(value))
        if answer is not None and (answer.path or answer.error or not done):
            return answer
        await asyncio.sleep(_POLL_SECS)
    return None
