"""Draws results.json: `.venv-bench/bin/python -m bench.plot results.json results.png`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found]

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # type: ignore[import-not-found]


def throughput(axes: Any, rows: list[Any]) -> None:
    names = [row["name"] for row in rows][::-1]
    rates = [row["rate"] for row in rows][::-1]
    medians = [rate["median"] for rate in rates]
    spread = [[r["median"] - r["low"] for r in rates], [r["high"] - r["median"] for r in rates]]
    axes.barh(names, medians, xerr=spread, color=["#888"] * (len(names) - 1) + ["#2a6"])
    axes.set_xlabel("rows a second")
    axes.set_title("Throughput: median, lowest and highest")


def latency(axes: Any, rows: list[Any]) -> None:
    labels = [f"{row['name']}\n{row['rate']:,}/s" for row in rows]
    for at, percentile in enumerate(("p50", "p90", "p99")):
        places = [number + (at - 1) * 0.25 for number in range(len(rows))]
        axes.bar(places, [row[percentile]["median"] for row in rows], width=0.25, label=percentile)
    axes.set_xticks(range(len(rows)), labels, fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("ms")
    axes.legend()
    axes.set_title("Latency, gateway to a blocked XREAD")


def slots(axes: Any, row: Any) -> None:
    symbols = list(dict.fromkeys(symbol for symbol, _, _ in row["timeline"]))
    for symbol, start, end in row["timeline"]:
        axes.broken_barh([(start, end - start)], (symbols.index(symbol) - 0.4, 0.8), color="#26a")
    axes.set_yticks(range(len(symbols)), symbols)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(f"Live books, dwell {row['dwell']:g} s ({row['how']})")


def main(source: Path, target: Path) -> None:
    results = json.loads(source.read_text())
    figure, axes = plt.subplots(3, 1, figsize=(10, 15))
    if "throughput" in results:
        throughput(axes[0], results["throughput"])
    if "latency" in results:
        latency(axes[1], results["latency"])
    if "slots" in results:
        slots(axes[2], results["slots"][-1])
    figure.tight_layout()
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
