"""A gateway of a version with binary types: recorded, shown without a secret, refused by the player by name."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from ib_insync import IB

from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.tape.files import UnreadableTape, parts_of
from ibkr_depth_pipeline.tape.messages import framed
from ibkr_depth_pipeline.tape.script import read_scripts
from ibkr_depth_pipeline_tests.tape.tapping import tapped

ACCOUNT = "U7654321"
GREETING = framed(b"215\x0020261126 09:30:00 EST\0")


def typed(kind: int, rest: bytes) -> bytes:
    return framed(kind.to_bytes(4, "big") + rest)


FROM_GATEWAY = [
    GREETING,
    typed(9, b"1\x001\0"),
    typed(15, f"1\0{ACCOUNT}\0".encode()),
    typed(12, b"1\x007\x000\x000\x001\x00150.25\x00300\0"),
    typed(204, b"\x08\x07" + ACCOUNT.encode()),
]
OFFER = b"API\0" + framed(b"v100..226")
STARTS = {"text": typed(71, b"2\x00777\0\0"), "protobuf": typed(271, b"\x08\x07" + ACCOUNT.encode())}
ORDER = typed(203, ACCOUNT.encode())


@pytest.fixture(params=STARTS)
async def tape(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    start = STARTS[request.param]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(OFFER))
        writer.write(FROM_GATEWAY[0])
        await reader.readexactly(len(start + ORDER))
        writer.write(b"".join(FROM_GATEWAY[1:]))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with tapped("127.0.0.1", server.sockets[0].getsockname()[1], tmp_path / "new", allow_orders=True) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(OFFER)
        assert await reader.readexactly(len(GREETING)) == GREETING
        writer.write(start + ORDER)
        assert await reader.read() == b"".join(FROM_GATEWAY[1:])
        writer.close()
    server.close()
    return tmp_path / "new"


async def test_tape_of_a_newer_protocol_is_shown_and_says_that_it_can_not_be_played(tape: Path) -> None:
    command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_tap", "show", str(tape)]
    shown = (await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)).stdout
    assert "server version 215: types are binary from 201 on; shown, but not played" in shown
    assert "12|1|7|0|0|1|150.25|300" in shown
    assert "[dropped: type 4, protobuf," in shown
    assert "[dropped: type 3, protobuf," in shown
    assert ACCOUNT not in shown


async def test_tape_of_a_newer_protocol_is_refused_by_the_player_with_its_version(tape: Path) -> None:
    with pytest.raises(UnreadableTape, match="of server version 215; below 201 can be played"):
        read_scripts(tape)


async def test_simulated_gateway_refuses_to_play_it_and_says_what_why_and_what_to_do(tape: Path) -> None:
    command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_sim", "--port", "0", "--tape", str(tape)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stdout == ""
    for word in (str(tape), "server version 215", "below 201 can be played", "protobuf", "ibkr_gateway_tap show"):
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ACCOUNT not in ended.stderr


async def test_connections_that_can_be_played_are_and_it_is_said_that_others_are_left_out(tape: Path) -> None:
    async with SimulatedGateway() as gateway:
        both = tape.with_name("both")
        async with tapped(gateway.host, gateway.port, both) as tap:
            ib = IB()
            await ib.client.connectAsync("127.0.0.1", tap.port, 77, timeout=10)
            ib.disconnect()
    (older,) = parts_of(both)
    (newer,) = parts_of(tape)
    lines = gzip.decompress(newer.read_bytes()).splitlines()[1:]
    renumbered = [line.replace(b'"c":1,', b'"c":2,') for line in lines]
    older.write_bytes(gzip.compress(gzip.decompress(older.read_bytes()) + b"\n".join(renumbered) + b"\n"))
    skipped: list[str] = []
    (script,) = read_scripts(both, skipped.append)
    assert script.version == 176
    assert len(skipped) == 1
    assert "1 of 2 connections are left out: of server version 215" in skipped[0]


@pytest.mark.parametrize(
    ("offer", "newest", "passed"),
    [
        (b"v100..226", 200, b"v100..200"),
        (b"v100..226 +PACEAPI", 200, b"v100..200 +PACEAPI"),
        (b"v157..176", 200, b"v157..176"),
        (b"v210..226", 200, b"v210..226"),
        (b"v100..226", None, b"v100..226"),
        (b"no offer", 200, b"no offer"),
    ],
)
async def test_tap_offers_the_gateway_no_newer_version_than_it_was_told(
    tmp_path: Path, offer: bytes, newest: int | None, passed: bytes
) -> None:
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set_result(await reader.readexactly(len(b"API\0" + framed(passed))))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with tapped("127.0.0.1", port, tmp_path / "old", newest_version=newest) as tap:
        _, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(b"API\0" + framed(offer))
        assert await came == b"API\0" + framed(passed)
        writer.close()
    server.close()
