"""Renders a health report as a table of 80 columns, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import orjson
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ibkr_depth_pipeline.formatting import short_duration, utc
from ibkr_depth_pipeline.schema.health import HealthReport, IngestHealth, SymbolHealth, SymbolState
from ibkr_depth_pipeline.schema.status import ClockFigures, FactsFigures, FeedFigures, StandbyFigures

_STYLES = {
    SymbolState.FRESH: "green",
    SymbolState.STALE: "bold red",
    SymbolState.MISSING: "red",
    SymbolState.UNSUPPORTED: "dim",
    SymbolState.NOT_YET: "dim",
    SymbolState.CLOSED: "dim",
}
_COLUMNS = ("age", "ttl", "venue", "on", "snapshots", "lost", "dropped", "309")


def status_json(report: HealthReport) -> str:
    """The whole report on one line, and `well`, which the exit code reflects."""
    return orjson.dumps({"well": report.is_well, **asdict(report)}).decode()


def render_status(report: HealthReport) -> RenderableType:
    """The feed, a row per symbol, and notes that need more words than a cell holds."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("symbol", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("venue", "on") else "right", no_wrap=True)
    for each in report.symbols:
        # as Text, since Redis may hold what looks like markup
        style = "bold red" if each.trouble else _STYLES[each.state]
        table.add_row(Text(each.symbol), Text(each.state.value, style), *map(Text, _cells(each)))
    notes = [Text(note) for each in report.symbols for note in _notes(each)]
    return Group(*_feed(report.feed, report.ts), "", table, *([Text(""), *notes] if notes else []))


def _cells(each: SymbolHealth) -> tuple[str, ...]:
    figures = each.figures
    return (
        short_duration(each.age_secs),
        short_duration(each.heartbeat_ttl_secs),
        each.venue,
        "yes" if figures.subscribed else "",
        str(figures.snapshots),
        _count(figures.lost),
        _count(sum(figures.dropped.values())),
        _count(figures.refused_309),
    )


def _notes(each: SymbolHealth) -> Iterator[str]:
    if each.trouble:
        yield f"{each.symbol}: {each.trouble}"
    if each.state is SymbolState.CLOSED:
        yield f"{each.symbol}: closed until {utc(each.figures.closed_until)}"
    if each.is_awaited and not each.is_well:
        yield f"{each.symbol}: its first turn is due until {utc(each.figures.first_due_ts)}"
    if each.figures.focus:
        yield f"{each.symbol}: in focus, asked for by {each.figures.focus}"
    if each.figures.asked_again:
        figures = each.figures
        yield (
            f"{each.symbol} asked for again: {figures.asked_again} times (silent {figures.silent}, "
            f"out of step {figures.out_of_step})"
        )
    if each.reason and each.state is SymbolState.UNSUPPORTED:
        yield f"{each.symbol}: {' '.join(each.reason.split())}"
    if each.figures.dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(each.figures.dropped.items()))
        yield f"{each.symbol} dropped rows: {reasons}"


def _feed(feed: IngestHealth, now_ms: int) -> Iterator[Text]:
    style = "bold red" if feed.problem else "green"
    yield Text(f"ingest {feed.name}: {feed.problem or 'running'}", style)
    if feed.figures is not None:
        yield from (Text(line) for line in _feed_lines(feed, feed.figures, now_ms))
    yield from map(_standby_line, feed.standbys)
    if not feed.standbys and feed.running and feed.figures is not None and feed.figures.standbys_ready is not None:
        yield Text("standby: none, though IBKR_STANDBY is on", "yellow")


def _standby_line(standby: StandbyFigures) -> Text:
    run, connected = standby.run, f"connected as client {standby.client_id}" if standby.connected else "not connected"
    told = f"{connected}, {standby.resolved} of {standby.symbols} contracts resolved, since {utc(standby.since_ts)}"
    state = ("reserve, " if standby.reserve else "") + ("ready" if standby.is_ready else "not ready")
    line = f"standby: {state}: run {run.run_id}, {run.host} pid {run.pid}, {told}"
    return Text(line, "green" if standby.is_ready else "yellow")


def _feed_lines(feed: IngestHealth, figures: FeedFigures, now_ms: int) -> Iterator[str]:
    run = figures.run
    yield f"run {run.run_id}, {run.host} pid {run.pid}, up {short_duration(figures.run_ms / 1000)}, heartbeat " + (
        f"{short_duration(feed.heartbeat_ttl_secs)} left" if feed.running else "gone"
    )
    yield (
        f"batch {figures.batch_size}, turns {figures.turns}, reconnects {figures.reconnects}, "
        f"309s {figures.refused_309}, 100s {figures.pacing_violations}, failed writes {figures.write_failures}"
    )
    yield from _facts_lines(figures.facts, now_ms)
    if figures.universe_problem:
        yield f"universe: the newest is not in force: {figures.universe_problem}"
    yield from _clock_lines(figures.clock)
    if figures.size_changes:
        yield f"sizes: {figures.size_changes}"
    yield (
        f"buffer {figures.buffer_entries} snapshots, {figures.buffer_bytes / 2**20:.1f} of "
        f"{figures.buffer_bound / 2**20:.0f} MiB ({figures.buffer_share:.0%}), lost {figures.lost}; "
        f"to Redis {_lag(figures.lag_p50_ms)} (p99 {_lag(figures.lag_p99_ms)})"
    )


def _facts_lines(facts: FactsFigures, now_ms: int) -> Iterator[str]:
    """Where the rotation began, from which file, and how old that was."""
    if facts.problem:
        yield f"facts: {facts.file} was ignored: {facts.problem}"
    elif facts.file:
        found = [
            f"{value:g} {unit} (seen {_age(seen_ts, now_ms)})"
            for value, unit, seen_ts in (
                (facts.slots, "slots", facts.slots_ts),
                (facts.release_pause_secs, "s from a cancel to the next request", facts.release_pause_ts),
            )
            if value is not None
        ]
        yield f"facts: began with {', '.join(found) or 'nothing: neither slots nor a pause'}, of {facts.file}"


def _age(seen_ts: int | None, now_ms: int) -> str:
    return "at an unknown time" if seen_ts is None else f"{short_duration(max(0, now_ms - seen_ts) / 1000)} ago"


def _clock_lines(clock: ClockFigures) -> Iterator[str]:
    if clock.problem:
        yield f"clock: {clock.problem}"
    if clock.gateway_ms is not None and clock.gateway_error_ms is not None:
        error_secs = clock.gateway_error_ms / 1000
        yield f"gateway's clock {clock.gateway_ms / 1000:+.1f} s from the host's, within {error_secs:.1f} s"


def _lag(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f} ms"


def _count(number: int) -> str:
    return str(number) if number else ""
