"""Seconds from the start of the recorder to its first stored row, for universes of several sizes.

Once with an empty Redis, so that every contract is asked for, and once more with what the run before has found.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import Any

import redis

from bench.processes import Child
from bench.recorder import CLI, Stage, environment
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation import gateway_process

SIZES = (10, 300, 2_000)
_PATIENCE_SECS = 60.0
_LATENCY_SECS = 0.05
_KEPT_SECS = 3.0
"""How long a run goes on after its first row, so that what it found is kept."""


@dataclass(frozen=True)
class Start:
    """Seconds to the first row: of a first run, and of the one after it."""

    symbols: int
    first_secs: float
    again_secs: float


def measure(stage: Stage, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One start of each size. The process itself, its imports included, counts."""
    found = []
    for count in SIZES:
        stage.redis.flush()
        start = Start(count, _secs_to_first_row(stage, count), _secs_to_first_row(stage, count))
        say(f"  {count} symbols: {start.first_secs:.2f} s, again {start.again_secs:.2f} s")
        found.append(asdict(start))
    return found


def symbols_of(count: int) -> list[str]:
    """So many names that the simulated gateway has contracts for."""
    return ["".join(letters) for letters in itertools.islice(itertools.product(ascii_uppercase, repeat=4), count)]


def _secs_to_first_row(stage: Stage, count: int) -> float:
    symbols = symbols_of(count)
    with ExitStack() as stack:
        store = stack.enter_context(redis.Redis.from_url(stage.redis.url))
        _, port = stack.enter_context(gateway_process("--latency", str(_LATENCY_SECS), "--rows-per-second", "50"))
        env = environment(stage, port, symbols)
        before = _rows(store, symbols)
        began = time.monotonic()
        ingest = stack.enter_context(Child(CLI, env, stage.folder))
        while _rows(store, symbols) == before:
            if ingest.process.poll() is not None or time.monotonic() - began > _PATIENCE_SECS:
                raise ingest.failed("stored no row")
            time.sleep(0.01)
        secs = time.monotonic() - began
        time.sleep(_KEPT_SECS)
        if ingest.stop():
            raise ingest.failed("did not end well")
        return secs


def _rows(store: Any, symbols: list[str]) -> int:
    """Of the first symbols in the ring; the others have their turn later."""
    return sum(int(store.xlen(stream_key(symbol))) for symbol in symbols[:3])
