"""An ingest's figures -> named samples, in Prometheus' units: seconds, bytes, counts that only grow. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ibkr_depth_pipeline.schema.status import ClockFigures, FeedFigures

Kind = Literal["counter", "gauge"]
Labels = Mapping[str, str]


@dataclass
class Family:
    """One metric. A counter's `name` is without the `_total` under which it is shown."""

    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...] = ()
    samples: list[tuple[tuple[str, ...], float]] = field(default_factory=list)

    def add(self, value: float, *labels: str) -> Family:
        """Add a sample with the values of `labels`, in their order."""
        self.samples.append((labels, value))
        return self


def families(figures: FeedFigures, gateway_name: str) -> Iterator[Family]:
    """Every metric of a run. Each begins with `ibkr_depth_`."""
    yield from _of_the_run(figures, gateway_name)
    yield from _of_the_rotation(figures)
    yield from _of_the_writer(figures)
    yield from _of_the_symbols(figures)


def _of_the_run(figures: FeedFigures, gateway_name: str) -> Iterator[Family]:
    run = figures.run
    labels = ("gateway_name", "run_id", "host")
    yield Family("gauge", "run_info", "Which run this is; always 1", labels).add(1, gateway_name, run.run_id, run.host)
    yield _gauge("start_time_seconds", "When the run started, unix time", run.started_ts / 1000)
    yield _gauge("figures_timestamp_seconds", "When these figures were taken, unix time", figures.written_ts / 1000)
    yield _gauge("gateway_connected", "1 where the gateway is connected", figures.connected)
    yield _gauge("gateway_suspended", "1 where the gateway says that it lost IBKR (1100)", figures.suspended)
    yield _gauge("market_data_troubles", "Troubles with market data that still stand", len(figures.ailments))
    yield from _of_the_clock(figures.clock)
    yield _counter("gateway_connections", "Connections to the gateway", figures.connections)
    yield _counter("gateway_reconnects", "Connections after the first one", figures.reconnects)


def _of_the_clock(clock: ClockFigures) -> Iterator[Family]:
    yield _counter("clock_steps", "Steps of the host's clock by more than a second", clock.steps)
    yield _gauge("ts_ahead_seconds", "How far the newest ts is ahead of the host's clock", clock.ts_ahead_ms / 1000)
    offset = Family("gauge", "gateway_clock_offset_seconds", "The gateway's clock minus the host's")
    yield offset if clock.gateway_ms is None else offset.add(clock.gateway_ms / 1000)


def _of_the_rotation(figures: FeedFigures) -> Iterator[Family]:
    yield _gauge("batch_size", "Most symbols that hold a slot at once, now", figures.batch_size)
    yield _counter("rotation_turns", "Turns of the rotation", figures.turns)
    yield _counter("refused_309", "Requests refused for want of a slot (309)", figures.refused_309)
    yield _counter("pacing_violations", "Answers that messages come too fast (100)", figures.pacing_violations)


def _of_the_writer(figures: FeedFigures) -> Iterator[Family]:
    yield _gauge("buffer_bytes", "Snapshots that wait for Redis", figures.buffer_bytes)
    yield _gauge("buffer_limit_bytes", "Where the oldest of them are dropped", figures.buffer_bound)
    yield _gauge("buffer_snapshots", "How many snapshots wait for Redis", figures.buffer_entries)
    yield _counter("redis_write_failures", "Writes that failed", figures.write_failures)
    lag = Family(
        "gauge", "redis_lag_seconds", "From a row to Redis' answer, of the newest 1000 blocks", ("percentile",)
    )
    for percentile, value in (("50", figures.lag_p50_ms), ("99", figures.lag_p99_ms)):
        if value is not None:
            lag.add(value / 1000, percentile)
    yield lag


def _of_the_symbols(figures: FeedFigures) -> Iterator[Family]:
    one = ("symbol",)
    rows = Family("counter", "rows", "Rows of depth that were applied to a book", one)
    stored = Family("counter", "snapshots", "Snapshots stored in Redis", one)
    lost = Family("counter", "snapshots_lost", "Snapshots that the buffer's bound dropped", one)
    dropped = Family("counter", "rows_dropped", "Rows that were not applied, by reason", ("symbol", "reason"))
    holds = Family("gauge", "subscribed", "1 where the symbol holds a slot", one)
    live = Family("counter", "live_seconds", "For how long the symbol's book was live", one)
    last = Family("gauge", "last_row_timestamp_seconds", "When the symbol's last row came, unix time", one)
    refused = Family("counter", "symbol_refused_309", "The symbol's requests refused for want of a slot (309)", one)
    silent = Family("counter", "line_silent", "The symbol's line was silent while others were not", one)
    wrong = Family("counter", "book_out_of_step", "The symbol's book was out of step with the gateway's", one)
    again = Family("counter", "line_asked_again", "The symbol's subscription was made anew for one of these", one)
    trouble = Family("gauge", "line_troubled", "1 while the symbol's line is silent or its book out of step", one)
    for symbol, each in figures.symbols.items():
        silent.add(each.silent, symbol)
        wrong.add(each.out_of_step, symbol)
        again.add(each.asked_again, symbol)
        trouble.add(bool(each.trouble), symbol)
        rows.add(each.rows, symbol)
        stored.add(each.snapshots, symbol)
        lost.add(each.lost, symbol)
        live.add(each.live_ms / 1000, symbol)
        holds.add(each.subscribed, symbol)
        refused.add(each.refused_309, symbol)
        if each.last_row_ts:
            last.add(each.last_row_ts / 1000, symbol)
        for reason, count in each.dropped.items():
            dropped.add(count, symbol, reason)
    yield from (rows, stored, lost, dropped, live, holds, last, refused, silent, wrong, again, trouble)


def _gauge(name: str, text: str, value: float) -> Family:
    return Family("gauge", name, text).add(value)


def _counter(name: str, text: str, value: float) -> Family:
    return Family("counter", name, text).add(value)
