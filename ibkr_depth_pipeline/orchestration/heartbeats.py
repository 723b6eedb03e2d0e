"""Heartbeats in Dagster: the sensor that watches them all session, and a check per symbol that it tells."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.alerts.checks import FEED, Finding
from ibkr_depth_pipeline.alerts.rounds import findings_now, heartbeat_round
from ibkr_depth_pipeline.orchestration.watched import Watched

CHECK = "heartbeat"
EVERY_SECS = 15


def heartbeat_sensor(watched: Watched, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Every EVERY_SECS during a session: checks on a change and every few minutes, alerts by episode."""

    @dg.sensor(
        name=watched.named("ibkr_depth_heartbeats"),
        minimum_interval_seconds=EVERY_SECS,
        default_status=status,
        description="Watches each symbol's heartbeat during a session. One alert an episode, one at its end.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        reading = watched.reading()
        if reading.blind:
            return dg.SensorResult(skip_reason=f"Nothing can be told: {reading.problem}", cursor=context.cursor)
        done = heartbeat_round(reading.settings, watched.symbols, context.cursor)
        events = [dg.AssetCheckEvaluation(**_told(watched, found)) for found in done.findings]
        skip = done.quiet or f"{len(events)} checks told, {len(done.alerts)} alerts raised."
        return dg.SensorResult(skip_reason=skip, cursor=done.memory, asset_events=events)

    return tick


def heartbeat_checks(watched: Watched) -> dg.AssetChecksDefinition:
    """The checks that the sensor tells. Executed by hand, they say what is at that moment."""

    @dg.multi_asset_check(name=watched.named("ibkr_depth_heartbeat_checks"), specs=_specs(watched), can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for found in findings_now(watched.settings(), watched.symbols):
            if dg.AssetCheckKey(_key(watched, found), CHECK) in context.selected_asset_check_keys:
                yield dg.AssetCheckResult(**_told(watched, found))

    return checks


def _told(watched: Watched, found: Finding) -> dict[str, Any]:
    """A finding as fields of Dagster's, the same for a check that is executed and for one that is told."""
    return {
        "asset_key": _key(watched, found),
        "check_name": CHECK,
        "passed": found.passed,
        "severity": dg.AssetCheckSeverity.ERROR if found.certain else dg.AssetCheckSeverity.WARN,
        "description": found.words,
        "metadata": {"state": found.state, **found.figures},
    }


def _key(watched: Watched, found: Finding) -> dg.AssetKey:
    return watched.feed_key if found.symbol == FEED else watched.keys[found.symbol]


def _specs(watched: Watched) -> Sequence[dg.AssetCheckSpec]:
    keys = [watched.feed_key, *watched.keys.values()]
    return [dg.AssetCheckSpec(CHECK, asset=key, description=_CHECKED) for key in keys]


_CHECKED = "The heartbeat in Redis stands: it is recorded, now. Told by the heartbeat sensor during a session."
