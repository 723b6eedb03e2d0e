"""What the tests of the flight recorder share: a run that has it, the tapes in its folder, the books of a tape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ibkr_depth_pipeline.ingest.composition import IngestTimings
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.tape.files import Entry, LinkEvent, Read, read_entries
from ibkr_depth_pipeline.tape.player import TapePlayer
from ibkr_depth_pipeline.tape.script import read_scripts
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, Snapshot, recording, universe_of

RING_SECS = 1.0
SETTLE_SECS = 0.05

Books = list[tuple[Any, Any, str]]


@asynccontextmanager
async def flown(
    gateway: SimulatedGateway | TapePlayer,
    redis_url: str,
    folder: Path,
    *symbols: str,
    settle: float = SETTLE_SECS,
    **overrides: Any,
) -> AsyncIterator[Recording]:
    """A run with a flight recorder that keeps some seconds, and writes to `folder`."""
    settings = {"ibkr_flight_recorder_dir": folder, "ibkr_flight_recorder_minutes": RING_SECS / 60, **overrides}
    timings = IngestTimings(dump_settle=settle)
    universe = universe_of(*(SymbolSpec(symbol, hours="always") for symbol in symbols))
    async with recording(gateway, redis_url, universe, timings=timings, **settings) as run:  # type: ignore[arg-type]
        yield run


def tapes(folder: Path, reason: str = "") -> list[Path]:
    """The tapes that were dumped for that reason, the oldest first."""
    return sorted(folder.glob(f"*{reason}-0001.tape.gz"), key=lambda path: path.stat().st_mtime_ns)


async def tape_of(run: Recording, folder: Path, reason: str) -> Path:
    """Waits for a tape of that reason."""

    async def is_there() -> bool:
        return bool(tapes(folder, reason))

    await run.until(is_there)
    return tapes(folder, reason)[-1]


def resumed(tape: Path) -> LinkEvent:
    """The event of the one connection that is older than the tape."""
    (event,) = [each for each in read_entries(tape) if isinstance(each, LinkEvent) and each.name == "resumed"]
    return event


def rows_behind(tape: Path) -> int:
    """How many rows were read within the tape: those that make the books at its begin are not."""
    return sum(is_row(message) for read in reads(read_entries(tape)) if read.size for message in read.messages)


def reads(entries: Any) -> list[Read]:
    return [entry for entry in entries if isinstance(entry, Read)]


def is_row(message: Any) -> bool:
    return isinstance(message, list) and message[0] in ("12", "13")


def books(snapshots: list[Snapshot]) -> Books:
    return [(snapshot.bids, snapshot.asks, snapshot.venue) for snapshot in snapshots]


async def replayed(tape: Path, redis_url: str, folder: Path, lengths: dict[str, int]) -> dict[str, Books]:
    """The books that the recorder stores of a tape, so many of each symbol."""
    async with TapePlayer(read_scripts(tape), "127.0.0.1", 0, speed=0) as player:
        async with flown(player, redis_url, folder, *lengths, ibkr_flight_recorder_minutes=0) as run:
            for symbol, length in lengths.items():
                await run.until(lambda symbol=symbol, length=length: _holds(run, symbol, length))  # type: ignore[misc]
            await run.stop()
            return {symbol: books(await run.stream(symbol)) for symbol in lengths}


async def _holds(run: Recording, symbol: str, length: int) -> bool:
    return await run.length(symbol) >= length


def entries_named(entries: Any, name: str) -> list[Entry]:
    return [entry for entry in entries if isinstance(entry, LinkEvent) and entry.name == name]
