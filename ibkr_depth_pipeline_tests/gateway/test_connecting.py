"""The pace of connections, and the errors that refuse one: the operator reads what to do, with the setting's name."""

from __future__ import annotations

import asyncio
import itertools
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ibkr_depth_pipeline.errors import GatewayUnavailable
from ibkr_depth_pipeline.gateway.connecting import QUICK_PHASE_SECS, ConnectBackoff
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks


def longest(_low: float, high: float) -> float:
    return high


def connections(backoff: ConnectBackoff, secs: float, *, refused: bool = False, began: float = 0.0) -> list[float]:
    """When connections begin within so many seconds, one at a time and each failing at once."""
    times, now = [], began
    while now < began + secs:
        times.append(now)
        pause = backoff.pause(now)
        if refused:
            pause = backoff.of_refused(pause)
        else:
            backoff.accepted(now)
        now += pause
    return times


def test_pauses_double_within_the_quick_phase_and_slow_down_to_a_minute_after_it() -> None:
    times = connections(ConnectBackoff(2.0, 60.0, longest), 600)
    pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
    assert pauses[:6] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    slow = pauses[sum(time < QUICK_PHASE_SECS for time in times) :]
    assert slow[:6] == [4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(slow[4:]) == {60.0}
    assert all(pause <= 2.0 for time, pause in zip(times, pauses, strict=False) if time < QUICK_PHASE_SECS)


@pytest.mark.parametrize("seed", range(20))
def test_gateway_that_never_answers_gets_at_most_two_connections_a_minute_over_a_weekend(seed: int) -> None:
    backoff = ConnectBackoff(2.0, 60.0, random.Random(seed).uniform)
    weekend = 48 * 3600
    assert len(connections(backoff, weekend)) <= 2 * weekend / 60 + 60
    assert len(connections(ConnectBackoff(2.0, 60.0, random.Random(seed).uniform), 30)) <= 40


def test_jitter_is_from_half_of_the_pause_to_all_of_it() -> None:
    backoff = ConnectBackoff(2.0, 60.0, random.Random(1).uniform)
    pauses = [backoff.pause(QUICK_PHASE_SECS) for _ in range(50)]
    assert all(30.0 <= pause <= 60.0 for pause in pauses[6:])
    assert len(set(pauses)) == 50


def test_port_at_which_nothing_listens_is_tried_every_few_seconds_without_end() -> None:
    times = connections(ConnectBackoff(2.0, 60.0, longest), 3600, refused=True)
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) == 5.0


def test_gateway_that_listens_again_after_a_long_time_gets_one_quick_phase() -> None:
    backoff = ConnectBackoff(2.0, 60.0, longest)
    connections(backoff, 3600, refused=True)
    backoff.accepted(3600.0)
    assert backoff.pause(3600.0) == 0.2
    for _ in range(20):
        backoff.pause(3700.0)
        backoff.of_refused(60.0)
        backoff.accepted(3700.0)
    assert backoff.pause(3700.0) == 60.0, "a port that flaps does not start a quick phase each time"


def test_slow_pause_is_never_shorter_than_the_quick_one() -> None:
    backoff = ConnectBackoff(10.0, 1.0, longest)
    assert [backoff.pause(QUICK_PHASE_SECS) for _ in range(3)] == [10.0, 10.0, 10.0]


def test_new_loss_starts_the_quick_phase() -> None:
    backoff = ConnectBackoff(2.0, 60.0, longest)
    connections(backoff, 600)
    backoff.begin(600.0)
    assert backoff.pause(600.0) == 0.2


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
            callbacks=GatewayCallbacks(),
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
