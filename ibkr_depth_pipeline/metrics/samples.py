"""An ingest's figures as Prometheus metrics, in Prometheus' units: seconds, bytes, counts that only grow. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from ibkr_depth_pipeline.schema.status import LATENCY_BOUNDS_SECS, ClockFigures, FeedFigures, LatencyFigures

PREFIX = "ibkr_depth_"


def families(figures: FeedFigures, gateway_name: str, latency: LatencyFigures | None = None) -> Iterator[Metric]:
    """Every metric of a run. Each name begins with PREFIX."""
    yield from _of_run(figures, gateway_name)
    yield from _of_clock(figures.clock)
    yield from _of_rotation(figures)
    yield from _of_writer(figures)
    yield _of_latency(latency or LatencyFigures())
    yield from _of_symbols(figures)


def _of_run(figures: FeedFigures, gateway_name: str) -> Iterator[Metric]:
    run = figures.run
    info = _gauges("run_info", "Which run this is; always 1", "gateway_name", "run_id", "host")
    info.add_metric((gateway_name, run.run_id, run.host), 1)
    yield info
    yield _gauge("start_time_seconds", "When the run started, unix time", run.started_ts / 1000)
    yield _gauge("figures_timestamp_seconds", "When these figures were taken, unix time", figures.written_ts / 1000)
    yield _gauge("gateway_connected", "1 if the gateway is connected", figures.connected)
    yield _gauge("gateway_suspended", "1 if the gateway has lost its connection to IBKR (1100)", figures.suspended)
    yield _gauge("market_data_troubles", "Troubles with market data that still stand", len(figures.ailments))
    yield _counter("gateway_connections", "Connections to the gateway", figures.connections)
    yield _counter("gateway_reconnects", "Connections after the first one", figures.reconnects)
    yield _gauge("standby", "1 if this ingest does not record but stands by", figures.standby)
    yield _gauge("standbys_ready", "Standbys that could take over; none if IBKR_STANDBY is off", figures.standbys_ready)


def _of_clock(clock: ClockFigures) -> Iterator[Metric]:
    yield _counter("clock_steps", "Steps of the host's clock by more than a second", clock.steps)
    yield _gauge("ts_ahead_seconds", "How far the newest ts is ahead of the host's clock", clock.ts_ahead_ms / 1000)
    offset = None if clock.gateway_ms is None else clock.gateway_ms / 1000
    yield _gauge("gateway_clock_offset_seconds", "The gateway's clock minus the host's", offset)


def _of_rotation(figures: FeedFigures) -> Iterator[Metric]:
    yield _gauge("batch_size", "Most symbols that hold a slot at once, now", figures.batch_size)
    yield _counter("rotation_turns", "Turns of the rotation", figures.turns)
    yield _counter("refused_309", "Requests refused for want of a slot (309)", figures.refused_309)
    yield _counter("pacing_violations", "Answers that messages come too fast (100)", figures.pacing_violations)


def _of_writer(figures: FeedFigures) -> Iterator[Metric]:
    yield _gauge("buffer_bytes", "Snapshots that wait for Redis", figures.buffer_bytes)
    yield _gauge("buffer_limit_bytes", "The size above which the oldest of them are dropped", figures.buffer_bound)
    yield _gauge("buffer_snapshots", "How many snapshots wait for Redis", figures.buffer_entries)
    yield _counter("redis_write_failures", "Writes that failed", figures.write_failures)
    lag = _gauges("redis_lag_seconds", "Deprecated: see redis_latency_seconds", "percentile")
    for percentile, value in (("50", figures.lag_p50_ms), ("99", figures.lag_p99_ms)):
        if value is not None:
            lag.add_metric((percentile,), value / 1000)
    yield lag


def _of_latency(latency: LatencyFigures) -> Metric:
    bounds = [*map(str, LATENCY_BOUNDS_SECS), "+Inf"]
    text = "From a block's oldest row to Redis' answer"
    buckets = list(zip(bounds, accumulate(latency.counts), strict=True))
    return HistogramMetricFamily(PREFIX + "redis_latency_seconds", text, buckets, latency.sum_secs)


def _of_symbols(figures: FeedFigures) -> Iterator[Metric]:
    rows = _counters("rows", "Rows of depth that were applied to a book", "symbol")
    stored = _counters("snapshots", "Snapshots stored in Redis", "symbol")
    lost = _counters("snapshots_lost", "Snapshots that the buffer's bound dropped", "symbol")
    dropped = _counters("rows_dropped", "Rows that were not applied, by reason", "symbol", "reason")
    live = _counters("live_seconds", "For how long the symbol's book was live", "symbol")
    holds = _gauges("subscribed", "1 if the symbol holds a slot", "symbol")
    last = _gauges("last_row_timestamp_seconds", "When the symbol's last row came, unix time", "symbol")
    refused = _counters("symbol_refused_309", "The symbol's requests refused for want of a slot (309)", "symbol")
    silent = _counters("line_silent", "The symbol's line was silent while others were not", "symbol")
    wrong = _counters("book_out_of_step", "The symbol's book was out of step with the gateway's", "symbol")
    again = _counters("line_asked_again", "The symbol's subscription was renewed for one of these", "symbol")
    trouble = _gauges("line_troubled", "1 while the symbol's line is silent or its book out of step", "symbol")
    for symbol, each in figures.symbols.items():
        rows.add_metric((symbol,), each.rows)
        stored.add_metric((symbol,), each.snapshots)
        lost.add_metric((symbol,), each.lost)
        for reason, count in each.dropped.items():
            dropped.add_metric((symbol, reason), count)
        live.add_metric((symbol,), each.live_ms / 1000)
        holds.add_metric((symbol,), each.subscribed)
        if each.last_row_ts:
            last.add_metric((symbol,), each.last_row_ts / 1000)
        refused.add_metric((symbol,), each.refused_309)
        silent.add_metric((symbol,), each.silent)
        wrong.add_metric((symbol,), each.out_of_step)
        again.add_metric((symbol,), each.asked_again)
        trouble.add_metric((symbol,), bool(each.trouble))
    yield from (rows, stored, lost, dropped, live, holds, last, refused, silent, wrong, again, trouble)


def _gauges(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _counters(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """A gauge without labels; without a sample if `value` is not known."""
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, value=value)
