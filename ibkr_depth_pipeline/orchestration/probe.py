"""The probe as an asset per symbol with a check: what depth each symbol really gets, before the session opens."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.orchestration.failures import our_errors_as_failures
from ibkr_depth_pipeline.orchestration.heartbeats import CHECK as HEARTBEAT
from ibkr_depth_pipeline.orchestration.ladder import ladder_markdown
from ibkr_depth_pipeline.orchestration.lineage import Lineage, symbol_key
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore
from ibkr_depth_pipeline.orchestration.run_config import settings_and_universe
from ibkr_depth_pipeline.orchestration.run_records import Work
from ibkr_depth_pipeline.probe.report import DECIDED, ProbeReport, SymbolReport
from ibkr_depth_pipeline.probe.run import run_probe

PROBE_OP = "ibkr_depth_probe"
PROBE_JOB = "ibkr_depth_probe_job"
CHECK = "market_depth"
POOL = "ibkr_depth_probe"

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult


class ProbeConfig(dg.Config):
    """Probe the whole universe; everything here is optional."""

    symbols: list[str] = Field(default=[], description="Probe only these symbols. Empty: those that are selected.")
    first_book_secs: float | None = Field(
        default=None, gt=0, description="Longest wait for a symbol's book, in seconds. Left out: IBKR_FIRST_ROW_SECS."
    )


def build_probe(lineage: Lineage) -> dg.AssetsDefinition:
    """The assets of the universe's symbols, each with its check, and that of the probe as a whole."""
    symbols = {spec.key: symbol for spec, symbol in zip(lineage.specs, lineage.universe.symbols, strict=True)}
    names = lineage.names
    told = "Which symbols have depth here."
    whole = dg.AssetSpec(names.probe_key, deps=list(symbols), group_name=names.group, description=told)

    @dg.multi_asset(
        name=names.named(PROBE_OP),
        specs=[*lineage.specs, whole],
        check_specs=[dg.AssetCheckSpec(CHECK, asset=key, description=_CHECKED) for key in symbols],
        can_subset=True,
        pool=names.named(POOL),
    )
    def probe(
        context: dg.AssetExecutionContext, config: ProbeConfig, ibkr: IbkrGateway, redis: RedisStore
    ) -> Iterator[Event]:
        selected = [symbol for key, symbol in symbols.items() if key in context.selected_asset_keys]
        with our_errors_as_failures():
            settings, universe = settings_and_universe(names, config.symbols or selected, ibkr, redis)
            configure_logging(settings.ibkr_log_level)
            report = run_probe(settings, universe, first_book_secs=config.first_book_secs)
        yield from _results(context, report, names.probe_key)
        _judge(report)

    return probe


_CHECKED = "The symbol resolves, its venue has depth, and a book with both sides comes."


def _results(context: dg.AssetExecutionContext, report: ProbeReport, probe_key: dg.AssetKey) -> Iterator[Event]:
    """What was found of each symbol, as far as it is selected: a refusal is a finding, too."""
    for found in report.symbols:
        key = symbol_key(found.symbol)
        if key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key, metadata=symbol_metadata(found))
        if dg.AssetCheckKey(key, CHECK) in context.selected_asset_check_keys:
            yield check_result(found)
    if probe_key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=probe_key, metadata=report_metadata(report))


def check_result(found: SymbolReport) -> dg.AssetCheckResult:
    """Failed with severity ERROR where it is settled that there is no depth, WARN where it could not be told."""
    settled = found.outcome in DECIDED
    return dg.AssetCheckResult(
        asset_key=symbol_key(found.symbol),
        check_name=CHECK,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if settled else dg.AssetCheckSeverity.WARN,
        description=found.verdict,
        metadata=symbol_metadata(found),
    )


def symbol_metadata(found: SymbolReport) -> dict[str, Any]:
    """One symbol: what was asked for, what came, and the first book."""
    told = {
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
    return {name: value for name, value in told.items() if value is not None} | book


def report_metadata(report: ProbeReport) -> dict[str, Any]:
    """The probe as a whole: the table, and what it could not do."""
    told = {
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
    return {name: value for name, value in told.items() if value is not None} | table


def _judge(report: ProbeReport) -> None:
    """The run fails only where no symbol has depth; single ones are the checks' to tell."""
    if report.interrupted_by is not None:
        raise dg.DagsterExecutionInterruptedError(f"{report.interrupted_by}: subscriptions cancelled")
    if not any(found.passed for found in report.symbols):
        told = "; ".join(f"{found.symbol}: {found.verdict}" for found in report.symbols)
        raise dg.Failure(f"no symbol has market depth: {told}", allow_retries=False)


def build_probe_job(lineage: Lineage) -> Any:
    """One job over all of it. A probe that dies is not tried again: the next one is as good."""
    keys: Sequence[dg.AssetKey] = [spec.key for spec in lineage.specs]
    heartbeats = dg.AssetSelection.checks(*(dg.AssetCheckKey(key, HEARTBEAT) for key in keys))
    return dg.define_asset_job(
        lineage.names.named(PROBE_JOB),
        selection=dg.AssetSelection.assets(lineage.names.probe_key, *keys) - heartbeats,
        description="Find out which symbols get market depth. Beside a running ingest: contracts and venues only.",
        executor_def=dg.in_process_executor,
        tags={"dagster/max_retries": "0"},
    )


def probe_work(lineage: Lineage) -> Work:
    """What probes, however it was launched, be it for some symbols only."""
    keys = frozenset({lineage.names.probe_key, *(spec.key for spec in lineage.specs)})
    return Work(lineage.names.named(PROBE_JOB), keys, lineage.names.named(PROBE_OP))
