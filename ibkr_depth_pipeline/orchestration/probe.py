"""The probe as an asset per symbol with a check: the depth each symbol really gets, before the session opens."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.orchestration.gateway_assets import PROBE_JOB, PROBE_OP, PROBE_POOL, GatewayAssets, symbol_key
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import tracked_probe
from ibkr_depth_pipeline.orchestration.rendering import ladder_markdown
from ibkr_depth_pipeline.orchestration.resources import (
    IbkrGateway,
    RedisStore,
    errors_as_failures,
    settings_and_universe,
)
from ibkr_depth_pipeline.orchestration.scheduling import opening_schedule, schedule_status, settings_at_load
from ibkr_depth_pipeline.probe.report import DECIDED, ProbeReport, SymbolReport

DEPTH_CHECK = "market_depth"
LONGEST_PROBE = timedelta(hours=2)
"""A probe takes minutes, less than an hour in a large universe."""

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult


class ProbeConfig(dg.Config):
    """Probe the whole universe; everything here is optional."""

    symbols: list[str] = Field(default=[], description="Probe only these symbols. Empty: those that are selected.")
    first_book_secs: float | None = Field(
        default=None, gt=0, description="Longest wait for a symbol's book, in seconds. Left out: IBKR_FIRST_ROW_SECS."
    )


def build_probe(assets: GatewayAssets) -> dg.AssetsDefinition:
    """The assets of the universe's symbols, each with its check, and that of the probe as a whole."""
    symbols = {key: symbol for symbol, key in assets.symbol_keys.items()}
    names = assets.names
    about = "Which symbols have depth here."
    whole = dg.AssetSpec(names.probe_key, deps=list(symbols), group_name=names.group, description=about)

    @dg.multi_asset(
        name=names.named(PROBE_OP),
        specs=[*assets.specs, whole],
        check_specs=[dg.AssetCheckSpec(DEPTH_CHECK, asset=key, description=_CHECKED) for key in symbols],
        can_subset=True,
        pool=names.named(PROBE_POOL),
    )
    def probe(
        context: dg.AssetExecutionContext, config: ProbeConfig, ibkr: IbkrGateway, redis: RedisStore
    ) -> Iterator[Event]:
        from ibkr_depth_pipeline.probe.session import run_probe  # its imports are a run's, not the code server's

        selected = [symbol for key, symbol in symbols.items() if key in context.selected_asset_keys]
        with errors_as_failures():
            settings, universe = settings_and_universe(names, config.symbols or selected, ibkr, redis)
            configure_logging(settings.ibkr_log_level)
            report = run_probe(settings, universe, first_book_secs=config.first_book_secs)
        yield from _results(context, report, names.probe_key)
        _fail_without_depth(report)

    return probe


_CHECKED = "The symbol resolves, its venue has depth, and a book with both sides comes."


def _results(context: dg.AssetExecutionContext, report: ProbeReport, probe_key: dg.AssetKey) -> Iterator[Event]:
    """The finding of each selected symbol: a refusal is a finding, too."""
    for found in report.symbols:
        key = symbol_key(found.symbol)
        if key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key, metadata=symbol_metadata(found))
        if dg.AssetCheckKey(key, DEPTH_CHECK) in context.selected_asset_check_keys:
            yield check_result(found)
    if probe_key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=probe_key, metadata=report_metadata(report))


def check_result(found: SymbolReport) -> dg.AssetCheckResult:
    """The check of one symbol; if it failed, ERROR if it is settled that there is no depth, else WARN."""
    settled = found.outcome in DECIDED
    return dg.AssetCheckResult(
        asset_key=symbol_key(found.symbol),
        check_name=DEPTH_CHECK,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if settled else dg.AssetCheckSeverity.WARN,
        description=found.verdict,
        metadata=symbol_metadata(found),
    )


def symbol_metadata(found: SymbolReport) -> dict[str, Any]:
    """The metadata of one symbol: what was asked for, what came, and the first book."""
    fields = {
        "verdict": found.verdict,
        "venue_requested": found.venue_requested or None,
        "venues_granted": ", ".join(found.venues_granted) or None,
        "primary_exchange": found.primary_exchange or None,
        "level_2": found.l2,
        "bid_rows": len(found.bids),
        "ask_rows": len(found.asks),
        "first_row_secs": found.first_row_secs,
        "sizes": found.sizes.text if found.sizes else None,
        "codes": ", ".join(map(str, found.codes)) or None,
    }
    ladder = ladder_markdown(found.bids, found.asks)
    book = {"first_book": dg.MetadataValue.md(ladder)} if ladder else {}
    return {name: value for name, value in fields.items() if value is not None} | book


def report_metadata(report: ProbeReport) -> dict[str, Any]:
    """The metadata of the probe as a whole: the table, and what it could not do."""
    fields = {
        "symbols": len(report.symbols),
        "symbols_with_depth": sum(found.passed for found in report.symbols),
        "seconds": (report.ended_ts - report.started_ts) / 1000,
        "gateway": f"{report.host}:{report.port}",
        "client_id": report.client_id,
        "redis": report.redis.value,
        "redis_error": report.redis_error or None,
        "running_ingest": report.ingest.text if report.ingest else None,
        "notices": "; ".join(f"{notice.code}: {notice.text}" for notice in report.notices) or None,
    }
    table = {"report": dg.MetadataValue.md(report.as_markdown())}
    return {name: value for name, value in fields.items() if value is not None} | table


def _fail_without_depth(report: ProbeReport) -> None:
    """Fails the run only if no symbol has depth; single symbols are what the checks report."""
    if report.interrupted_by is not None:
        raise dg.DagsterExecutionInterruptedError(f"{report.interrupted_by}: subscriptions cancelled")
    if not any(found.passed for found in report.symbols):
        verdicts = "; ".join(f"{found.symbol}: {found.verdict}" for found in report.symbols)
        raise dg.Failure(f"no symbol has market depth: {verdicts}", allow_retries=False)


def build_probe_job(assets: GatewayAssets) -> Any:
    """The job over the whole universe. A probe that dies is not retried: the next one is as good."""
    keys: Sequence[dg.AssetKey] = list(assets.symbol_keys.values())
    depth_checks = dg.AssetSelection.checks(*(dg.AssetCheckKey(key, DEPTH_CHECK) for key in keys))
    return dg.define_asset_job(
        assets.names.named(PROBE_JOB),
        selection=dg.AssetSelection.assets(assets.names.probe_key, *keys).without_checks() | depth_checks,
        description="Find out which symbols get market depth. Beside a running ingest: contracts and venues only.",
        executor_def=dg.in_process_executor,
        tags={"dagster/max_retries": "0"},
    )


def build_probe_schedule(assets: GatewayAssets) -> dg.ScheduleDefinition:
    """Starts the probe well before the open, when there is still time to act on what it finds."""
    settings, names = settings_at_load(), assets.names
    return opening_schedule(
        names.named("ibkr_depth_probe_before_open"),
        tracked_probe(assets),
        lead=timedelta(minutes=settings.ibkr_probe_lead_minutes),
        after_open=False,
        run_config={},
        longest=LONGEST_PROBE,
        calendar=settings.ibkr_calendar,
        status=schedule_status(settings),
    )
