"""Makes those tapes of corpus/ that come from the simulated gateway.

    python -m ibkr_depth_pipeline_tests.tape.make_corpus

Each is written by the tap itself, in front of the gateway, while the recorder runs; one by the recorder's own flight
recorder. A tape of a real gateway is put beside them as it came.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.dump_requests import ask_for_dump
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of
from ibkr_depth_pipeline_tests.flight_recorder.dumping import flown
from ibkr_depth_pipeline_tests.tape.tapping import tapped

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Course:
    """How a gateway behaves, what happens meanwhile, and for how many snapshots of each symbol."""

    symbols: tuple[str, ...]
    options: GatewayOptions
    happens: Callable[[SimulatedGateway], object] = lambda gateway: None
    rows: int = 120
    settings: dict[str, Any] = field(default_factory=dict)


COURSES = {
    "three_lines": Course(("SPY", "QQQ", "IWM"), GatewayOptions(rows_per_second=100, seed=3)),
    "book_reset": Course(
        ("SPY",), GatewayOptions(rows_per_second=100, seed=4), lambda gateway: gateway.reset_book("SPY")
    ),
}


async def make(name: str, course: Course) -> None:
    """Writes the tape called `name`."""
    with EmbeddedRedis() as redis:
        async with (
            SimulatedGateway(course.options) as gateway,
            tapped(gateway.host, gateway.port, CORPUS / name) as tap,
        ):
            async with recording(tap, redis.url, universe_of(*course.symbols)) as run:  # type: ignore[arg-type]
                await grow(run, course)
                course.happens(gateway)
                await grow(run, course)


async def make_dump(name: str) -> None:
    """Writes a tape of the flight recorder, which begins in the middle of a connection."""
    with EmbeddedRedis() as redis, TemporaryDirectory() as folder:
        async with SimulatedGateway(GatewayOptions(rows_per_second=100, seed=5)) as gateway:
            async with flown(gateway, redis.url, Path(folder), "SPY", "QQQ") as run:
                await run.grows("SPY", 300)
                answer = await ask_for_dump(redis.url, "default", "make_corpus")
                shutil.copyfile(answer.path, CORPUS / f"{name}-0001.tape.gz")


async def grow(run: Recording, course: Course) -> None:
    for symbol in course.symbols:
        await run.grows(symbol, course.rows)


async def main() -> None:
    for name, course in COURSES.items():
        await make(name, course)
    await make_dump("dumped")


if __name__ == "__main__":
    asyncio.run(main())
