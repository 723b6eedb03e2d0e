"""A line that dies without a word while others tick: no heartbeat, asked for again; its neighbours are left alone."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline_tests.faults.recovery import Trial, stopwatch, trial

QUICK = {"ibkr_silent_line_secs": 1, "ibkr_first_row_secs": 2}
"""Everything is fifteen times as fast as for an operator."""


def asked(run: Trial, symbol: str) -> int:
    """How often the gateway was asked for the symbol's depth."""
    return sum(request.detail["symbol"] == symbol for request in run.gateway.journal.requests("reqMktDepth"))


@pytest.mark.parametrize("rows", [5, 300])
async def test_line_that_dies_while_others_tick_is_asked_for_again(shared_redis_url: str, rows: int) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", **QUICK) as run:
        await run.fresh(rows)
        run.gateway.die("SPY")

        async def asked_again() -> bool:
            return asked(run, "SPY") == 2

        with stopwatch("a line that died without a word, with IBKR_SILENT_LINE_SECS=1"):
            await run.run.until(asked_again)
            await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 1
    assert (asked(run, "QQQ"), asked(run, "IWM")) == (1, 1)
    assert {line["symbol"] for line in run.said("line_silent")} <= {"SPY"}


async def test_line_that_stays_silent_has_no_heartbeat_and_is_asked_for_ever_more_rarely(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", **QUICK) as run:
        await run.fresh(300)
        run.gateway.die_on_subscribe("SPY", 1)
        run.gateway.die("SPY")

        async def named() -> bool:
            return bool(run.said("line_silent"))

        await run.run.until(named)
        beats = len(run.said("heartbeats"))

        async def beaten() -> bool:
            return len(run.said("heartbeats")) > beats

        await run.run.until(beaten)
        assert "SPY" not in run.said("heartbeats")[-1]["symbols"]

        with stopwatch("a line that was accepted and silent, with IBKR_FIRST_ROW_SECS=2"):
            await run.fresh()
        await run.right()
    assert asked(run, "SPY") == 3
    assert (asked(run, "QQQ"), asked(run, "IWM")) == (1, 1)
    assert [line["symbol"] for line in run.said("line_silent")] == ["SPY"] * 2


async def test_quiet_market_and_a_quiet_symbol_are_no_fault(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", **QUICK) as run:
        run.gateway.set_rate(2.0, "IWM")
        await run.run.grows("SPY", 1000)
        await run.run.grows("QQQ", 1000)
        run.gateway.set_rate(0.0)
        beats = len(run.said("heartbeats")) + 12  # each takes a quarter of a second

        async def beaten() -> bool:
            return len(run.said("heartbeats")) >= beats

        await run.run.until(beaten)
        assert run.said("heartbeats")[-1]["symbols"] == ["IWM", "QQQ", "SPY"]
    assert run.said("line_silent") == []
    assert [asked(run, symbol) for symbol in run.symbols] == [1, 1, 1]
