"""How speed and cost grow with slots, symbols, MAXLEN, depth and what is kept beside the snapshots (0: off, 1: on).

Each point is one whole, checked recording.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.recorder import Cost, Stage, play
from bench.recording import RECORDED, record

POINTS: dict[str, tuple[int, ...]] = {
    "slots": (1, 3, 10, 30, 60),
    "symbols": (11, 100, 500, 2_000),
    "MAXLEN": (10, 1_000, 10_000, 1_000_000),
    "depth rows": (5, 10, 15, 20),
    "recv_ns": (0, 1),
    "rows kept": (0, 1),
}
FEW_POINTS: dict[str, tuple[int, ...]] = {
    "slots": (1, 60),
    "symbols": (11, 100),
    "MAXLEN": (10, 1_000_000),
    "depth rows": (5, 20),
    "recv_ns": (0, 1),
    "rows kept": (0, 1),
}


def measure(stage: Stage, rows: int, quick: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each point. Raises BenchmarkFailed."""
    found = []
    for what, values in (FEW_POINTS if quick else POINTS).items():
        for value in values:
            found.append(_row(what, value, _POINT[what](stage, rows, value)))
            say(f"  {what} {value:,}: {found[-1]['rate']:,.0f} rows a second")
    return found


def symbols(count: int) -> list[str]:
    """So many names that the simulated gateway makes up a contract for."""
    letters = itertools.product(string.ascii_uppercase[:25], repeat=4)
    return ["".join(each) for each in itertools.islice(letters, count)]


def _of_slots(stage: Stage, rows: int, slots: int) -> Cost:
    return play(stage, symbols(slots), rows // slots * slots, slots=slots)


def _of_symbols(stage: Stage, rows: int, count: int) -> Cost:
    return play(stage, symbols(count), rows)


def _of_maxlen(stage: Stage, rows: int, maxlen: int) -> Cost:
    return play(stage, RECORDED, rows, IBKR_STREAM_MAXLEN=maxlen)


def _of_depth(stage: Stage, rows: int, depth: int) -> Cost:
    tape = record(rows // len(RECORDED), depth)
    own = replace(stage, tape=tape, tape_path=tape.save(stage.folder / f"tape-{depth}"))
    return play(own, RECORDED, rows)


def _of_recv_ns(stage: Stage, rows: int, value: int) -> Cost:
    return play(stage, RECORDED, rows, IBKR_STREAM_RECV_NS=bool(value))


def _of_kept_rows(stage: Stage, rows: int, value: int) -> Cost:
    return play(stage, RECORDED, rows, IBKR_STREAM_ROWS=bool(value))


_POINT = {
    **{"slots": _of_slots, "symbols": _of_symbols, "MAXLEN": _of_maxlen, "depth rows": _of_depth},
    **{"recv_ns": _of_recv_ns, "rows kept": _of_kept_rows},
}


def _row(what: str, value: int, cost: Cost) -> dict[str, Any]:
    return {
        "what": what,
        "value": value,
        "rate": cost.rate,
        "cpu": cost.cpu_secs_per_million,
        "rss_mb": cost.peak_rss_mb,
        "redis_bytes": cost.redis_bytes,
        "rows": cost.rows,
    }
