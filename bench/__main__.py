"""`make bench`, or `python -m bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench import (
    dagster_run,
    exports,
    flight,
    growth,
    latency,
    profiling,
    reading,
    slots,
    start,
    tap,
    throughput,
    verify,
    web,
    whole,
    years,
)
from bench.processes import PEERS_PYTHON, REPOSITORY, BenchmarkFailed
from bench.recorder import Stage
from bench.recording import RECORDED, record
from bench.report import markdown
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis

DEPTH = 15
"""Rows a side, as the recorder asks for by default."""


@dataclass(frozen=True)
class Size:
    """How much is measured. secs are of one latency run; the slot runs are in seconds of real time."""

    rows: int
    runs: int
    secs: float
    slot_runs: tuple[tuple[float, float], ...]
    turns: int
    archived: int


FULL = Size(
    rows=180_000,
    runs=5,
    secs=5.0,
    slot_runs=((2.0, 60.0), (15.0, 135.0)),
    turns=dagster_run.TURNS_OF_A_SESSION,
    archived=1_000_000,
)
QUICK = Size(rows=36_000, runs=2, secs=2.0, slot_runs=((2.0, 20.0),), turns=60, archived=100_000)


@dataclass
class Benchmark:
    """One run: measures part by part, goes on where a part fails, and remembers that it did."""

    stage: Stage
    size: Size
    quick: bool
    results: dict[str, Any]
    failures: list[str] = field(default_factory=list)

    def take(self, parts: list[str]) -> None:
        for part in parts:
            say(f"{part} ...")
            began = time.monotonic()
            try:
                PARTS[part](self)
            except BenchmarkFailed as failure:
                self.failures.append(f"{part}: {failure}")
                say(f"  FAILED: {failure}")
            say(f"  took {time.monotonic() - began:.0f} s")

    def throughput(self) -> None:
        self.results["throughput"] = throughput.measure(self.stage, self.size.rows, self.size.runs, say)

    def latency(self) -> None:
        self.results["latency"] = latency.measure(self.stage, self.size.secs, self.size.runs, say)

    def lone_row(self) -> None:
        self.results["lone_row"] = latency.steps(self.stage, self.size.secs, say)

    def slots(self) -> None:
        found = [slots.modelled(dwell, 23_400.0) for dwell in (15.0, 2.0)]
        found += [slots.recorded(self.stage, dwell, secs) for dwell, secs in self.size.slot_runs]
        self.results["slots"] = [each.as_json() for each in found]

    def growth(self) -> None:
        self.results["growth"] = growth.measure(self.stage, self.size.rows // 3, self.quick, say)

    def start(self) -> None:
        self.results["start"] = start.measure(self.stage, say)

    def launched(self) -> None:
        self.results["launched"] = whole.launched(self.stage, say)

    def tap(self) -> None:
        self.results["tap"] = tap.measure(self.stage, self.size.secs, self.size.runs, say)

    def flight_recorder(self) -> None:
        rows, size = 3 * FULL.rows, self.size
        found = flight.measure(self.long_stage(rows), rows, size.secs, size.runs, say)
        self.results["flight_recorder"] = found

    def web(self) -> None:
        self.results["web"] = web.measure(self.stage, 2 * self.size.secs, say)

    def whole(self) -> None:
        self.results["whole"] = whole.measure(self.stage, 20.0 if self.quick else 60.0, say)

    def dagster(self) -> None:
        self.results["dagster"] = dagster_run.measure(self.stage, self.size.rows, self.size.runs, say)

    def event_log(self) -> None:
        self.results["event_log"] = dagster_run.event_log(self.stage, self.size.turns, patience=420.0)

    def reading(self) -> None:
        with tempfile.TemporaryDirectory(prefix="reading_", dir=self.stage.folder) as folder:
            self.results["reading"] = {
                "snapshots": self.size.archived,
                "rows": reading.measure(self.stage.tape, Path(folder), self.size.archived, self.size.runs, say),
            }

    def exports(self) -> None:
        with tempfile.TemporaryDirectory(prefix="exports_", dir=self.stage.folder) as folder:
            self.results["exports"] = {
                "snapshots": self.size.archived,
                "rows": exports.measure(self.stage.tape, Path(folder), self.size.archived, self.size.runs, say),
            }

    def years(self) -> None:
        self.results["years"] = years.measure(self.stage, self.size.rows // 3, say)

    def profile(self) -> None:
        self.results["profile"] = profiling.measure(self.long_stage(), FULL.rows)

    def long_stage(self, rows: int = FULL.rows) -> Stage:
        """With a tape of the full form, or a longer one: what shows only after a while needs it in any form."""
        if self.size.rows >= rows:
            return self.stage
        tape = record(rows // len(RECORDED), DEPTH)
        return replace(self.stage, tape=tape, tape_path=tape.save(self.stage.folder / "long_tape"))


PARTS: dict[str, Callable[[Benchmark], None]] = {
    "throughput": Benchmark.throughput,
    "latency": Benchmark.latency,
    "lone_row": Benchmark.lone_row,
    "slots": Benchmark.slots,
    "growth": Benchmark.growth,
    "start": Benchmark.start,
    "launched": Benchmark.launched,
    "tap": Benchmark.tap,
    "flight_recorder": Benchmark.flight_recorder,
    "web": Benchmark.web,
    "whole": Benchmark.whole,
    "dagster": Benchmark.dagster,
    "event_log": Benchmark.event_log,
    "reading": Benchmark.reading,
    "exports": Benchmark.exports,
    "years": Benchmark.years,
    "profile": Benchmark.profile,
}

LONG = frozenset({"web", "whole", "launched", "flight_recorder", "years"})
"""Left out by --quick, unless named: minutes in any form."""


def say(line: str) -> None:
    print(line, flush=True)


def machine(redis: EmbeddedRedis) -> dict[str, Any]:
    """What a reader needs to know of the machine, and nothing that names it."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    with verify.connect(redis.url) as store:
        version = store.info("server")["redis_version"]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "CPU": f"{os.cpu_count()} x {model}",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Redis": version,
        "load before the first measurement (1, 5, 15 minutes)": load,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def write(results: dict[str, Any], folder: Path) -> None:
    """results.json, results.md and results.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    (folder / "results.md").write_text(markdown(results))
    drawing = [str(PEERS_PYTHON), "-m", "bench.plot", str(folder / "results.json"), str(folder / "results.png")]
    subprocess.run(drawing, cwd=REPOSITORY, check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measures the recorder beside limits and peers.")
    parser.add_argument("--quick", action="store_true", help="few rows, two rounds, few points: some minutes")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part; may be repeated")
    parser.add_argument("--runs", type=int, help="rounds of what is measured in rounds (default 5; --quick: 2)")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results", help="where the results go")
    return parser.parse_args()


def command(options: argparse.Namespace) -> str:
    """How to measure this again."""
    words = ["--quick"] if options.quick else []
    words += [f"--only {part}" for part in options.only or ()]
    words += [f"--runs {options.runs}"] if options.runs else []
    return "make bench" + (f" ARGS='{' '.join(words)}'" if words else "")


def main() -> int:
    """0 where every stored book was right and nothing was missing, whatever the speed; else 1."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children end with it
    size = QUICK if options.quick else FULL
    size = replace(size, runs=options.runs or size.runs)
    tape = record(size.rows // len(RECORDED), DEPTH)
    with tempfile.TemporaryDirectory(prefix="ibkr_depth_bench_") as scratch, EmbeddedRedis() as redis:
        folder = Path(scratch)
        stage = Stage(redis, tape, tape.save(folder / "tape"), folder)
        results: dict[str, Any] = {
            "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "command": command(options),
            "machine": machine(redis),
        }
        benchmark = Benchmark(stage, size, options.quick, results)
        began = time.monotonic()
        benchmark.take(options.only or [part for part in PARTS if not (options.quick and part in LONG)])
        say(f"{time.monotonic() - began:.0f} s")
    results["failures"] = benchmark.failures
    write(results, options.results)
    print(markdown(results))
    return 1 if benchmark.failures else 0


if __name__ == "__main__":
    sys.exit(main())
