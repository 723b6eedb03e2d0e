"""What is logged of a flood."""

from __future__ import annotations

from ibkr_depth_pipeline.line_budget import LINES_A_CYCLE, LineBudget


def test_event_has_its_own_budget_and_suppressed_lines_are_counted() -> None:
    budget = LineBudget()
    assert sum(budget.spend("gateway_notice") for _ in range(LINES_A_CYCLE + 7)) == LINES_A_CYCLE
    assert budget.spend("connection_lost")
    assert budget.renew() == {"gateway_notice": 7}
    assert budget.spend("gateway_notice")
    assert budget.renew() == {}
