"""When each symbol had rows: the last minutes in steps, learned from the stream a span at a time. Pure."""

from __future__ import annotations

from collections.abc import Sequence

STEP_MS = 2_000
WINDOW_MS = 300_000
_GRACE_MS = 1_000  # for rows on their way to Redis

Span = tuple[str, int, int]


class Coverage:
    """Which of the last five minutes' steps of two seconds held a row of a symbol. Times are unix ms."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, bool]] = {}

    def wanted(self, symbols: Sequence[str], now_ms: int) -> list[Span]:
        """The spans that are over and not known yet. Ask whether a row stands in each, and `learn` it."""
        last = (now_ms - _GRACE_MS) // STEP_MS
        steps = range(last - WINDOW_MS // STEP_MS, last)
        return [
            (symbol, step * STEP_MS, (step + 1) * STEP_MS)
            for symbol in symbols
            for step in steps
            if step not in self._steps.get(symbol, {})
        ]

    def learn(self, spans: Sequence[Span], held: Sequence[bool], oldest: dict[str, int]) -> None:
        """What was found in `spans`. Before a symbol's `oldest` ts, where its stream now begins, nothing is known."""
        for (symbol, start, _), row in zip(spans, held, strict=True):
            known = symbol in oldest and start + STEP_MS > oldest[symbol]
            if known:
                self._steps.setdefault(symbol, {})[start // STEP_MS] = row
        for symbol, steps in self._steps.items():
            newest = max(steps, default=0)
            self._steps[symbol] = {step: row for step, row in steps.items() if step > newest - WINDOW_MS // STEP_MS}

    def share(self, symbol: str) -> float | None:
        """From 0 to 1; None where nothing is known yet."""
        steps = self._steps.get(symbol)
        return sum(steps.values()) / len(steps) if steps else None
