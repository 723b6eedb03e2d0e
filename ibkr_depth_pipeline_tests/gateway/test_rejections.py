"""Errors that refuse the connection itself: the operator reads what to do, with the setting's name."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ibkr_depth_pipeline.errors import GatewayUnavailable
from ibkr_depth_pipeline.gateway.tws import TwsGateway


def frame(*fields: object) -> bytes:
    payload = b"".join(str(field).encode() + b"\0" for field in fields)
    return struct.pack(">I", len(payload)) + payload


@asynccontextmanager
async def answering(*messages: bytes) -> AsyncIterator[TwsGateway]:
    """A client of a server that answers each thing it reads with the next of these, and closes after the last."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for message in messages:
            await reader.read(4096)
            writer.write(message)
        await reader.read(4096)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield TwsGateway(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            request_ids=itertools.count(1),
            on_event=lambda event: None,
            on_row=lambda request, row: None,
            connect_timeout=5,
        )


VERSION = frame(176, "20261126 09:30:00 EST")


@pytest.mark.parametrize(
    ("code", "word"),
    [(502, "IBKR_PORT"), (504, "log in"), (507, "IBKR_CLIENT_ID"), (503, "install"), (10141, "accept")],
)
async def test_code_before_the_greeting_ends_the_attempt_with_one_line_that_says_what_to_do(
    code: int, word: str
) -> None:
    async with answering(VERSION, frame(4, 2, -1, code, "as TWS puts it", "")) as client:
        with pytest.raises(GatewayUnavailable, match=word) as failure:
            await client.connect([1])
    assert f"{code} (as TWS puts it)" in str(failure.value)
    assert "\n" not in str(failure.value)


async def test_connection_that_is_closed_at_once_names_trusted_ips() -> None:
    async with answering() as client:
        with pytest.raises(GatewayUnavailable, match="Trusted IPs"):
            await client.connect([1])


async def test_gateway_older_than_the_client_reads_is_named_with_its_version() -> None:
    async with answering(frame(120, "20100101 09:30:00 EST")) as client:
        with pytest.raises(GatewayUnavailable, match="120 is older than 157"):
            await client.connect([1])
