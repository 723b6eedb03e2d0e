"""What the tests of the wiring share: a plan, an instrument, a row, and looks at effects."""

from __future__ import annotations

from typing import TypeVar

from ibkr_depth_pipeline.ingest import effects as do
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Instrument, Side
from ibkr_depth_pipeline.rotation.events import RotationPlan

T = TypeVar("T")
PLAN = RotationPlan(max_batch=3, dwell=15, first_row_cap=15, cooldown=8, recovery_turns=4, unsupported_retry=3600)


def instrument(symbol: str) -> Instrument:
    return Instrument(symbol, 1, "STK", "USD", "ARCA", "ARCA", ("ARCA",))


def insert() -> DepthRow:
    return DepthRow(DepthOperation.INSERT, Side.BID, 0, 10.0, 100.0, "")


def of_kind(effects: list[do.Effect], kind: type[T]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


def said(effects: list[do.Effect]) -> list[str]:
    return [effect.event for effect in of_kind(effects, do.LogLine)]
