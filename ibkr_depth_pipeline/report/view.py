"""What the page shows, in the order in which it stands there: texts and charts, nothing left to count. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from ibkr_depth_pipeline.report import charts
from ibkr_depth_pipeline.report.bins import Array, Bins
from ibkr_depth_pipeline.report.charts import Chart, Key, Lane, Shape
from ibkr_depth_pipeline.report.day import RecordedDay
from ibkr_depth_pipeline.report.depth_map import DepthMap
from ibkr_depth_pipeline.report.ingest_day import CONNECTED, DISCONNECTED, SUSPENDED, Event, IngestDay
from ibkr_depth_pipeline.report.scales import Scale, Tick, clock, decades, duration, from_zero, number, time_ticks
from ibkr_depth_pipeline.report.symbol_day import SymbolDay
from ibkr_depth_pipeline.report.tables import HoleRow, RunRow, SymbolRow, hole_row, run_row, symbol_row

MOST_HOLES = 200
_STATES = ((CONNECTED, "good"), (SUSPENDED, "warn"), (DISCONNECTED, "bad"))


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the numbers at the top, and what it is."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class HeldPicture:
    """Who held a slot when; names are from top to bottom, each with its share of the window."""

    picture: str
    rows: Sequence[tuple[str, str]]
    with_slots: bool


@dataclass(frozen=True, slots=True)
class IngestView:
    """An ingest's own story; no lag chart where nothing was written to Redis."""

    name: str
    lanes: Sequence[Lane]
    lag: Chart | None
    runs: Sequence[RunRow]


