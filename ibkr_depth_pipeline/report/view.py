"""What the page shows, in its order: texts, table rows and charts, nothing left to count. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from ibkr_depth_pipeline.drawing.alerts import SEVERITIES
from ibkr_depth_pipeline.formatting import duration, utc_clock
from ibkr_depth_pipeline.report import charts
from ibkr_depth_pipeline.report.charts import (
    Chart,
    Key,
    Shape,
    Tick,
    decades,
    from_zero,
    number,
    rate,
    time_step,
    time_ticks,
    usual,
)
from ibkr_depth_pipeline.report.day import RecordedDay
from ibkr_depth_pipeline.report.ingest_day import CONNECTED, IngestDay, IngestRun, total
from ibkr_depth_pipeline.report.lanes import Lane, alert_lanes, depth_data, ingest_lanes, slot_lanes
from ibkr_depth_pipeline.report.symbol_day import DepthMap, SymbolDay, Window
from ibkr_depth_pipeline.report.timeline import Array, Bins
from ibkr_depth_pipeline.schema.alerts import TrackedAlert
from ibkr_depth_pipeline.schema.gaps import Gap

_SPARKS = 120


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """A line of the table. coverage is in percent; rates and spreads are paths."""

    symbol: str
    venues: str
    snapshots: str
    rates: str
    coverage: float
    worst: str
    worst_at: str
    missing: int
    spread: str
    spread_bps: str
    spreads: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run of an ingest."""

    run_id: str
    where: str
    since: str
    until: str
    rows: str
    connections: str
    refused_309: str
    lost: str
    dropped: str


@dataclass(frozen=True, slots=True)
class GapRow:
    """What is missing of a symbol."""

    symbol: str
    seqs: str
    size: str
    since: str
    until: str
    reason: str


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert or an all-clear. severity: as of a Mark; outcome: whether its trouble has ended, and when."""

    at: str
    severity: str
    title: str
    text: str
    outcome: str = ""


def symbol_row(symbol: SymbolDay, missing: int, bins: Bins) -> SymbolRow:
    """The row of a symbol; `missing` is how many of its snapshots are."""
    bps = symbol.spread_bps
    rates = _grouped(symbol.rows / (bins.step / 1000))
    spreads = _grouped(symbol.spreads[1])
    return SymbolRow(
        symbol=symbol.symbol,
        venues=", ".join(symbol.venues),
        snapshots=number(symbol.snapshots),
        rates=charts.steps(rates, from_zero(rates)),
        coverage=round(100 * symbol.coverage, 1),
        worst=duration(symbol.worst.ms, fine=True),
        worst_at=utc_clock(symbol.worst.start) if symbol.worst.ms else "",
        missing=missing,
        spread=number(symbol.spread) if symbol.spread is not None else "none",
        spread_bps=f"{bps:.1f} bp" if bps is not None else "",
        spreads=charts.line(spreads, from_zero(usual(spreads))),
    )


def _grouped(values: Array) -> Array:
    """Neighbours taken together, by their mean, so that a small picture stays a small text."""
    size = -(-len(values) // _SPARKS)
    padded = np.concatenate([values, np.full(-len(values) % size, np.nan)]).reshape(-1, size)
    known = ~np.isnan(padded)
    counts = known.sum(axis=1)
    sums = np.where(known, padded, 0).sum(axis=1)
    grouped: Array = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return grouped


def run_row(run: IngestRun) -> RunRow:
    dropped = ", ".join(f"{number(count)} {reason.replace('_', ' ')}" for reason, count in run.dropped.items())
    return RunRow(
        run_id=run.run_id,
        where=f"{run.host}, {run.pid}",
        since=utc_clock(run.started_ts),
        until=utc_clock(run.ended_ts) if run.ended_ts else f"last heard {utc_clock(run.heard_ts)}",
        rows=number(run.rows),
        connections=number(run.connections),
        refused_309=number(run.refused_309),
        lost=number(run.lost),
        dropped=dropped or "none",
    )


def gap_row(gap: Gap) -> GapRow:
    return GapRow(
        symbol=gap.symbol,
        seqs=f"{gap.first_seq} to {gap.last_seq}",
        size=number(gap.size),
        since=utc_clock(gap.after.ts) if gap.after.ts else "the beginning",
        until=utc_clock(gap.next_ts),
        reason=gap.cause.value.replace("_", " "),
    )


def alert_row(tracked: TrackedAlert) -> AlertRow:
    alert, outcome = tracked.alert, ""
    if alert.lasts:
        outcome = "no all-clear" if tracked.cleared is None else f"cleared {utc_clock(tracked.cleared)}"
    return AlertRow(utc_clock(alert.ts), SEVERITIES[alert.kind], alert.title, alert.text, outcome)


# ---- the page


MOST_GAPS = MOST_ALERTS = 200
WHOLE = 0.995
"""A session of which so much was recorded was recorded."""

SHORT_LOSS_MS = 5_000
"""A connection that is away for less, all in all, is no fault of the day: gateways restart daily."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the numbers at the top, and what it is."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class IngestView:
    """An ingest's own story; no lag chart if nothing was written to Redis."""

    name: str
    lanes: Sequence[Lane]
    lag: Chart | None
    runs: Sequence[RunRow]


