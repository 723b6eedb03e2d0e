"""Numbers of several runs -> what is printed of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One figure over several runs."""

    median: float
    low: float
    high: float
    runs: tuple[float, ...]

    @staticmethod
    def of(values: Sequence[float]) -> Measured:
        return Measured(median(values), min(values), max(values), tuple(values))

    @property
    def spread(self) -> float:
        """How far the extremes are apart, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "spread": self.spread}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of `ordered` (which is sorted) do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, columns aligned so that it reads as it is, numbers to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    right = [all(_is_number(row[at]) for row in cells[1:]) for at in range(len(head))]

    def line(row: Sequence[str]) -> str:
        parts = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return f"| {' | '.join(parts)} |"

    rule = "".join(f"| {'-' * (w - 1)}{':' if r else '-'} " for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text in ("", "-")
