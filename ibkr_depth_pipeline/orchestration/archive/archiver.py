"""The archive as assets: an archiver that keeps what is mirrored as long as its run lives, and a partition per date."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.orchestration.gateway_assets import GROUP, PREFIX, GatewayAssets
from ibkr_depth_pipeline.orchestration.resources import ExchangeHours, RedisStore, errors_as_failures
from ibkr_depth_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from ibkr_depth_pipeline.archive.archiver import ArchiveOutcome
    from ibkr_depth_pipeline.archive.audit import SymbolAudit
    from ibkr_depth_pipeline.archive.maintenance import Compacted

ARCHIVE_KEY = dg.AssetKey([*PREFIX, "archive"])
DAY_KEY = dg.AssetKey([*PREFIX, "archive_day"])
ARCHIVE_JOB, DAY_JOB = "ibkr_depth_archive_job", "ibkr_depth_archive_day_job"
POOL, DAY_POOL = "ibkr_depth_archive", "ibkr_depth_archive_day"
"""One slot each: whoever archives, or compacts, holds it."""
CHECKS = ("seq_without_holes", "books_ordered_and_not_crossed", "coverage", "row_counts", "alerts_kept")
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)
"""Up to the date of today, of which what is kept so far can be compacted and reported by hand."""

Metadata = Mapping[str, Any]


class ArchiveConfig(dg.Config):
    """Keep every stream until Terminate; everything here is optional."""

    symbols: list[str] = Field(default=[], description="Keep only these symbols. Empty: every stream there is.")
    duration: float | None = Field(
        default=None, gt=0, description="Stop by itself after so many seconds. Left out: on Terminate."
    )


class DayConfig(dg.Config):
    """What the checks of a day ask for."""

    least_coverage: float = Field(
        default=0.0, ge=0, le=1, description="The coverage check fails below this share of the session."
    )


def build_archive(*gateways: GatewayAssets) -> list[dg.AssetsDefinition]:
    """The archive of the one Redis that these gateways are mirrored in, and its days."""
    feeds = [assets.names.feed_key for assets in gateways]
    return [_build_archiver(feeds), _build_day([assets.gateway.name for assets in gateways])]


def _build_archiver(feeds: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    # No retry policy: with one, Terminate would start the op anew.
    @dg.asset(key=ARCHIVE_KEY, group_name=GROUP, deps=feeds, pool=POOL, description=_ARCHIVE)
    def ibkr_depth_archive(
        context: dg.AssetExecutionContext, config: ArchiveConfig, redis: RedisStore
    ) -> dg.MaterializeResult[Any]:
        with errors_as_failures(), extra_needed():
            from ibkr_depth_pipeline.archive.archiver import run_archiver

            settings = archive_settings(redis)
            outcome = run_archiver(settings, config.symbols, duration=config.duration)
        return _concluded(context, outcome, archive_metadata(outcome, settings))

    return ibkr_depth_archive


def _build_day(gateways: Sequence[str]) -> dg.AssetsDefinition:
    checks = [dg.AssetCheckSpec(name, asset=DAY_KEY) for name in CHECKS]

    @dg.asset(
        key=DAY_KEY,
        group_name=GROUP,
        deps=[ARCHIVE_KEY],
        pool=DAY_POOL,
        partitions_def=DAYS,
        check_specs=checks,
        description=_DAY,
    )
    def ibkr_depth_archive_day(
        context: dg.AssetExecutionContext, config: DayConfig, redis: RedisStore, exchange: ExchangeHours
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        day = date.fromisoformat(context.partition_key)
        with errors_as_failures(), extra_needed():
            from ibkr_depth_pipeline.archive import audit, maintenance, store

            settings = archive_settings(redis)
            calendar = exchange.calendar or settings.ibkr_calendar
            archive = store.ArchiveStore(settings.archive_url)
            files = maintenance.compact_day(archive, day)
            audits = audit.audit_day(
                settings, day, calendar=calendar, least_coverage=config.least_coverage, gateways=gateways
            )
            of_alerts = audit.audit_alerts(settings, day, archive, unix_ms())
            nothing = not audits and audit.session_of(calendar, day) != (None, None)
        yield dg.MaterializeResult(metadata=day_metadata(files))
        yield from check_results([*audits, *of_alerts], nothing_kept=nothing)

    return ibkr_depth_archive_day


_ARCHIVE = """Keeps what is mirrored into Redis as Parquet files, until its duration is over or somebody terminates it.

