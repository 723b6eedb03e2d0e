"""A tap in front of a gateway, in the test's own event loop; the tape is written by a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ibkr_depth_pipeline.tape.proxy import Tap, TapeRecording, TapOptions


@dataclass(frozen=True)
class Address:
    """Where a test's client connects; what settings_for asks of a gateway."""

    host: str
    port: int


@asynccontextmanager
async def tapped(
    host: str, port: int, stem: Path, *, allow_orders: bool = False, newest_version: int | None = None
) -> AsyncIterator[Address]:
    """A tap in front of the gateway at host and port; the tape is complete at the end."""
    options = TapOptions(host, port, "127.0.0.1", 0, stem, 1 << 30, 20, allow_orders, "a test", newest_version)
    recording = await TapeRecording.start(options)
    watching = asyncio.ensure_future(recording.watch())
    tap = Tap(options, recording)
    try:
        yield Address("127.0.0.1", await tap.listen())
    finally:
        await tap.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert await recording.close()