@dataclass(frozen=True, slots=True)
class DepthView:
    """The two charts of a symbol's book."""

    symbol: str
    charts: Sequence[Chart]


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page."""

    heading: str
    day: str
    archive: str
    covered: str
    made: str
    bins: Bins
    step: str
    times: Sequence[Tick]
    marks: Sequence[Tick]
    facts: Sequence[Fact]
    symbols: Sequence[SymbolRow]
    held: HeldPicture
    rates: Chart
    ingests: Sequence[IngestView]
    depth: Sequence[DepthView]
    holes: Sequence[HoleRow]
    more_holes: int


def page_view(day: RecordedDay, made: datetime) -> PageView:
    """`made` is when the page is written."""
    times, marks = time_ticks(day.bins), _marks(day)
    missing = {symbol.symbol: 0 for symbol in day.symbols}
    for hole in day.holes:
        missing[hole.symbol] += hole.size
    return PageView(
        heading=f"{day.day:%A}, {day.day.day} {day.day:%B %Y}",
        day=day.day.isoformat(),
        archive=day.archive,
        covered=_covered(day),
        made=made.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        bins=day.bins,
        step=duration(day.bins.step).replace(".0 s", " s").replace(" 00 s", ""),
        times=times,
        marks=marks,
        facts=list(_facts(day)),
        symbols=[symbol_row(symbol, missing[symbol.symbol], day.bins) for symbol in day.symbols],
        held=_held(day),
        rates=_rates(day, times, marks),
        ingests=[_ingest_view(ingest, day.bins, times, marks) for ingest in day.ingests],
        depth=[_depth_view(depth, day, times, marks) for depth in day.depth],
        holes=[hole_row(hole) for hole in day.holes[:MOST_HOLES]],
        more_holes=max(0, len(day.holes) - MOST_HOLES),
    )


def _covered(day: RecordedDay) -> str:
    until = f"{clock(day.window.start)} to {clock(day.window.end)} UTC"
    if day.session is not None:
        return f"the session of {day.calendar}, {until}"
    return f"what was recorded, {until}"


def _marks(day: RecordedDay) -> list[Tick]:
    if day.session is None:
        return []
    inside = ((day.session[0], "open"), (day.session[1], "close"))
    return [charts.mark(day.bins, ts, label) for ts, label in inside if day.bins.start < ts < day.bins.end]


def _facts(day: RecordedDay) -> Iterator[Fact]:
    rates = _total_rates(day)
    seconds = (day.window.end - day.window.start) / 1000
    missing = sum(hole.size for hole in day.holes)
    yield Fact(number(day.snapshots), "snapshots", f"of {len(day.symbols)} symbols")
    yield Fact(number(round(day.snapshots / seconds, 1)), "rows a second", f"at most {number(round(rates.max(), 1))}")
    yield Fact(f"{day.coverage:.1%}", "coverage", "mean of the symbols")
    yield Fact(number(missing), "missing snapshots", f"in {len(day.holes)} holes")
    if not day.ingests:
        yield Fact("unknown", "309s, reconnects, latency", "no figures were kept")
        return
    refused, again = (sum(event.many for ingest in day.ingests for event in _events_of(ingest, name)) for name in _TOLD)
    lost = sum(event.many for ingest in day.ingests for event in ingest.lost)
    yield Fact(number(refused), "errors 309", "slots refused")
    yield Fact(number(again), "reconnects", f"{number(lost)} snapshots lost")
    lags = np.concatenate([ingest.lag_p99 for ingest in day.ingests])
    if not np.all(np.isnan(lags)):
        usual, worst = float(np.nanmedian(lags)), float(np.nanmax(lags))
        yield Fact(duration(usual), "latency p99, usually", f"at worst {duration(worst)}")


_TOLD = ("refused_309", "reconnects")


def _events_of(ingest: IngestDay, name: str) -> Sequence[Event]:
    return ingest.refused_309 if name == "refused_309" else ingest.reconnects


def _held(day: RecordedDay) -> HeldPicture:
    nobody = np.zeros(day.bins.count)
    held = [sum((each.held_ms.get(symbol.symbol, nobody) for each in day.ingests), nobody) for symbol in day.symbols]
    picture = charts.held_picture([symbol.live_ms for symbol in day.symbols], held, day.bins.step)
    return HeldPicture(
        picture, [(symbol.symbol, f"{symbol.coverage:.1%}") for symbol in day.symbols], bool(day.ingests)
    )


def _total_rates(day: RecordedDay) -> Array:
    total: Array = np.sum([symbol.rows for symbol in day.symbols], axis=0) / (day.bins.step / 1000)
    return total


def _rates(day: RecordedDay, times: Sequence[Tick], marks: Sequence[Tick]) -> Chart:
    rates = _total_rates(day)
    scale = from_zero(rates)
    shapes = [Shape(charts.steps(rates, scale), "area")]
    return Chart("Rows a second", "all symbols", times, scale.ticks(), shapes, marks=marks)


def _ingest_view(ingest: IngestDay, bins: Bins, times: Sequence[Tick], marks: Sequence[Tick]) -> IngestView:
    return IngestView(
        ingest.name, list(_lanes(ingest, bins)), _lag(ingest, times, marks), [run_row(run) for run in ingest.runs]
    )


def _lanes(ingest: IngestDay, bins: Bins) -> Iterator[Lane]:
    bars = {look: [each for each in ingest.stretches if each.state == state] for state, look in _STATES}
    connected = sum(each.end - each.start for each in bars["good"])
    told = sum(each.end - each.start for each in ingest.stretches)
    shapes = [
        Shape("".join(charts.stretch(bins, each.start, each.end) for each in those), look)
        for look, those in bars.items()
        if those
    ]
    yield Lane("Connection", f"{connected / told:.1%}" if told else "", shapes)
    lanes = (
        ("Errors 309", ingest.refused_309, True),
        ("Reconnects", ingest.reconnects, True),
        ("Lost", ingest.lost, False),
        ("Failed writes", ingest.write_failures, False),
    )
    for name, events, always in lanes:
        if events or always:
            path = "".join(charts.stretch(bins, event.ts, event.ts) for event in events)
            yield Lane(name, number(sum(event.many for event in events)), [Shape(path, "bad")] if path else [])


def _lag(ingest: IngestDay, times: Sequence[Tick], marks: Sequence[Tick]) -> Chart | None:
    both = np.concatenate([ingest.lag_p50, ingest.lag_p99])
    if np.all(np.isnan(both)):
        return None
    scale = decades(both)
    shapes = [
        Shape(charts.line(ingest.lag_p50, scale), "second"),
        Shape(charts.line(ingest.lag_p99, scale), "first"),
    ]
    keys = [Key("first", "99th percentile"), Key("second", "median")]
    title = "Latency, from a row's arrival to Redis"
    return Chart(title, "ms", times, scale.ticks(), shapes, keys=keys, marks=marks)


def _depth_view(depth: DepthMap, day: RecordedDay, times: Sequence[Tick], marks: Sequence[Tick]) -> DepthView:
    symbol = next(each for each in day.symbols if each.symbol == depth.symbol)
    prices = Scale(depth.grid.low, depth.grid.high)
    shapes = [Shape(charts.line(side, prices), "ink") for side in (symbol.bid, symbol.ask)]
    keys = [Key("bids", "bids"), Key("asks", "asks"), Key("ink", "best bid and ask")]
    heat = Chart(
        "Depth",
        "mean size at a price",
        times,
        prices.ticks(8),
        shapes,
        height=360,
        keys=keys,
        marks=marks,
        picture=charts.depth_picture(depth),
    )
    return DepthView(depth.symbol, [heat, _spread(symbol, times, marks)])


def _spread(symbol: SymbolDay, times: Sequence[Tick], marks: Sequence[Tick]) -> Chart:
    low, median, high = symbol.spreads
    scale = from_zero(high)
    shapes = [Shape(charts.band(low, high, scale), "band"), Shape(charts.line(median, scale), "first")]
    keys = [Key("first", "median"), Key("band", "10th to 90th percentile")]
    return Chart("Spread", "price", times, scale.ticks(), shapes, keys=keys, marks=marks)
