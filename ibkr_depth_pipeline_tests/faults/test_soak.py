"""Long runs, accelerated: rows by the million through rotations, refusals and reconnects; nothing grows, nothing leaks.

The long one is marked `faults`; SOAK_ROWS sets its number of rows, SOAK_RATE the rows a second and symbol.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import pytest
import structlog

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.ingest.figures import IngestSummary
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import gateway_process
from ibkr_depth_pipeline_tests.end_to_end.recording import universe_of

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN")
SAMPLE_SECS = 0.5


@dataclass
class Samples:
    """What this process used, with the number of rows at the time."""

    rows: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)

    def take(self, rows: int) -> None:
        process = psutil.Process()
        self.rows.append(rows)
        self.memory.append(process.memory_info().rss)
        self.descriptors.append(process.num_fds())
        self.tasks.append(len(asyncio.all_tasks()))

    def quarter(self, number: int, values: list[int]) -> float:
        """The mean of `values` in that quarter of the rows, counted from 1."""
        size = self.rows[-1] / 4
        pairs = zip(self.rows, values, strict=True)
        return mean(value for rows, value in pairs if size * (number - 1) <= rows <= size * number)


async def soak(redis_url: str, gateway: tuple[str, int], rows: int, samples: Samples) -> IngestSummary:
    settings = load_settings(
        ibkr_host=gateway[0],
        ibkr_port=gateway[1],
        redis_url=redis_url,
        ibkr_stream_maxlen=1000,
        ibkr_rotation_secs=1,
        ibkr_first_row_secs=2,
        ibkr_error309_cooldown_secs=1,
        ibkr_error309_recovery_cycles=2,
        ibkr_stall_secs=5,
        symbol_config_path=Path("unused.yaml"),
    )
    counted = 0

    def count(_: object, __: str, line: Any) -> Any:
        nonlocal counted
        if line["event"] == "snapshots_persisted":
            counted += line["snapshots"]
        raise structlog.DropEvent

    structlog.configure(processors=[count])
    try:
        session = IngestSession(settings, universe_of(*SYMBOLS))
        running = asyncio.ensure_future(session.run())
        while counted < rows and not running.done():
            await asyncio.sleep(SAMPLE_SECS)
            samples.take(counted)
        session.stop()
        await asyncio.wait({running}, timeout=60)
        assert running.done(), f"the run does not end; what is left: {asyncio.all_tasks()}"
        return running.result()
    finally:
        structlog.reset_defaults()


def left_open(journal: Path) -> set[tuple[int, str]]:
    """Subscriptions that were granted and neither cancelled nor lost with their connection."""
    on: set[tuple[int, str]] = set()
    endings: dict[str, Callable[[dict[str, Any]], set[tuple[int, str]]]] = {
        "unsubscribed": lambda entry: {(entry["connection"], str(entry["request_id"]))},
        "closed": lambda entry: {each for each in on if each[0] == entry["connection"]},
    }
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["kind"] == "subscribed":
                on.add((entry["connection"], str(entry["request_id"])))
            elif entry["kind"] in endings:
                on -= endings[entry["kind"]](entry)
    return on


def run_soak(redis_url: str, tmp_path: Path, rows: int) -> Samples:
    journal, samples = tmp_path / "journal.jsonl", Samples()
    rate = os.environ.get("SOAK_RATE", "5000")
    arguments = ["--scenario", "reconnect_storm", "--rows-per-second", rate, "--journal", str(journal)]
    descriptors = psutil.Process().num_fds()
    with gateway_process(*arguments, "--no-journal-rows") as gateway:
        summary = asyncio.run(soak(redis_url, gateway, rows, samples))
    print(
        f"\nMEASURED soak: {sum(summary.snapshots.values()):,} snapshots, {summary.connections} connections, "
        f"{summary.turns} turns, {summary.refused_309} refusals, at most {max(samples.tasks)} tasks and "
        f"{max(samples.descriptors) - descriptors} more descriptors; memory by quarters: "
        + ", ".join(f"{samples.quarter(number, samples.memory) / 2**20:.1f} MiB" for number in (1, 2, 3, 4))
    )
    gc.collect()
    assert sum(summary.snapshots.values()) >= rows
    assert summary.drained
    assert summary.snapshots == summary.rows
    assert set(summary.snapshots) == set(SYMBOLS)
    assert summary.connections > 1
    assert summary.refused_309 > 0 or rows < 1_000_000
    assert left_open(journal) == set()
    assert psutil.Process().num_fds() <= descriptors
    assert max(samples.tasks) < 30
    assert max(samples.descriptors) < descriptors + 30
    return samples


def test_short_soak_leaves_no_task_descriptor_or_subscription(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    run_soak(redis_server.url, tmp_path, 100_000)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_long_soak_keeps_its_memory(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    samples = run_soak(redis_server.url, tmp_path, int(os.environ.get("SOAK_ROWS", "10000000")))
    assert samples.quarter(4, samples.memory) < 1.05 * samples.quarter(2, samples.memory)
