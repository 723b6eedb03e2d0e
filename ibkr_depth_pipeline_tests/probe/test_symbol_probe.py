"""The probe of one symbol alone: when it is evaluated, and its outcome."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Instrument, Side
from ibkr_depth_pipeline.probe.report import Outcome
from ibkr_depth_pipeline.probe.symbol_probe import MAX_RESTARTS, Observation, ProbeLimits, SymbolProbe
from ibkr_depth_pipeline.rotation.slots import Slot

LIMITS = ProbeLimits(slots=3, rows=3, full_rows=2, book_cap=15.0, quiet=0.5, retry_pause=8.0, patience=24.0)


def subscribed(*rows: tuple[float, Side, int]) -> SymbolProbe:
    """The probe of a symbol that was subscribed to at 0 and got rows of (second, side, position)."""
    probe = SymbolProbe(Instrument("A", 1, "STK", "USD", "ARCA", "ARCA"))
    seen = Observation("ARCA", LIMITS.rows, LIMITS.full_rows, 0.0)
    probe.requested(Slot(1, "A", 0.0), seen)
    for now, side, position in rows:
        seen.apply(DepthRow(DepthOperation.INSERT, side, position, 10.0, 100.0, ""), now)
    return probe


BOTH = ((1.0, Side.BID, 0), (2.0, Side.ASK, 0))
FULL = (*BOTH, (3.0, Side.BID, 1), (4.0, Side.ASK, 1))


@pytest.mark.parametrize(
    ("rows", "due"),
    [
        ((), LIMITS.book_cap),
        (BOTH[:1], LIMITS.book_cap),
        (BOTH, 2.0 + LIMITS.quiet),
        (FULL, 4.0),
        ((BOTH[0], (14.9, Side.ASK, 0)), LIMITS.book_cap),
    ],
)
def test_symbol_is_evaluated_once_its_book_is_full_or_quiet_or_the_wait_is_over(
    rows: tuple[tuple[float, Side, int], ...], due: float
) -> None:
    assert subscribed(*rows).due(LIMITS) == due


@pytest.mark.parametrize(
    ("rows", "outcome", "reason"),
    [
        (FULL, Outcome.DEPTH, "2 bids, 2 asks on ARCA"),
        (BOTH[:1], Outcome.ONE_SIDED, "1 bids, 0 asks and no more in 15 s"),
        ((), Outcome.SILENT, "no row in 15 s; the gateway sends 2103: broken"),
    ],
)
def test_outcome_depends_on_the_rows_and_trouble_explains_silence_only(
    rows: tuple[tuple[float, Side, int], ...], outcome: Outcome, reason: str
) -> None:
    probe = subscribed(*rows)
    probe.evaluate(LIMITS, "2103: broken", 15.0)
    assert (probe.outcome, probe.reason) == (outcome, reason)


def test_halted_symbol_is_queued_again_until_it_was_halted_too_often() -> None:
    probe = subscribed()
    for _ in range(MAX_RESTARTS):
        probe.halted(316, 1.0)
        assert not probe.is_over
        assert probe.slot is None
    probe.halted(316, 1.0)
    assert probe.outcome is Outcome.HALTED
    assert probe.report(LIMITS.full_rows).codes == (316,)
