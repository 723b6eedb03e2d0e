"""The recorder itself as a process beside a player: one measured recording of a tape, checked to the last row."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import verify
from bench.processes import PATIENCE_SECS, BenchmarkFailed, Child, module
from bench.tape import Tape
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis

LEVELS = 10
CLI = (sys.executable, "-m", "ibkr_depth_pipeline.cli.ingest_run", "run")
_POLL_SECS = 0.01


@dataclass(frozen=True)
class Stage:
    """What every measurement needs: a Redis, a tape and where it is stored, a scratch folder."""

    redis: EmbeddedRedis
    tape: Tape
    tape_path: Path
    folder: Path


@dataclass(frozen=True)
class Cost:
    """One recording. rate is rows a second from the first byte to the last key; cpu_secs are the recorder's alone."""

    rate: float
    cpu_secs: float
    peak_rss_mb: float
    redis_cpu_secs: float
    redis_bytes: float
    rows: int

    @property
    def cpu_secs_per_million(self) -> float:
        return self.cpu_secs / self.rows * 1e6


def environment(stage: Stage, port: int, symbols: Sequence[str], **settings: object) -> dict[str, str]:
    """The settings of a run, and nothing else of this machine's."""
    universe = stage.folder / "universe.yaml"
    universe.write_text(json.dumps({"symbols": list(symbols)}))
    given = {
        "IBKR_PORT": port,
        "REDIS_URL": stage.redis.url,
        "SYMBOL_CONFIG_PATH": universe,
        "IBKR_ROTATION_SECS": 3600,
        "IBKR_DEPTH_ROWS": min(LEVELS, stage.tape.depth),
        "IBKR_DEPTH_EXTRA_ROWS": max(0, stage.tape.depth - LEVELS),
        "IBKR_STREAM_MAXLEN": 10_000_000,
        "IBKR_LOG_LEVEL": "WARNING",
        "IBKR_STOP_AT_CLOSE": "false",
        **settings,
    }
    return {name: str(value) for name, value in given.items()}


def play(
    stage: Stage,
    universe: Sequence[str],
    rows: int,
    *,
    slots: int = 3,
    command: Sequence[str] = CLI,
    extra: Mapping[str, str] | None = None,
    stopped_well: int | None = 0,
    on_start: Callable[[int], None] = lambda pid: None,
    **settings: object,
) -> Cost:
    """Record `rows` rows in all of the first `slots` symbols of `universe`. Raises BenchmarkFailed for a wrong book.

    stopped_well is the exit code that a SIGTERM is to lead to; None: any. on_start gets the recorder's pid.
    """
    stage.redis.flush()
    with ExitStack() as stack:
        store = stack.enter_context(verify.connect(stage.redis.url))
        player = stack.enter_context(
            Child(module("player", stage.tape_path, "--symbols", slots, "--rows", rows), cwd=None)
        )
        settings = {"IBKR_MAX_CONCURRENT_DEPTH": slots, **settings}
        env = environment(stage, player.said("port"), universe, **settings)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=stage.folder)))
        ingest = stack.enter_context(Child(command, {**env, **(extra or {})}, scratch))
        started = _wait_for_start(player, ingest)
        on_start(ingest.process.pid)
        before, redis_before = ingest.cpu_secs(), _redis_cpu(store)
        used = float(store.info("memory")["used_memory_dataset"])
        each = rows // slots
        symbols = list(universe[:slots])
        finished = _wait_for_end(store, ingest, symbols, each * slots)
        cost = Cost(
            rate=each * slots / (finished - started) * 1e9,
            cpu_secs=ingest.cpu_secs() - before,
            peak_rss_mb=ingest.peak_rss_mb(),
            redis_cpu_secs=_redis_cpu(store) - redis_before,
            redis_bytes=float(store.info("memory")["used_memory_dataset"]) - used,
            rows=each * slots,
        )
        if stopped_well not in (None, code := ingest.stop()):
            raise ingest.failed(f"ended with {code} after SIGTERM")
        wrong = verify.faults(store, stage.tape, symbols, each, trimmed="IBKR_STREAM_MAXLEN" in settings)
        if wrong:
            raise BenchmarkFailed("what is stored is wrong: " + "; ".join(wrong))
        return cost


def _wait_for_start(player: Child, ingest: Child) -> int:
    deadline = time.monotonic() + PATIENCE_SECS
    while True:
        try:
            return int(player.said("started", 1.0))
        except BenchmarkFailed:
            if ingest.process.poll() is not None or time.monotonic() > deadline:
                raise ingest.failed("never subscribed") from None


def _wait_for_end(store: object, ingest: Child, symbols: Sequence[str], rows: int) -> int:
    """When the last hash was written; it follows the stream."""
    seen, since = -1, time.monotonic()
    while (stored := verify.stored_rows(store, symbols)) < rows:
        if stored != seen:
            seen, since = stored, time.monotonic()
        if ingest.process.poll() is not None or time.monotonic() - since > PATIENCE_SECS / 6:
            raise ingest.failed(f"stored {stored} of {rows} rows and no more")
        time.sleep(_POLL_SECS)
    return time.monotonic_ns()


def _redis_cpu(store: object) -> float:
    times = store.info("cpu")  # type: ignore[attr-defined]
    return float(times["used_cpu_user"] + times["used_cpu_sys"])
