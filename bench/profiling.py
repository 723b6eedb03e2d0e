"""Where the recorder's time goes at full speed: py-spy, which samples from outside and slows nothing down."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.processes import PEERS_PYTHON, BenchmarkFailed
from bench.recorder import Stage, play
from bench.recording import RECORDED

_SAMPLES_A_SECOND = 400
_SHOWN = 40
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^:)]+)(?::(?P<line>\d+))?\)")


def measure(stage: Stage, rows: int) -> dict[str, Any]:
    """The functions with the most time of their own, and with the most time in all, as shares of the samples.

    It is attached when the first byte leaves the gateway; only what runs in the event loop is counted. Raises
    BenchmarkFailed.
    """
    folded = stage.folder / "profile.folded"
    command = [str(PEERS_PYTHON.parent / "py-spy"), "record", "--rate", str(_SAMPLES_A_SECOND), "--format", "raw"]
    with ExitStack() as stack:

        def attach(pid: int) -> None:  # it ends with the recorder
            arguments = [*command, "--duration", "600", "--output", str(folded), "--pid", str(pid)]
            spy = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(_end, spy)

        cost = play(stage, RECORDED, rows, on_start=attach)
    if not folded.exists():
        raise BenchmarkFailed("py-spy wrote no profile; it needs the right to trace a process")
    return {"rate_while_sampled": cost.rate, **summary(folded.read_text().splitlines())}


def _end(spy: subprocess.Popen[bytes]) -> None:
    try:
        spy.wait(60)
    except subprocess.TimeoutExpired:
        spy.kill()
        spy.wait()


def summary(stacks: Sequence[str]) -> dict[str, Any]:
    """Of py-spy's raw lines `outer;...;inner COUNT`."""
    own: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        named = [_named(frame) for frame in frames.split(";")]
        loop = next((at for at, (name, _) in enumerate(named) if "._run_once (" in name), None)
        if loop is None:
            continue
        del named[:loop]
        samples += int(count)
        own[named[-1][0]] += int(count)
        lines[f"{named[-1][0]}:{named[-1][1]}"] += int(count)
        for name in {name for name, _ in named}:
            total[name] += int(count)
    counted = {"own": own, "total": total, "lines": lines}
    return {"samples": samples, **{name: _shares(counts, samples) for name, counts in counted.items()}}


def _named(frame: str) -> tuple[str, str]:
    match = _FRAME.fullmatch(frame)
    if match is None:
        return frame, ""
    path = Path(match["file"])
    return f"{match['function']} ({path.parent.name}/{path.name})", match["line"] or ""


def _shares(counts: Counter[str], samples: int) -> list[tuple[str, float]]:
    return [(name, count / max(1, samples)) for name, count in counts.most_common(_SHOWN)]