@dataclass(frozen=True, slots=True)
class DepthView:
    """A symbol's book over the day: data of the heat map, and the chart of its spread."""

    symbol: str
    data: str
    spread: Chart


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page."""

    heading: str
    is_good: bool
    verdict: str
    day: str
    archive: str
    covered: str
    made: str
    bins: Bins
    step: str
    times: Sequence[Tick]
    time_step: int
    marks: Sequence[Tick]
    facts: Sequence[Fact]
    symbols: Sequence[SymbolRow]
    nothing_of: Sequence[str]
    slots: Sequence[Lane]
    has_figures: bool
    has_holes: bool
    by_bins: bool
    has_turns: bool
    rates: Chart
    ingests: Sequence[IngestView]
    depth: Sequence[DepthView]
    alerts: Sequence[AlertRow]
    more_alerts: int
    gaps: Sequence[GapRow]
    more_gaps: int


def page_view(day: RecordedDay, made: datetime) -> PageView:
    """`made` is when the page is written."""
    is_good, sentence = verdict(day)
    slots = slot_lanes(day)
    missing = {symbol.symbol: 0 for symbol in day.symbols}
    for gap in day.gaps:
        missing[gap.symbol] += gap.size
    return PageView(
        heading=f"{day.day:%A}, {day.day.day} {day.day:%B %Y}",
        is_good=is_good,
        verdict=sentence,
        day=day.day.isoformat(),
        archive=day.archive,
        covered=_covered(day),
        made=made.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        bins=day.bins,
        step=duration(day.bins.step, fine=True).replace(".0 s", " s").replace(" 00 s", ""),
        times=time_ticks(day.bins),
        time_step=time_step(day.bins),
        marks=_marks(day),
        facts=list(_facts(day)),
        symbols=[symbol_row(symbol, missing[symbol.symbol], day.bins) for symbol in day.symbols],
        nothing_of=day.nothing_of,
        slots=[*slots, *alert_lanes(day)],
        has_figures=bool(day.ingests),
        has_holes=any(lane.spans for lane in slots),
        by_bins=not all(lane.turns for lane in slots),
        has_turns=any(lane.turns for lane in slots),
        rates=_rates(day),
        ingests=[_ingest_view(ingest, day.bins) for ingest in day.ingests],
        depth=[_depth_view(depth, day) for depth in day.depth],
        alerts=[alert_row(each) for each in day.tracked_alerts[:MOST_ALERTS]],
        more_alerts=max(0, len(day.alerts) - MOST_ALERTS),
        gaps=[gap_row(gap) for gap in day.gaps[:MOST_GAPS]],
        more_gaps=max(0, len(day.gaps) - MOST_GAPS),
    )


def _covered(day: RecordedDay) -> str:
    until = f"what was recorded, {utc_clock(day.window.start)} to {utc_clock(day.window.end)} UTC"
    if day.session is None or day.passed is None:
        return until
    so_far = " so far" if day.passed.end < day.session[1] else ""
    return f"{until}, of the session of {day.calendar}{so_far}, {_from_to(day.passed)}"


def _from_to(window: Window) -> str:
    return f"{utc_clock(window.start)} to {utc_clock(window.end)} UTC"


def verdict(day: RecordedDay) -> tuple[bool, str]:
    """Whether the day was good, and a sentence on what was not."""
    bad = list(_faults(day))
    if not bad:
        return True, f"A good day: no snapshot is missing, and {_whole_share(day)}."
    return False, f"Not a good day: {'; '.join(bad)}."


def _whole_share(day: RecordedDay) -> str:
    if day.share_of_session is None:
        return f"recorded from {_from_to(day.window)}"
    return f"the whole session of {day.calendar} was recorded"


def _faults(day: RecordedDay) -> Iterator[str]:
    if day.missing:
        yield f"{number(day.missing)} snapshots are missing, in {len(day.gaps)} holes"
    if day.nothing_of:
        yield f"nothing is kept of {', '.join(day.nothing_of)}"
    if day.share_of_session is not None and day.share_of_session < WHOLE:
        yield f"only {day.share_of_session:.0%} of the session of {day.calendar} was recorded"
    for ingest in day.ingests:
        away = sum(each.end - each.start for each in ingest.stretches if each.state != CONNECTED)
        if away > SHORT_LOSS_MS:
            yield f"{ingest.name} was without its gateway or IBKR for {duration(away)}"
    if lost := sum(total(ingest.lost) for ingest in day.ingests):
        yield f"{number(lost)} snapshots were lost before they reached Redis"
    if day.refused_309:
        yield f"{number(day.refused_309)} slots were refused (309)"
    if day.troubles:
        yield "an alert was raised" if day.troubles == 1 else f"{number(day.troubles)} alerts were raised"


def _marks(day: RecordedDay) -> list[Tick]:
    if day.session is None:
        return []
    inside = ((day.session[0], "open"), (day.session[1], "close"))
    return [charts.mark(day.bins, ts, label) for ts, label in inside if day.bins.start < ts < day.bins.end]


def _facts(day: RecordedDay) -> Iterator[Fact]:
    rates = _total_rates(day)
    seconds = (day.window.end - day.window.start) / 1000
    yield Fact(number(day.snapshots), "snapshots", f"of {len(day.symbols)} symbols")
    in_window = sum(symbol.in_window for symbol in day.symbols)
    yield Fact(rate(in_window / seconds), "rows a second", f"at most {rate(float(rates.max()))}")
    share = day.share_of_session
    of_session = f"{share:.0%} of the session recorded" if share is not None and share < WHOLE else ""
    yield Fact(f"{day.coverage:.1%}", "coverage", of_session or "mean of the symbols")
    yield Fact(number(day.missing), "missing snapshots", f"in {len(day.gaps)} holes")
    if day.alerts:
        yield Fact(number(day.troubles), "alerts", "of trouble")
    if not day.ingests:
        yield Fact("unknown", "309s, reconnects, latency", "no figures were kept")
        return
    lost = sum(total(ingest.lost) for ingest in day.ingests)
    yield Fact(number(day.refused_309), "errors 309", "slots refused")
    yield Fact(number(day.reconnects), "reconnects", f"{number(lost)} snapshots lost")
    lags = np.concatenate([ingest.lag_p99 for ingest in day.ingests])
    if not np.all(np.isnan(lags)):
        usual, worst = float(np.nanmedian(lags)), float(np.nanmax(lags))
        yield Fact(duration(usual, fine=True), "latency p99, usually", f"at worst {duration(worst, fine=True)}")


def _total_rates(day: RecordedDay) -> Array:
    total: Array = np.sum([symbol.rows for symbol in day.symbols], axis=0) / (day.bins.step / 1000)
    return total


def _rates(day: RecordedDay) -> Chart:
    rates = _total_rates(day)
    scale = from_zero(rates)
    shapes = [Shape(charts.steps(rates, scale), "area")]
    return Chart("Rows a second", "all symbols", scale.ticks(), shapes, scale=scale)


def _ingest_view(ingest: IngestDay, bins: Bins) -> IngestView:
    runs = [run_row(run) for run in ingest.runs]
    return IngestView(ingest.name, list(ingest_lanes(ingest, bins)), _lag(ingest), runs)


def _lag(ingest: IngestDay) -> Chart | None:
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
    return Chart(title, "ms", scale.ticks(), shapes, keys=keys, scale=scale)


def _depth_view(depth: DepthMap, day: RecordedDay) -> DepthView:
    symbol = next(each for each in day.symbols if each.symbol == depth.symbol)
    return DepthView(depth.symbol, depth_data(depth, symbol), _spread(symbol))


def _spread(symbol: SymbolDay) -> Chart:
    low, median, high = symbol.spreads
    shown = usual(high)
    scale = from_zero(shown)
    shapes = [Shape(charts.band(low, high, scale), "band"), Shape(charts.line(median, scale), "first")]
    keys = [Key("first", "median"), Key("band", "10th to 90th percentile")]
    most = np.nanmax(high, initial=0.0)
    unit = f"price; cut off at the top, it reached {number(most)}" if most > scale.high else "price"
    return Chart("Spread", unit, scale.ticks(), shapes, keys=keys, scale=scale)
