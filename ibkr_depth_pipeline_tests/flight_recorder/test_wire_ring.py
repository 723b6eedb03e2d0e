"""Nobody waits for the ring's disk: what it does not take in time is left out, logged, and kept again later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ibkr_depth_pipeline.ingest import wire_trace
from ibkr_depth_pipeline.ingest.flight_recorder import DumpFailed, FlightRecorder
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.ingest.wire_trace import WireRing
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.tape.messages import framed, message_of
from ibkr_depth_pipeline.tape.ring import RingFiles
from ibkr_depth_pipeline.tape.ring_writer import MOST_QUEUED_BYTES

BOUND = 1 << 26
READ = framed(message_of(["12", "1", "7", "0", "1", "1", "150.25", "100"])) * 160


class SlowDisk(RingFiles):
    """Takes nothing until it is `let`."""

    let = threading.Event()

    def append(self, frames: bytes) -> None:
        self.let.wait(60)
        super().append(frames)


@asynccontextmanager
async def ring_on(files: RingFiles, bound: int = BOUND) -> AsyncIterator[WireRing]:
    ring = WireRing(files, bound, 60.0, list, set)
    ring.begin()
    try:
        yield ring
    finally:
        await ring.close()


async def test_disk_that_hangs_costs_what_does_not_fit_and_nothing_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_trace, "RETRY_SECS", 0.0)
    files = SlowDisk(tmp_path / "ring", BOUND, 60.0, {})
    files.let.clear()
    async with ring_on(files) as ring:
        trace = ring.opened(lambda: b"")
        for _ in range(2 * MOST_QUEUED_BYTES // len(READ)):
            trace.received(READ)
            await asyncio.sleep(0)
        assert ring.writer.queued <= MOST_QUEUED_BYTES
        ring.tick()
        assert not ring.is_on
        files.let.set()
        while not ring.is_on:
            ring.tick()
            await asyncio.sleep(0.01)
        trace.received(READ)
        ring.tick()
        await ring.writer.call(lambda: None)
        (segment,) = (tmp_path / "ring").glob("segment-*")
        assert READ in segment.read_bytes()
        while "flight_recorder_resumed" not in (said := capsys.readouterr().out):
            assert "flight_recorder_failed" in said or not said
            ring.tick()
            await asyncio.sleep(0.01)
    assert not (tmp_path / "ring").exists()


async def test_ring_that_is_removed_while_it_is_written_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_trace, "RETRY_SECS", 0.0)
    async with ring_on(RingFiles(tmp_path / "ring", BOUND, 60.0, {})) as ring:
        trace = ring.opened(lambda: b"")
        trace.received(READ)
        ring.tick()
        await ring.writer.call(lambda: None)
        for path in (tmp_path / "ring").iterdir():
            path.unlink()
        (tmp_path / "ring").rmdir()
        trace.sent(framed(b"9\x008\x001\x00"))  # makes a file: the head
        while not (tmp_path / "ring").exists():
            ring.tick()
            await asyncio.sleep(0.01)
        trace.received(READ)
        ring.tick()
        await ring.writer.call(lambda: None)
        (segment,) = (tmp_path / "ring").glob("segment-*")
        assert READ in segment.read_bytes()
    assert capsys.readouterr().out.count("flight_recorder_failed") == 1


@pytest.mark.parametrize("bound", [1 << 20, 1 << 23])
async def test_ring_stays_within_its_bound_at_any_speed(tmp_path: Path, bound: int) -> None:
    files = RingFiles(tmp_path / "ring", bound, 60.0, {})
    async with ring_on(files, bound) as ring:
        trace = ring.opened(lambda: b"")
        for number in range(4 * bound // len(READ)):
            trace.received(READ)
            await asyncio.sleep(0)  # as between two reads
            if number % 32 == 0:
                await ring.writer.call(lambda: None)
                assert sum(path.stat().st_size for path in (tmp_path / "ring").glob("segment-*")) <= bound
        await ring.writer.call(lambda: None)
        assert sum(path.stat().st_size for path in (tmp_path / "ring").glob("segment-*")) > bound / 2


async def test_fault_of_the_flight_recorder_itself_ends_nothing_but_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pipeline() -> DepthPipeline:
        raise RuntimeError("a bug")

    settings = load_settings(ibkr_flight_recorder_minutes=0.01, ibkr_flight_recorder_dir=tmp_path / "flight")
    recorder = FlightRecorder(settings, pipeline)
    recorder.begin()
    assert recorder.wire is not None
    trace = recorder.wire.opened(lambda: b"")
    trace.received(READ)
    trace.closed("gateway")
    with pytest.raises(DumpFailed):
        await recorder.dump("a test")
    await recorder.aclose()
    assert "a bug" in capsys.readouterr().out
