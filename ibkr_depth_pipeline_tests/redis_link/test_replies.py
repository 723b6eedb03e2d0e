"""The replies to what a raw connection sent, by a real Redis that answers, refuses, hangs, and cuts the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
import redis
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, ResponseError

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.redis_link.aio import open_client
from ibkr_depth_pipeline.redis_link.internals import RawConnection
from ibkr_depth_pipeline.redis_link.replies import Replies, ReplyReceiver


class Talk:
    """A raw connection and what was delivered on it."""

    def __init__(self, connection: RawConnection, receiver: ReplyReceiver) -> None:
        self.connection = connection
        self.receiver = receiver
        self.delivered: asyncio.Queue[Replies] = asyncio.Queue()

    def send(self, *commands: tuple[Any, ...]) -> None:
        self.receiver.expect(len(commands), self.delivered.put_nowait)
        self.connection.write([hiredis.pack_command(command) for command in commands])

    async def outcome(self) -> Replies:
        return await asyncio.wait_for(self.delivered.get(), 10.0)


@asynccontextmanager
async def talking(url: str, within: float = 5.0) -> AsyncIterator[Talk]:
    client = open_client(url, connect_timeout=2.0, answer_timeout=5.0)
    assert isinstance(client, aioredis.Redis)
    talk = Talk(RawConnection.like_those_of(client), ReplyReceiver(within))
    try:
        await talk.connection.open(talk.receiver)
        yield talk
    finally:
        talk.receiver.forget()
        talk.connection.close()
        await client.aclose()


async def test_each_batch_gets_its_own_replies_with_refusals_among_them(shared_redis_url: str) -> None:
    async with talking(shared_redis_url) as talk:
        talk.send(("PING",), ("NONE",))
        first = await talk.outcome()
        talk.send(("ECHO", "x" * 200_000))  # more than one read
        second = await talk.outcome()
    assert isinstance(first, list)
    assert first[0] == b"PONG"
    assert isinstance(first[1], ResponseError)
    assert second == [b"x" * 200_000]


async def test_next_batch_may_be_sent_by_the_delivery_of_the_one_before(shared_redis_url: str) -> None:
    numbers: list[int] = []
    done = asyncio.Event()
    async with talking(shared_redis_url) as talk:

        def count(replies: Replies) -> None:
            assert isinstance(replies, list)
            numbers.append(replies[0])
            if len(numbers) == 50:
                done.set()
            else:
                send()

        def send() -> None:
            talk.receiver.expect(1, count)
            talk.connection.write([hiredis.pack_command(("INCR", "n"))])

        send()
        await asyncio.wait_for(done.wait(), 10.0)
    assert numbers == list(range(1, 51))


async def test_connection_that_is_cut_delivers_its_end_once(shared_redis_url: str) -> None:
    async with talking(shared_redis_url) as talk:
        talk.send(("BLPOP", "nothing", 0))
        with redis.Redis.from_url(shared_redis_url) as other:
            other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert isinstance(await talk.outcome(), ConnectionError)
        assert talk.receiver.is_lost
        talk.connection.abort()
        await asyncio.sleep(0)
        assert talk.delivered.empty()


async def test_idle_connection_that_is_cut_is_known_to_be_lost(shared_redis_url: str) -> None:
    async with talking(shared_redis_url) as talk:
        with redis.Redis.from_url(shared_redis_url) as other:
            other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        while not talk.receiver.is_lost:  # noqa: ASYNC110 - bounded by the test's own timeout
            await asyncio.sleep(0.001)
        assert talk.delivered.empty()


async def test_redis_that_hangs_is_given_up_after_the_limit(redis_server: EmbeddedRedis) -> None:
    async with talking(redis_server.url, within=0.1) as talk:
        talk.send(("PING",))
        assert await talk.outcome() == [b"PONG"]
        redis_server.pause()
        talk.send(("PING",))
        outcome = await talk.outcome()
        redis_server.resume()
    assert isinstance(outcome, ConnectionError)
    assert "did not answer within 0.1 s" in str(outcome)


async def test_what_was_not_asked_for_ends_the_connection(shared_redis_url: str) -> None:
    async with talking(shared_redis_url) as talk:
        talk.connection.write([hiredis.pack_command(("PING",))])
        while not talk.receiver.is_lost:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert talk.delivered.empty()


async def test_nothing_is_delivered_once_it_is_forgotten(shared_redis_url: str) -> None:
    async with talking(shared_redis_url) as talk:
        talk.send(("PING",))
        talk.receiver.forget()
        while not talk.receiver.is_lost:  # noqa: ASYNC110 - the reply comes, and nobody expects it
            await asyncio.sleep(0.001)
        assert talk.delivered.empty()


@pytest.mark.parametrize("text", [b"*1\r\n!", b"-LOADING Redis is loading the dataset in memory\r\n"])
async def test_bytes_that_are_no_reply_or_say_that_redis_is_loading_fail_the_batch(text: bytes) -> None:
    receiver = ReplyReceiver(5.0)
    delivered: list[Replies] = []
    receiver.expect(2, delivered.append)
    receiver.get_buffer(-1)[: len(text)] = text
    receiver.buffer_updated(len(text))
    assert len(delivered) == 1
    assert isinstance(delivered[0], ConnectionError)
