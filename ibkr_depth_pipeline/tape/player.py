"""Plays a tape to any API client: a question is answered with what the tape has for the same one, under the client's id
and as long after it as on the tape. A client that asks for something that the tape lacks gets error 200.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from typing import cast

from ibkr_depth_pipeline.tape.messages import (
    PREAMBLE,
    MessageSplitter,
    NotTheProtocol,
    Way,
    fields_of,
    framed,
    message_of,
    type_of,
)
from ibkr_depth_pipeline.tape.sanitizer import CANCEL_DEPTH, ERROR, REQ_DEPTH, START_API, TIME
from ibkr_depth_pipeline.tape.script import Answer, Question, Script, alike, question_of

_NOTHING: Mapping[int, tuple[int, int | None]] = {
    5: (53, None),  # open orders
    6: (54, 3),  # account updates
    7: (55, 2),  # executions
    16: (53, None),  # all open orders
    61: (62, None),  # positions
    62: (64, 2),  # account summary
    76: (74, 2),  # account updates of several accounts
    99: (102, None),  # completed orders
}
"""A question about the account -> the message that ends its answer, and which field of the question it repeats. A tape
has none of that; clients that ask at their start get the answer of an account that has nothing."""

_NANOSECONDS = 1_000_000_000
_UNKNOWN = "The tape that is played has no such request"


class TapePlayer:
    """Serves a tape on `host` and `port`: the first client gets its first connection, and so on; then they begin again.

    speed: 1 is the tape's own time, 10 ten times as fast, 0 without waiting. With `step`, nothing but the greeting
    leaves before `advance` is called; each call sends what came with the tape's next read.
    """

    def __init__(
        self, scripts: Sequence[Script], host: str, port: int, *, speed: float = 1.0, step: bool = False
    ) -> None:
        self.host = host
        self.port = port
        self._scripts = scripts
        self._speed = speed
        self._step = step
        self._served = 0
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> TapePlayer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self.host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()

    def advance(self) -> bool:
        """Sends what is due next, on any connection. False if nothing waits."""
        waiting = [each for each in self._connections if each.timeline.next_at() is not None]
        return bool(waiting) and min(waiting, key=lambda each: each.timeline.next_at() or 0.0).timeline.send_next()

    def _connection(self) -> _Connection:
        script = self._scripts[self._served % len(self._scripts)]
        self._served += 1
        return _Connection(script, _Timeline(self._speed, self._step), self._connections)


class _Timeline:
    """What is to be sent later, in order. Times are loop times."""

    def __init__(self, speed: float, step: bool) -> None:
        self._speed = speed
        self._step = step
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, after_ns: int, send: Callable[[], None]) -> None:
        """Calls `send` so many ns of the tape's time from now."""
        now = asyncio.get_running_loop().time()
        delay = after_ns / _NANOSECONDS
        at = now + (delay if self._step or not self._speed else delay / self._speed)
        heappush(self._waiting, (at, next(self._order), send))
        self._arm()

    @property
    def is_hasty(self) -> bool:
        """Whether nothing is waited for."""
        return not self._speed and not self._step

    def add_behind(self, send: Callable[[], None]) -> bool:
        """Calls `send` after all that waits. False if nothing does."""
        if self._waiting:
            heappush(self._waiting, (max(self._waiting)[0], next(self._order), send))
            self._arm()
        return bool(self._waiting)

    def next_at(self) -> float | None:
        """When the next one is due; None if nothing waits."""
        return self._waiting[0][0] if self._waiting else None

    def send_next(self) -> bool:
        """Sends the next one. Returns whether there was one."""
        if not self._waiting:
            return False
        heappop(self._waiting)[2]()
        return True

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting and not self._step:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._waiting[0][0] if self._speed else loop.time(), self._run)

    def _run(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._waiting and (not self._speed or self._waiting[0][0] <= now):
            self.send_next()
            if not self._speed:
                break  # one at a time, so that requests are read in between
        self._arm()

    def clear(self) -> None:
        """Forgets what waits."""
        self._waiting.clear()
        self._arm()


class _Connection(asyncio.Protocol):
    """One client, and the script that it gets."""

    def __init__(self, script: Script, timeline: _Timeline, connections: set[_Connection]) -> None:
        self.timeline = timeline
        self._script = script
        self._connections = connections
        self._splitter = MessageSplitter(Way.CLIENT)
        self._received = 0
        self._live: set[str] = set()  # depth requests
        self._next: dict[Question, int] = defaultdict(int)
        self._ends = False  # as soon as all is asked for
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        self.timeline.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        with suppress(NotTheProtocol):
            for message in self._splitter.split(data):
                self._take(message)
            return
        self.close()

    def _take(self, message: bytes) -> None:
        self._received += 1
        if message == PREAMBLE:
            return
        if self._received == 2:  # the versions that the client offers
            self._send([self._script.greeting])
            return
        fields = fields_of(message, self._script.version)
        kind = type_of(message, self._script.version)
        if kind == START_API:
            self._start()
        elif kind == CANCEL_DEPTH and len(fields) > 2:
            self._live.discard(fields[2])
        elif kind in _NOTHING:
            end, repeated = _NOTHING[kind]
            self._send([[str(end), "1", *([fields[repeated]] if repeated is not None else [])]])
        else:
            question, request = question_of(fields)
            if question is not None:
                self._answer(question, request)

    def _start(self) -> None:
        for after, group in _grouped((after, fields) for after, fields in self._script.unasked):
            self.timeline.add(after, lambda group=group: self._send(group))  # type: ignore[misc]
        if self._script.lasts is not None:
            self.timeline.add(self._script.lasts, self._end)

    def _end(self) -> None:
        """The gateway ends the connection, behind all that it sent before, which a slower client asked for later.

        Without waiting, that is when the client has asked for all subscriptions of the tape.
        """
        self._ends = self.timeline.is_hasty and not self._all_asked()
        if not self._ends and not self.timeline.add_behind(self._end):
            self.close()

    def _all_asked(self) -> bool:
        depth = {question: answers for question, answers in self._script.answers.items() if _is_depth(question)}
        return all(self._next[question] >= len(answers) for question, answers in depth.items())

    def _answer(self, question: Question, request: str | None) -> None:
        known = alike(question, self._script.answers)
        if known is None:
            if request is not None:
                self._send([[str(ERROR), "2", request, "200", _UNKNOWN, ""]])
            return
        is_depth = _is_depth(question)
        if is_depth and request is not None:
            self._live.add(request)
        answers, number = self._script.answers[known], self._next[known]
        self._next[known] += 1
        if is_depth and number >= len(answers):
            return  # the tape has no more rows of it: silence, none is sent twice
        answer = answers[min(number, len(answers) - 1)]
        said = ((after, self._spelled(fields, place, request, answer)) for after, fields, place in answer.messages)
        for after, group in _grouped(said):
            self.timeline.add(after, lambda group=group: self._send_for(request if is_depth else None, group))  # type: ignore[misc]
        if self._ends:
            self._end()

    @staticmethod
    def _spelled(fields: list[str], place: int | None, request: str | None, answer: Answer) -> list[str]:
        """The message as this client is to get it: under its own id; a time keeps its distance from the clock."""
        if place is not None and request is not None:
            return [*fields[:place], request, *fields[place + 1 :]]
        if fields[0] == str(TIME) and len(fields) > 2 and fields[2].isdigit():
            return [*fields[:2], str(int(fields[2]) + (time.time_ns() - answer.asked_at) // _NANOSECONDS), *fields[3:]]
        return fields

    def _send_for(self, request: str | None, messages: list[list[str]]) -> None:
        """Rows of a request that the client has cancelled are not sent."""
        if request is None or request in self._live:
            self._send(messages)

    def _send(self, messages: list[list[str]]) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(framed(message_of(fields)) for fields in messages))


def _is_depth(question: Question) -> bool:
    return question[0] == str(REQ_DEPTH)


def _grouped(messages: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[list[str]]]]:
    """Messages that one read brought, together."""
    for after, group in itertools.groupby(messages, key=lambda each: each[0]):
        yield after, [fields for _, fields in group]
