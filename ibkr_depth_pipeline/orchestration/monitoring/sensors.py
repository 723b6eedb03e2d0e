"""The sensors of a gateway: heartbeats with their checks, and alerts of runs that fail or are canceled.

Run alerts come from ordinary sensors. Dagster's own run status sensors keep their cursor to themselves, so that an
alert which can't be delivered would be lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.monitoring.diagnosis import FEED, HeartbeatCheck
from ibkr_depth_pipeline.monitoring.supervision import stopped_by_person
from ibkr_depth_pipeline.monitoring.ticks import failures_since, heartbeat_checks_now, heartbeat_tick, run_alert_tick
from ibkr_depth_pipeline.orchestration.gateway_assets import GatewayAssets
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import (
    TrackedJob,
    bad_endings,
    instance_of,
    newest_runs,
    tracked_ingest,
    tracked_probe,
    tracked_standby,
)
from ibkr_depth_pipeline.orchestration.scheduling import (
    ReadableSettings,
    has_standby,
    read_settings,
    read_settings_and_calendar,
)
from ibkr_depth_pipeline.settings import Settings, load_settings

HEARTBEAT_CHECK = "heartbeat"
INTERVAL_SECS = 15


@dataclass(frozen=True, slots=True)
class MonitoredGateway:
    """What the sensors of one gateway monitor. `named` gives a sensor its name; `keys` maps each symbol to its asset.

    `settings` is called at each tick, so that a change counts without a reload. It takes overrides and may raise
    ConfigurationError; `read_settings` does not. run_config is that of the watchdog's runs: the schedule's. standby is
    None if IBKR_STANDBY is off; standby_run_config is that of its runs.
    """

    named: Callable[[str], str]
    ingest: TrackedJob
    probe: TrackedJob
    feed_key: dg.AssetKey
    keys: Mapping[str, dg.AssetKey]
    run_config: Mapping[str, Any] = field(default_factory=dict)
    settings: Callable[..., Settings] = load_settings
    standby: TrackedJob | None = None
    standby_run_config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, assets: GatewayAssets) -> "MonitoredGateway":
        """The gateway of these assets."""
        names = assets.names
        return cls(
            named=names.named,
            ingest=tracked_ingest(assets),
            probe=tracked_probe(assets),
            feed_key=names.feed_key,
            keys=assets.symbol_keys,
            run_config=names.scheduled_run_config,
            settings=assets.gateway.settings,
            standby=tracked_standby(assets) if has_standby(assets) else None,
            standby_run_config=names.standby_run_config,
        )

    @property
    def tracked(self) -> tuple[TrackedJob, ...]:
        """The jobs whose runs are alerted if they end badly."""
        return (self.ingest, self.probe, *(() if self.standby is None else (self.standby,)))

    def read_settings(self) -> ReadableSettings:
        """The settings as far as they can be read now: a sensor that raises monitors nothing and alerts nobody."""
        return read_settings_and_calendar(self.settings)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of the universe, in its order."""
        return tuple(self.keys)


# ---- heartbeats


def heartbeat_sensor(gateway: MonitoredGateway, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Evaluates the heartbeat checks on a change and every few minutes, and alerts once per incident."""

    @dg.sensor(
        name=gateway.named("ibkr_depth_heartbeats"),
        minimum_interval_seconds=INTERVAL_SECS,
        default_status=status,
        description="Monitors each symbol's heartbeat during a session. One alert per incident, one at its end.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        readable = gateway.read_settings()
        if readable.blind:
            return dg.SensorResult(skip_reason=f"Nothing can be judged: {readable.problem}", cursor=context.cursor)
        done = heartbeat_tick(
            readable.settings,
            gateway.symbols,
            context.cursor,
            lambda window: stopped_by_person(newest_runs(instance_of(context), gateway.ingest), window),
        )
        events = [dg.AssetCheckEvaluation(**_check_fields(gateway, check)) for check in done.checks]
        skip = done.quiet or f"{len(events)} checks evaluated, {len(done.alerts)} alerts raised."
        return dg.SensorResult(skip_reason=skip, cursor=done.state, asset_events=events)

    return tick


def heartbeat_checks(gateway: MonitoredGateway) -> dg.AssetChecksDefinition:
    """The checks that the sensor evaluates, one for the feed and one per symbol. They can be executed by hand, too."""

    @dg.multi_asset_check(name=gateway.named("ibkr_depth_heartbeat_checks"), specs=_specs(gateway), can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for check in heartbeat_checks_now(gateway.settings(), gateway.symbols):
            if dg.AssetCheckKey(_key(gateway, check), HEARTBEAT_CHECK) in context.selected_asset_check_keys:
                yield dg.AssetCheckResult(**_check_fields(gateway, check))

    return checks


def _check_fields(gateway: MonitoredGateway, check: HeartbeatCheck) -> dict[str, Any]:
    """A check as Dagster's fields, the same for an executed check and for an evaluation by the sensor."""
    return {
        "asset_key": _key(gateway, check),
        "check_name": HEARTBEAT_CHECK,
        "passed": check.passed,
        "severity": dg.AssetCheckSeverity.ERROR if check.certain else dg.AssetCheckSeverity.WARN,
        "description": check.description,
        "metadata": {"state": check.state, **check.figures},
    }


def _key(gateway: MonitoredGateway, check: HeartbeatCheck) -> dg.AssetKey:
    return gateway.feed_key if check.symbol == FEED else gateway.keys[check.symbol]


def _specs(gateway: MonitoredGateway) -> Sequence[dg.AssetCheckSpec]:
    keys = [gateway.feed_key, *gateway.keys.values()]
    return [dg.AssetCheckSpec(HEARTBEAT_CHECK, asset=key, description=_CHECKED) for key in keys]


_CHECKED = "The heartbeat in Redis stands: recording is live. Evaluated by the heartbeat sensor during a session."


# ---- alerts of runs


def run_alert_sensor(gateway: MonitoredGateway, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Alerts each failed or canceled run of a gateway, and bad settings, at any time of the day."""

    @dg.sensor(
        name=gateway.named("ibkr_depth_run_alerts"),
        minimum_interval_seconds=INTERVAL_SECS,
        default_status=status,
        description="Alerts each run of the ingest and of the probe that fails or is canceled, and bad settings.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _alert_endings(context, gateway.tracked, gateway.read_settings())

    return tick


def archive_alert_sensor(status: dg.DefaultSensorStatus, *tracked: TrackedJob) -> dg.SensorDefinition:
    """Alerts failed and canceled runs of the archive, which all gateways share. Bad settings are theirs to alert."""

    @dg.sensor(
        name="ibkr_depth_archive_run_alerts",
        minimum_interval_seconds=INTERVAL_SECS,
        default_status=status,
        description="Alerts each run of the archive, and of the nightly purge, that fails or is canceled.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _alert_endings(context, tracked, replace(read_settings(load_settings), problem=""))

    return tick


def _alert_endings(
    context: dg.SensorEvaluationContext, tracked: Sequence[TrackedJob], readable: ReadableSettings
) -> dg.SensorResult:
    endings = bad_endings(instance_of(context), tracked, failures_since(context.cursor))
    done = run_alert_tick(readable.settings, endings, context.cursor, readable.problem, blind=readable.blind)
    return dg.SensorResult(skip_reason=f"{len(done.alerts)} alerts raised.", cursor=done.state)
