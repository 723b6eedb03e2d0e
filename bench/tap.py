"""What the tap adds to the delay of a row, from the gateway's socket to the client's; beside no tap, in turn."""

from __future__ import annotations

import socket
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.figures import Measured, percentile
from bench.processes import BenchmarkFailed, Child, module
from bench.recorder import Stage

RATES = (1_000, 10_000)
_PREFIX = 4


def measure(stage: Stage, secs: float, runs: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each rate p50 and p99 in ms without and with the tap, over `runs` rounds. Raises BenchmarkFailed."""
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for number in range(1, runs + 1):
        for rate in RATES:
            for name, tapped in (("no tap", False), ("tap", True)):
                sample = _delays(stage.folder, rate, int(rate * secs), tapped)
                found.setdefault((rate, name), []).append(sample)
                told = f"p50 {sample['p50']:.3f}, p99 {sample['p99']:.3f} ms"
                say(f"  round {number}: {name} at {rate:,} a second: {told}")
    return [
        {"rate": rate, "name": name, **{p: Measured.of([s[p] for s in each]).as_json() for p in ("p50", "p99")}}
        for (rate, name), each in found.items()
    ]


def _delays(folder: Path, rate: int, rows: int, tapped: bool) -> dict[str, float]:
    sent_file = folder / "sent"
    with ExitStack() as stack:
        gateway = stack.enter_context(Child(module("peers.paced_gateway", rows, rate, sent_file)))
        port = int(gateway.said("port"))
        if tapped:
            command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_tap"]
            tape = folder / f"tape-{time.monotonic_ns()}"
            tap = stack.enter_context(Child([*command, "--to", f"127.0.0.1:{port}", "--out", str(tape)]))
            port = int(tap.line().split(b"127.0.0.1:")[1].split()[0])
        arrived = _receive(port, rows)
        gateway.process.wait(20)
        if tapped and (code := tap.stop()):
            raise tap.failed(f"ended with {code}")
    sent = array("q", sent_file.read_bytes())
    warm = int(rate * 0.5)
    ordered = sorted((here - left) / 1e6 for left, here in list(zip(sent, arrived, strict=True))[warm:])
    return {f"p{share}": percentile(ordered, share / 100) for share in (50, 99)}


def _receive(port: int, rows: int) -> array[int]:
    """When each row was here."""
    arrived = array("q")
    with socket.create_connection(("127.0.0.1", port)) as wire:
        offer = b"v100..176"
        wire.sendall(b"API\0" + len(offer).to_bytes(_PREFIX, "big") + offer)
        pending, messages = bytearray(), -1  # the greeting is none of the rows
        while messages < rows:
            data = wire.recv(1 << 16)
            now = time.monotonic_ns()
            if not data:
                raise BenchmarkFailed(f"the connection ended after {messages} of {rows} rows")
            pending += data
            while len(pending) >= _PREFIX and len(pending) >= (end := _PREFIX + int.from_bytes(pending[:4], "big")):
                del pending[:end]
                messages += 1
                if messages > 0:
                    arrived.append(now)
    return arrived
