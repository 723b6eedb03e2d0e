"""What the flight recorder costs: rows a second and delays without it, with it, and while it writes a tape."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

from bench import latency, verify
from bench.figures import Measured
from bench.processes import BenchmarkFailed
from bench.recorder import Stage, play
from bench.recording import RECORDED

OFF, ON, DUMPING = "off", "on", "on, writing a tape"
WAYS = (OFF, ON, DUMPING)
RATE = 10_000
_REQUEST = "raw:ibkr:depth:ingest:default:dump"
_PATIENCE_SECS = 60.0

Sample = dict[str, float]


def measure(stage: Stage, rows: int, secs: float, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Of each way: rows a second, CPU, RSS at full speed, percentiles of the delay at RATE. Raises BenchmarkFailed."""
    samples: dict[str, list[Sample]] = {way: [] for way in WAYS}
    for number in range(1, runs + 1):
        for way in WAYS:
            sample = {**_speed(stage, rows, way), **_delay(stage, int(RATE * secs), way)}
            samples[way].append(sample)
            delay = f"p50 {sample['p50']:.2f}, p99 {sample['p99']:.2f} ms at {RATE:,}"
            say(f"  round {number}: {way}: {sample['rate']:,.0f} a second; {delay}")
    return {
        way: {name: Measured.of([sample[name] for sample in each]).as_json() for name in each[0]}
        for way, each in samples.items()
    }


def _speed(stage: Stage, rows: int, way: str) -> Sample:
    cost = play(stage, RECORDED, rows, on_start=lambda pid: _ask(stage, way), **_settings(stage, way))
    _check(stage, way)
    return {"rate": cost.rate, "cpu": cost.cpu_secs_per_million, "rss_mb": cost.peak_rss_mb}


def _delay(stage: Stage, rows: int, way: str) -> Sample:
    soon = threading.Timer(2.0, _ask, (stage, way))
    soon.start()
    whole = rows // len(RECORDED) * len(RECORDED)
    try:
        return latency.through_recorder(stage, RATE, whole, **_settings(stage, way))
    finally:
        soon.join()
        _check(stage, way)


def _settings(stage: Stage, way: str) -> dict[str, object]:
    folder = stage.folder / "flight_recorder"
    return {"IBKR_FLIGHT_RECORDER_MINUTES": 0 if way == OFF else 5, "IBKR_FLIGHT_RECORDER_DIR": folder}


def _ask(stage: Stage, way: str) -> None:
    if way == DUMPING:
        with verify.connect(stage.redis.url) as store:
            store.set(_REQUEST, json.dumps({"id": "bench", "by": "bench"}))


def _check(stage: Stage, way: str) -> None:
    """A tape was written if one was to be. Raises BenchmarkFailed."""
    folder, until = stage.folder / "flight_recorder", time.monotonic() + _PATIENCE_SECS
    while way == DUMPING and not list(folder.glob("*.tape.gz")):
        if time.monotonic() > until:
            raise BenchmarkFailed("the flight recorder wrote no tape")
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
