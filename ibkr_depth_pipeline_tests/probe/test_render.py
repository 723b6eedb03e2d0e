"""The probe on a terminal: it fits, and no text of a gateway breaks it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from ibkr_depth_pipeline.probe.gateway_notices import GatewayNotice
from ibkr_depth_pipeline.probe.render import changes, final_view, live_view
from ibkr_depth_pipeline.probe.report import IngestSign, Outcome, ProbeReport, RedisUse, SymbolReport
from ibkr_depth_pipeline.probe.session import Progress

BIDS = tuple((1234.5 - level, 100.0, "NSDQ") for level in range(10))
ASKS = tuple((1235.5 + level, 1_000_000.0, "NSDQ") for level in range(10))


def done(symbol: str) -> SymbolReport:
    return SymbolReport(
        symbol,
        Outcome.DEPTH,
        "10 bids, 10 asks on ISLAND",
        venue_requested="ISLAND",
        venues_granted=("NSDQ",),
        l2=True,
        bids=BIDS,
        asks=ASKS,
        first_row_secs=0.5,
    )


def pending(symbol: str) -> SymbolReport:
    return SymbolReport(symbol, Outcome.PENDING, "subscribed on ISLAND, waits for the first row " * 3)


def report_of(*symbols: SymbolReport, **given: object) -> ProbeReport:
    return ProbeReport(0, 1, "127.0.0.1", 7497, 787, symbols, **given)  # type: ignore[arg-type]


def drawn(what: ProbeReport | Progress, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    shown: RenderableType = final_view(what, console) if isinstance(what, ProbeReport) else live_view(what, console)
    with console.capture() as capture:
        console.print(shown)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [30, 50, 80, 130])
@pytest.mark.parametrize("height", [8, 24, 60])
@pytest.mark.parametrize("count", [1, 3, 10, 200])
def test_live_view_fits_the_terminal(width: int, height: int, count: int) -> None:
    symbols = tuple(done(f"A{number}") if number % 2 else pending(f"B{number}") for number in range(count))
    lines = drawn(Progress("127.0.0.1:7497", 3.0, symbols), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_symbols_in_progress_are_shown_if_not_all_fit() -> None:
    symbols = (*(done(f"A{number}") for number in range(30)), pending("LATE"))
    assert any(line.startswith("LATE") for line in drawn(Progress("x", 0.0, symbols)))


def test_ladders_stand_beside_each_other_best_on_top() -> None:
    lines = drawn(report_of(done("AAPL"), done("MSFT")))
    assert lines[0].split() == ["AAPL", "on", "ISLAND", "MSFT", "on", "ISLAND"]
    assert lines[2].split()[:4] == ["100", "1,234.50", "1,235.50", "1,000,000"]


def test_wide_table_has_columns_for_market_makers_and_codes() -> None:
    assert not any("Rows name" in line for line in drawn(report_of(done("AAPL")), 80))
    assert any("Rows name" in line for line in drawn(report_of(done("AAPL")), 120))


def test_text_of_a_gateway_is_rendered_without_markup_and_escapes() -> None:
    nasty = SymbolReport("AAPL", Outcome.REFUSED, "[red]no[/] \x1b[2J depth [/nonsense]")
    shown = "\n".join(drawn(report_of(nasty), 120))
    assert "[red]no[/]" in shown
    assert "\x1b" not in shown


def test_summary_names_ingest_redis_and_notices() -> None:
    report = report_of(
        done("AAPL"),
        ingest=IngestSign({"SPY": 1_000, "QQQ": 4_000}, 5_000),
        redis=RedisUse.UNAVAILABLE,
        redis_error="Redis at redis://localhost: away.",
        notices=(GatewayNotice(2152, "permissions"),),
    )
    shown = "\n".join(drawn(report, 200))
    assert "an ingest is running (heartbeats of QQQ, SPY; the last row 1 s ago)" in shown
    assert "warning: Redis at redis://localhost: away; venues were not recorded" in shown
    assert "2152: permissions" in shown


def test_changes_are_the_lines_of_symbols_whose_verdict_changed() -> None:
    before = (pending("A"), pending("B"))
    assert list(changes(before, (done("A"), pending("B")))) == ["A: ok: 10 bids, 10 asks on ISLAND"]