The files are in ARCHIVE_URL; it goes on where they end. The log is in the run's stderr."""
_DAY = """One UTC date, compacted: one Parquet file per symbol, checked.

What came late is merged in by the next materialization."""


def archive_settings(redis: RedisStore) -> Settings:
    """The settings of a run, the resource's Redis in them; logging is set up by them."""
    settings = load_settings(**redis.overrides())
    configure_logging(settings.ibkr_log_level)
    return settings


def _concluded(
    context: dg.AssetExecutionContext, outcome: "ArchiveOutcome", metadata: Metadata
) -> dg.MaterializeResult[Any]:
    """The materialization is recorded however the run ended; only a full one ends it as a success."""
    if outcome.interrupted_by is None and outcome.summary.drained:
        return dg.MaterializeResult(metadata=metadata)
    context.log_event(dg.AssetMaterialization(ARCHIVE_KEY, metadata=metadata))
    if outcome.interrupted_by is not None:
        raise dg.DagsterExecutionInterruptedError(f"{outcome.interrupted_by}: what was read is kept")
    raise dg.Failure(
        "the store did not take everything in time; the next run reads the rest again", allow_retries=False
    )


def archive_metadata(outcome: "ArchiveOutcome", settings: Settings) -> Metadata:
    """What the UI shows of a run of the archiver that is over."""
    summary = outcome.summary
    return {
        "snapshots": sum(summary.snapshots.values()),
        "alerts": sum(summary.alerts.values()),
        "symbols": len(summary.snapshots),
        "files": summary.files,
        "bytes": summary.bytes,
        "holes": len(summary.gaps),
        "missing_snapshots": sum(gap.size for gap in summary.gaps),
        "renumbered": sum(summary.renumbered.values()),
        "pruned_days": summary.pruned_days,
        "drained": summary.drained,
        "ended_by": outcome.interrupted_by or "itself",
        "archive": settings.archive_url,
        "redis": settings.redis_url_masked,
    }


def day_metadata(files: "Sequence[Compacted]") -> Metadata:
    """What the UI shows of a compacted day."""
    lines = ["| symbol | snapshots | bytes | parts merged in |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {file.symbol} | {file.rows} | {file.bytes} | {file.parts} |" for file in files]
    return {
        "snapshots": sum(file.rows for file in files),
        "bytes": sum(file.bytes for file in files),
        "symbols": len(files),
        "files": dg.MetadataValue.md("\n".join(lines)),
    }


def check_results(audits: "Sequence[SymbolAudit]", *, nothing_kept: bool) -> Iterator[dg.AssetCheckResult]:
    """One result per check, over all symbols or ingests. `nothing_kept`: nothing is here, and there was a session."""
    for name in CHECKS:
        found = {audit.symbol: finding for audit in audits for finding in audit.results if finding.check == name}
        problems = [f"{symbol}: {text}" for symbol, finding in found.items() for text in finding.problems]
        if nothing_kept and name == "coverage":
            problems.append("the exchange was open that day, and nothing is kept of it")
        yield dg.AssetCheckResult(
            asset_key=DAY_KEY,
            check_name=name,
            passed=not problems,
            description="; ".join(problems) or "all is well",
            metadata={"symbols": len(found), "figures": dg.MetadataValue.md(_figures(found))},
        )


def _figures(found: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for finding in found.values() for name in finding.figures))
    lines = [f"| symbol | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for symbol, finding in found.items():
        cells = (f"{finding.figures[name]:.6g}" if name in finding.figures else "" for name in names)
        lines.append(f"| {symbol} | {' | '.join(cells)} |")
    return "\n".join(lines)


archive_job = dg.define_asset_job(
    ARCHIVE_JOB,
    selection=dg.AssetSelection.assets(ARCHIVE_KEY),
    description="Keep what is mirrored as Parquet files. One click on Launch, with no config, keeps every stream.",
    executor_def=dg.in_process_executor,  # a step process of its own would outlive a killed worker
)
