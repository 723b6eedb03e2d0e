"""How long it takes from the end of a recorder until its hot standby has a full batch live, and the rows that costs.

.venv/bin/python -m ibkr_depth_pipeline_tests.faults.measure_standby [ROUNDS]

"elsewhere" is a recorder in a PID namespace of its own, as on another host or in another container: its end is known by
its lease alone. That needs root. Rows are lost that the market makes while nobody is subscribed, and that were sent to
the recorder and not stored.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
import psutil
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.schema.keys import heartbeat_key, lease_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.journal import Entry
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.faults.ingest_process import (
    SYMBOLS,
    IngestProcess,
    environment_of,
    grows,
    ingest_process,
)

ROUNDS = 7
RATE = 1000.0
"""Rows a second and symbol."""

ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Case(NamedTuple):
    """What ends the recorder: a signal. wrapper: what it runs in."""

    name: str
    number: signal.Signals
    ttl_secs: float
    wrapper: Sequence[str] = ()


CASES = (
    Case("kill -9, same host", signal.SIGKILL, 5),
    Case("kill -9, elsewhere, lease 2 s", signal.SIGKILL, 2, ELSEWHERE),
    Case("kill -9, elsewhere, lease 3 s", signal.SIGKILL, 3, ELSEWHERE),
    Case("kill -9, elsewhere, lease 5 s", signal.SIGKILL, 5, ELSEWHERE),
    Case("SIGTERM, same host", signal.SIGTERM, 5),
    Case("SIGTERM, elsewhere", signal.SIGTERM, 5, ELSEWHERE),
)


class Outcome(NamedTuple):
    """Seconds until a full batch was live again, the rows of the market in the gap, and those sent and not stored."""

    secs: float
    in_gap: float
    unstored: int


def measure(case: Case) -> Outcome:
    """One round."""
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis() as server:
        with GatewayThread(GatewayOptions(rows_per_second=RATE, keep_rows=False)) as gateway:
            settings = {"ibkr_lease_ttl_secs": case.ttl_secs, "ibkr_standby": "on", "ibkr_rotation_secs": 3600}
            env = environment_of(Path(name), gateway.port, server.url, *SYMBOLS, **settings)
            with ingest_process(Path(name), "recorder", env, case.wrapper) as recorder:
                for symbol in SYMBOLS:
                    grows(server.url, symbol, 500)
                with ingest_process(Path(name), "standby", env) as standby:
                    standby.said("standby_ready")
                    time.sleep(0.1 * (time.time_ns() % 10))  # at any time between two renewals of the lease
                    secs = _until_live(server.url, lambda: _end(recorder, case), standby.pid)
                    for symbol in SYMBOLS:
                        grows(server.url, symbol, 10)
                    standby.process.send(signal.SIGTERM)
                    standby.ended()
            return Outcome(secs, *_lost(server.url, gateway.journal.entries("rows")))


def cost_at_rest(secs: float = 20.0) -> tuple[float, float]:
    """Percent of a core, and MiB of memory (RSS), that a standby takes while it waits."""
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis() as server, GatewayThread(GatewayOptions()) as gateway:
        env = environment_of(Path(name), gateway.port, server.url, *SYMBOLS, ibkr_standby="on", ibkr_lease_ttl_secs=5)
        with ingest_process(Path(name), "recorder", env) as recorder:
            recorder.said("lease_acquired")
            with ingest_process(Path(name), "standby", env) as standby:
                standby.said("standby_ready")
                process = psutil.Process(standby.pid)
                before = process.cpu_times()
                time.sleep(secs)
                after = process.cpu_times()
                used = after.user + after.system - before.user - before.system
                return 100 * used / secs, process.memory_info().rss / 2**20


def _end(recorder: IngestProcess, case: Case) -> None:
    """To the recorder itself: a wrapper passes no signal on."""
    processes = psutil.Process(recorder.pid).children() if case.wrapper else [psutil.Process(recorder.pid)]
    (pid,) = (each.pid for each in processes if each.name() != "sh")
    os.kill(pid, case.number)


def _until_live(url: str, end: Callable[[], None], successor: int) -> float:
    """Seconds from the end until each symbol's heartbeat is one that the successor, by its pid, has written."""
    with redis.Redis.from_url(url) as client:

        def has_lease() -> bool:
            holder = orjson.loads(client.get(lease_key("default")) or b"{}")
            return bool(holder.get("pid") == successor)

        def is_live() -> bool:
            return all(int(beat or 0) >= taken_ms for beat in client.mget(map(heartbeat_key, SYMBOLS)))

        began = time.monotonic()
        end()
        _poll(has_lease)
        taken_ms = time.time_ns() // 1_000_000
        _poll(is_live)
        return time.monotonic() - began


def _poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _lost(url: str, sent: Sequence[Entry]) -> tuple[float, int]:
    """Rows that the market made while nobody was subscribed, and rows that were sent and not stored."""
    in_gap, unstored = 0.0, 0
    with redis.Redis.from_url(url) as client:
        for symbol in SYMBOLS:
            of_symbol = [entry for entry in sent if entry.name == symbol]
            first, second = sorted({entry.connection for entry in of_symbol})
            last_at = max(entry.at for entry in of_symbol if entry.connection == first)
            next_at = min(entry.at for entry in of_symbol if entry.connection == second)
            in_gap += RATE * max(0.0, next_at - last_at)
            stored = client.xrange(stream_key(symbol), max=int(next_at * 1000) - 1)
            sent_first = sum(int(entry.detail["count"]) for entry in of_symbol if entry.connection == first)
            unstored += sent_first - len(stored)
    return in_gap, unstored


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{rounds} rounds each, {len(SYMBOLS)} symbols at {RATE:.0f} rows a second; median (least to most)")
    for case in CASES:
        found = [measure(case) for _ in range(rounds)]
        secs, in_gap, unstored = zip(*found, strict=True)
        rows = f"rows in the gap {_words(in_gap, 0)}, not stored {_words(unstored, 0)}"
        print(f"{case.name:<30} {_words(secs, 2)} s; {rows}", flush=True)
    percent, mebibytes = cost_at_rest()
    print(f"a standby that waits takes {percent:.1f} % of a core and {mebibytes:.0f} MiB")


def _words(values: Sequence[float], digits: int) -> str:
    least, most = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


if __name__ == "__main__":
    main()
