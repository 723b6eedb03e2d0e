"""What the probe looks like: it fits its terminal, and nothing that a gateway sends can break it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from ibkr_depth_pipeline.probe.render import finished, news, screen
from ibkr_depth_pipeline.probe.report import GatewayNotice, IngestSign, Outcome, ProbeReport, RedisUse, SymbolReport
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
    shown: RenderableType = finished(what, console) if isinstance(what, ProbeReport) else screen(what, console)
    with console.capture() as capture:
        console.print(shown)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [30, 50, 80, 130])
@pytest.mark.parametrize("height", [8, 24, 60])
@pytest.mark.parametrize("count", [1, 3, 10, 200])
def test_the_screen_fits_the_terminal(width: int, height: int, count: int) -> None:
    symbols = tuple(done(f"A{number}") if number % 2 else pending(f"B{number}") for number in range(count))
    lines = drawn(Progress("127.0.0.1:7497", 3.0, symbols), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_where_not_all_symbols_fit_those_under_way_are_shown() -> None:
    symbols = (*(done(f"A{number}") for number in range(30)), pending("LATE"))
    assert any(line.startswith("LATE") for line in drawn(Progress("x", 0.0, symbols)))


def test_ladders_stand_beside_each_other_best_on_top() -> None:
    lines = drawn(report_of(done("AAPL"), done("MSFT")))
    assert lines[0].split() == ["AAPL", "on", "ISLAND", "MSFT", "on", "ISLAND"]
    assert lines[2].split()[:4] == ["100", "1,234.50", "1,235.50", "1,000,000"]


def test_names_of_the_rows_and_codes_have_columns_where_there_is_room() -> None:
    assert not any("Rows name" in line for line in drawn(report_of(done("AAPL")), 80))
    assert any("Rows name" in line for line in drawn(report_of(done("AAPL")), 120))


def test_what_a_gateway_sends_is_text_and_neither_markup_nor_escapes() -> None:
    nasty = SymbolReport("AAPL", Outcome.REFUSED, "[red]no[/] \x1b[2J depth [/nonsense]")
    shown = "\n".join(drawn(report_of(nasty), 120))
    assert "[red]no[/]" in shown
    assert "\x1b" not in shown


def test_the_summary_tells_of_ingest_redis_and_what_the_gateway_said() -> None:
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


def test_news_are_the_lines_that_changed() -> None:
    before = (pending("A"), pending("B"))
    assert list(news(before, (done("A"), pending("B")))) == ["A: ok: 10 bids, 10 asks on ISLAND"]
