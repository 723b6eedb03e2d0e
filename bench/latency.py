"""From a row's bytes leaving the gateway to its entry, by a blocked XREAD; beside a bare XADD at the same rate."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Measured, percentile
from bench.processes import BenchmarkFailed, Child, module
from bench.recorder import CLI, Stage, environment
from bench.recording import RECORDED

RATES = (1_000, 10_000)
WARM_UP_SECS = 0.5
"""Not counted, at the start of each run."""

RECORDER, BARE_XADD = "this project", "bare XADD to XREAD"

STEPS = (
    "from the gateway's send to the read of the socket",
    "message decoded, book changed, entry packed",
    "flush gathered",
    "socket written",
    "from the begin of the write to the reader",
)

Sample = dict[str, float]


def measure(stage: Stage, secs: float, runs: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each rate and each of WAYS: p50 and p99 in ms, over `runs` rounds. Raises BenchmarkFailed."""
    samples: dict[tuple[int, str], list[Sample]] = {}
    for number in range(1, runs + 1):
        for rate in RATES:
            rows = int(rate * secs) // len(RECORDED) * len(RECORDED)
            for name, way in WAYS.items():
                sample = way(stage, rate, rows)
                samples.setdefault((rate, name), []).append(sample)
                told = f"p50 {sample['p50']:.2f}, p99 {sample['p99']:.2f} ms"
                say(f"  round {number}: {name} at {rate:,} a second: {told}")
    return [
        {"rate": rate, "name": name, **{p: Measured.of([s[p] for s in each]).as_json() for p in ("p50", "p90", "p99")}}
        for (rate, name), each in samples.items()
    ]


def through_recorder(stage: Stage, rate: int, rows: int, command: Sequence[str] = CLI, **settings: object) -> Sample:
    stage.redis.flush()
    sent, seen = stage.folder / "sent", stage.folder / "seen"
    with ExitStack() as stack:
        reader = _reader(stack, stage, rows, seen)
        paced = ("--rate", rate, "--sent-times", sent, "--settle", 1)
        player = stack.enter_context(
            Child(module("player", stage.tape_path, "--symbols", len(RECORDED), "--rows", rows, *paced))
        )
        env = environment(stage, player.said("port"), RECORDED, **settings)
        ingest = stack.enter_context(Child(command, env, stage.folder))
        try:
            player.said("sent")
            reader.said("read", 20.0)
        except BenchmarkFailed as error:
            raise ingest.failed(f"not every row came ({error})") from None
    return delays(sent, seen, rate)


def steps(stage: Stage, secs: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each rate, what a lone row costs step by step: the medians, in microseconds.

    A lone row finds no flush under way and leaves in the turn of the event loop that decoded it.
    """
    found = []
    for rate in RATES:
        file = stage.folder / "steps"
        rows = int(rate * secs) // len(RECORDED) * len(RECORDED)
        sample = through_recorder(stage, rate, rows, module("peers.timed_recorder", file))
        costs = _steps(array("q", file.read_bytes()), stage.folder, int(WARM_UP_SECS * rate))
        say(f"  {rate:,} a second: " + ", ".join(f"{name} {cost:.0f} us" for name, cost in costs.items()))
        found.append({"rate": rate, "p50": sample["p50"], "steps": costs})
    return found


def _steps(noted: array[int], folder: Path, first: int) -> dict[str, float]:
    left = array("q", (folder / "sent").read_bytes())
    here = array("q", (folder / "seen").read_bytes())
    seen = {(seq - 1) * len(RECORDED) + number: when for number, seq, when in batched(here, 3)}
    costs: dict[str, list[int]] = {name: [] for name in STEPS}
    for number, seq, read, rows, began, ended in batched(noted, 6):
        row = (seq - 1) * len(RECORDED) + number
        if row >= first:
            moments = (left[row], read, rows, began, ended)
            for name, before, after in zip(STEPS, moments, moments[1:], strict=False):
                costs[name].append(after - before)
            costs[STEPS[-1]].append(seen[row] - began)
    return {name: median(each) / 1000 for name, each in costs.items() if each}


def batched(numbers: array[int], size: int) -> Iterator[Sequence[int]]:
    """Runs of `size` numbers."""
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


def bare(stage: Stage, rate: int, rows: int) -> Sample:
    stage.redis.flush()
    sent, seen = stage.folder / "sent", stage.folder / "seen"
    with ExitStack() as stack:
        reader = _reader(stack, stage, rows, seen)
        writing = module("peers.bare_writer", stage.tape_path, rows, rate, stage.redis.port, sent)
        stack.enter_context(Child(writing)).said("sent")
        reader.said("read", 20.0)
    return delays(sent, seen, rate)


def shortest(stage: Stage, rate: int, rows: int) -> Sample:
    return through_recorder(stage, rate, rows, module("peers.minimal_recorder"))


WAYS: dict[str, Callable[[Stage, int, int], Sample]] = {
    RECORDER: lambda stage, rate, rows: through_recorder(stage, rate, rows),
    BARE_XADD: bare,
    "shortest asyncio program": shortest,
}


def _reader(stack: ExitStack, stage: Stage, rows: int, seen: Path) -> Child:
    reader = stack.enter_context(Child(module("peers.stream_reader", stage.redis.port, rows, seen, *RECORDED)))
    reader.said("reading")
    return reader


def delays(sent: Path, seen: Path, rate: int) -> Sample:
    """Percentiles in ms. Rows were sent one symbol after the other, so a seq says when its row left.

    Raises BenchmarkFailed where an entry is missing or came twice.
    """
    left, here = array("q", sent.read_bytes()), array("q", seen.read_bytes())
    found: dict[int, int] = {}
    for at in range(0, len(here), 3):
        number, seq, when = here[at : at + 3]
        found[(seq - 1) * len(RECORDED) + number] = when
    if sorted(found) != list(range(len(left))):
        raise BenchmarkFailed(f"of {len(left)} rows sent {len(found)} were read, or others")
    first = int(WARM_UP_SECS * rate)
    ordered = sorted((when - left[row]) / 1e6 for row, when in found.items() if row >= first)
    return {f"p{share}": percentile(ordered, share / 100) for share in (50, 90, 99)}
