"""Rows a second: this project, the limits of its parts, and others, interleaved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bench.figures import Measured
from bench.processes import PEERS_PYTHON, BenchmarkFailed, Child, module
from bench.recorder import Stage, play
from bench.recording import RECORDED
from bench.tape import SHOWN, Tape, books

THIS = "this project, wire to Redis"
REDIS_LIMITS = ("redis-benchmark, the same XADD", "Redis, the same XADDs sent packed")
BARE = "bare ib_insync, no Redis"
PLAIN = "plain design, every row"
CRYPTOFEED = "cryptofeed BookStream, writer only"

Sample = dict[str, Any]


def measure(stage: Stage, rows: int, runs: int, say: Callable[[str], None]) -> list[Sample]:
    """One row of the table for each contender: its rate over `runs` rounds. Raises BenchmarkFailed."""
    samples: dict[str, list[Sample]] = {}
    for number in range(1, runs + 1):
        for name, contender in contenders(stage, rows).items():
            sample = contender()
            samples.setdefault(name, []).append(sample)
            say(f"  round {number}: {name}: {sample['rate']:,.0f} a second")
    return [_row(name, each) for name, each in samples.items()]


def contenders(stage: Stage, rows: int) -> dict[str, Callable[[], Sample]]:
    """Name -> one measurement. The slow ones get fewer rows, for about the same time."""
    few = max(3_000, rows // 6 // 3 * 3)
    found: dict[str, Callable[[], Sample]] = {THIS: lambda: this_project(stage, rows)}
    if shutil.which("redis-benchmark"):
        found[REDIS_LIMITS[0]] = lambda: redis_benchmark(stage, rows)
    found[REDIS_LIMITS[1]] = lambda: writer(stage, "redis_limit", rows, sys.executable)
    found[BARE] = lambda: wire_client(stage, "ib_insync", rows, sys.executable)
    found["ib_async, no Redis"] = lambda: wire_client(stage, "ib_async", rows, str(PEERS_PYTHON))
    found["ibapi, no Redis, no book"] = lambda: wire_client(stage, "ibapi", rows, str(PEERS_PYTHON))
    found[PLAIN] = lambda: plain_design(stage, few)
    found[CRYPTOFEED] = lambda: writer(stage, "cryptofeed_writer", few, str(PEERS_PYTHON))
    return found


def this_project(stage: Stage, rows: int) -> Sample:
    """Every row mirrored and checked."""
    cost = play(stage, RECORDED, rows)
    return {
        "rate": cost.rate,
        "cpu": cost.cpu_secs_per_million,
        "rss_mb": cost.peak_rss_mb,
        "bytes": cost.redis_bytes / cost.rows,
        "redis_cpu": cost.redis_cpu_secs / cost.rows * 1e6,
        "books": "every entry's seq, one book in 50, final",
    }


def wire_client(stage: Stage, library: str, rows: int, python: str) -> Sample:
    with Child(module("player", stage.tape_path, "--symbols", len(RECORDED), "--rows", rows)) as player:
        arguments = (library, player.said("port"), rows, stage.tape.depth, *RECORDED)
        with Child(module("peers.wire_clients", *arguments, python=python)) as peer:
            started = _started(player, peer)
            told = peer.line_with("finished")
    right = final_books_right(stage.tape, told["books"], rows)
    return {
        "rate": rows / (told["finished"] - started) * 1e9,
        "cpu": told["cpu_secs"] / rows * 1e6,
        "books": ("final" if right else "final WRONG") if told["books"] else "-",
    }


def _started(player: Child, peer: Child) -> int:
    try:
        return int(player.said("started"))
    except BenchmarkFailed as error:
        raise peer.failed(f"never subscribed ({error})") from None


def final_books_right(tape: Tape, held: list[Any], rows: int) -> bool:
    """Whether a peer's own books end as the model's do."""
    for number, (bids, asks) in enumerate(held):
        *_, (wanted_bids, wanted_asks) = books(tape.stream(number, rows // len(held)), tape.depth, "ISLAND")
        if (_padded(bids), _padded(asks)) != (wanted_bids, wanted_asks):
            return False
    return True


def _padded(side: list[Any]) -> list[Any]:
    return (side + [[0.0, 0.0, ""]] * SHOWN)[:SHOWN]


def plain_design(stage: Stage, rows: int) -> Sample:
    stage.redis.flush()
    with Child(module("player", stage.tape_path, "--symbols", len(RECORDED), "--rows", rows)) as player:
        arguments = (player.said("port"), rows, stage.tape.depth, stage.redis.url, *RECORDED)
        with Child(module("peers.plain_design", *arguments)) as peer:
            started = _started(player, peer)
            told = peer.line_with("finished")
    return {
        "rate": rows / (told["finished"] - started) * 1e9,
        "cpu": told["cpu_secs"] / rows * 1e6,
        "books": f"{told['stored']} of {rows} rows stored",
    }


def writer(stage: Stage, name: str, rows: int, python: str) -> Sample:
    stage.redis.flush()
    with Child(module(f"peers.{name}", stage.tape_path, rows, stage.redis.port, python=python)) as peer:
        told = peer.line_with("finished")
    cpu = {"cpu": told["cpu_secs"] / rows * 1e6} if "cpu_secs" in told else {}
    return {"rate": rows / (told["finished"] - told["started"]) * 1e9, "books": "-", **cpu}


def redis_benchmark(stage: Stage, rows: int) -> Sample:
    """One entry of the tape's size, again and again, under ids that Redis chooses."""
    stage.redis.flush()
    *_, (bids, asks) = books(stage.tape.stream(0, 1000), stage.tape.depth, "ISLAND")
    entry = ("ts", "1700000000000", "bids", _compact(bids), "asks", _compact(asks), "seq", "1000", "venue", "ISLAND")
    command = ["redis-benchmark", "-p", str(stage.redis.port), "-c", "1", "-P", "512", "-n", str(rows), "--csv"]
    command += ["XADD", "bench", "MAXLEN", "~", "10000000", "*", *entry]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    try:
        rate = float(done.stdout.splitlines()[-1].split('","')[1])
    except (IndexError, ValueError):
        raise BenchmarkFailed(f"redis-benchmark says {done.stdout[-300:]} {done.stderr[-300:]}") from None
    return {"rate": rate, "books": "-"}


def _compact(side: list[Any]) -> str:
    return json.dumps(side, separators=(",", ":"))


def _row(name: str, samples: list[Sample]) -> Sample:
    rows: Sample = {"name": name, "books": samples[-1]["books"]}
    for figure in ("rate", "cpu", "rss_mb", "bytes", "redis_cpu"):
        if figure in samples[0]:
            rows[figure] = Measured.of([sample[figure] for sample in samples]).as_json()
    return rows
