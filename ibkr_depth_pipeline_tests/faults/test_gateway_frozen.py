"""A gateway whose whole process is frozen: its sockets stand, the kernel goes on to accept, and nothing is answered.

The 3 s of the promise are measured, not asserted: run with -s to see the figures of docs/faults.md.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline.simulation.rows import Book, BookLevel, WireRow, apply_rows
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, Rows, recording, universe_of
from ibkr_depth_pipeline_tests.faults.recovery import FAST, stopwatch

SYMBOLS = ("SPY", "QQQ", "IWM")
SCRIPT = Path(sys.executable).with_name("ibkr_gateway_sim")
MORE_THAN_ARE_QUEUED = 130  # connections that nobody accepts; the gateway's listening socket holds a hundred

Sides = tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]
"""Price and size of the rows that a book holds, at most ten a side: bids, asks."""


class GatewayProcess:
    """`ibkr_gateway_sim` as a process that a test may freeze, thaw and kill."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir()
        ready, self.journal = folder / "ready.json", folder / "journal.jsonl"
        command = [SCRIPT, "--port", str(port), "--ready-file", ready, "--journal", self.journal]
        self.process = GuardedProcess(command, log_path=folder / "log")
        assert wait_until(lambda: ready.exists() or not self.process.running, PATIENCE_SECS)
        assert ready.exists(), self.process.log_tail()
        self.port = int(json.loads(ready.read_text())["port"])

    def freeze(self) -> None:
        self.process.send(signal.SIGSTOP)
        assert wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED, PATIENCE_SECS)

    def thaw(self) -> None:
        self.process.send(signal.SIGCONT)

    def kill(self) -> None:
        self.process.end()

    def last_books(self, symbol: str) -> list[Sides]:
        """The book after each row of the newest subscription that got any; to be asked once the gateway has ended."""
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        rows = [entry for entry in entries if entry["kind"] == "rows" and entry["name"] == symbol]
        newest = (rows[-1]["connection"], rows[-1]["request_id"])
        book, books = Book(), []
        for entry in rows:
            if (entry["connection"], entry["request_id"]) == newest:
                for row in entry["rows"]:
                    book = apply_rows(book, [WireRow(*row)])
                    books.append((_of_gateway(book.bids), _of_gateway(book.asks)))
        return books


@contextmanager
def gateway_process(folder: Path, port: int = 0) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(folder, port)
    try:
        yield gateway
    finally:
        gateway.thaw()
        gateway.process.end(grace_secs=6)


@asynccontextmanager
async def beside(
    gateway: GatewayProcess, redis_url: str, **settings: Any
) -> AsyncIterator[tuple[Recording, list[Any]]]:
    """The recorder beside it, with the list of what it logs."""
    with structlog.testing.capture_logs() as logged:
        async with recording(gateway, redis_url, universe_of(*SYMBOLS), **{**FAST, **settings}) as run:
            yield run, logged


def said(logged: list[Any], event: str) -> list[Any]:
    return [line for line in logged if line["event"] == event]


async def fresh(run: Recording) -> None:
    for symbol in SYMBOLS:
        await run.grows(symbol, 50)


async def given_up(run: Recording, gateway: GatewayProcess, logged: list[Any]) -> None:
    """Wait until the connection is given up, and two others are tried that nobody answers."""

    async def tried() -> bool:
        return bool(said(logged, "gateway_stalled")) and len(_connections_to(gateway.port)) >= 2

    await run.until(tried)


def _connections_to(port: int) -> list[Any]:
    """This process' connections to that port: those that stand, and those that the other side's kernel ignores."""
    under_way = (psutil.CONN_ESTABLISHED, psutil.CONN_SYN_SENT)
    found = psutil.net_connections("tcp4")
    return [
        each
        for each in found
        if each.pid == os.getpid() and each.raddr and each.raddr.port == port and each.status in under_way
    ]


async def assert_right(run: Recording, gateway: GatewayProcess) -> None:
    """End both: since the newest subscriptions began, what is stored is row for row what the gateway sent."""
    await run.stop()
    gateway.process.end(grace_secs=6)
    for symbol in SYMBOLS:
        stream = await run.stream(symbol)
        assert [snapshot.seq for snapshot in stream] == list(range(1, len(stream) + 1))
        stored = [(_of_stream(snapshot.bids), _of_stream(snapshot.asks)) for snapshot in stream]
        begins = max(at for at, sides in enumerate(stored) if sum(map(len, sides)) == 1)
        assert len(stored) - begins >= 50
        assert stored[begins:] == gateway.last_books(symbol)[: len(stored) - begins]


def _of_gateway(levels: tuple[BookLevel, ...]) -> tuple[tuple[float, float], ...]:
    return tuple((level.price, level.size) for level in levels[:10])


def _of_stream(rows: Rows) -> tuple[tuple[float, float], ...]:
    return tuple((price, size) for price, size, _ in rows if price)


@pytest.mark.parametrize("connect_timeout", [2, 300])
async def test_gateway_frozen_beyond_the_stall_limit_is_given_up_and_had_again_once_it_thaws(
    shared_redis_url: str, tmp_path: Path, connect_timeout: int
) -> None:
    with gateway_process(tmp_path / "gateway") as gateway:
        async with beside(gateway, shared_redis_url, ibkr_connect_timeout_secs=connect_timeout) as (run, logged):
            await fresh(run)
            gateway.freeze()
            await given_up(run, gateway, logged)
            gateway.thaw()
            with stopwatch(f"a frozen gateway process, thawed, with IBKR_CONNECT_TIMEOUT_SECS={connect_timeout}"):
                await fresh(run)
            await assert_right(run, gateway)
    (stalled,) = said(logged, "gateway_stalled")
    assert stalled["without_row_secs"] >= 1
    assert stalled["unanswered_secs"] >= 0.5
    assert {gap["symbol"] for gap in said(logged, "data_gap")} == set(SYMBOLS)
    assert {gap["cause"] for gap in said(logged, "data_gap")} == {"connection_lost"}


async def test_gateway_whose_queue_of_connections_filled_up_while_frozen_is_had_again(
    shared_redis_url: str, tmp_path: Path
) -> None:
    with gateway_process(tmp_path / "gateway") as gateway, ExitStack() as knocking:
        async with beside(gateway, shared_redis_url, ibkr_connect_timeout_secs=2) as (run, logged):
            await fresh(run)
            gateway.freeze()
            for _ in range(MORE_THAN_ARE_QUEUED):
                caller = knocking.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex((gateway.host, gateway.port))
            await given_up(run, gateway, logged)
            assert psutil.CONN_SYN_SENT in {each.status for each in _connections_to(gateway.port)}
            gateway.thaw()
            with stopwatch("a frozen gateway process with a full queue, thawed"):
                await fresh(run)
            await assert_right(run, gateway)


@pytest.mark.parametrize("noticed", [False, True])
async def test_gateway_killed_while_frozen_is_had_again_once_another_listens(
    shared_redis_url: str, tmp_path: Path, noticed: bool
) -> None:
    with gateway_process(tmp_path / "gateway") as gateway:
        async with beside(gateway, shared_redis_url, ibkr_connect_timeout_secs=2) as (run, logged):
            await fresh(run)
            gateway.freeze()
            if noticed:
                await given_up(run, gateway, logged)
            gateway.kill()
            with gateway_process(tmp_path / "another", gateway.port) as another:
                with stopwatch(f"killed while frozen, {'noticed' if noticed else 'unnoticed'}, and started anew"):
                    await fresh(run)
                await assert_right(run, another)
    assert bool(said(logged, "gateway_stalled")) is noticed
