"""The shipped Prometheus rules: promtool accepts them, each fires when it should and at no other time."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ibkr_depth_pipeline.metrics.samples import families
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.metrics.sample_figures import FIGURES

RULES = REPOSITORY / "deploy" / "prometheus" / "ibkr_depth_rules.yaml"
THURSDAY, SUNDAY = "15h30m", "87h30m"
"""15:30 UTC on such days: promtool's clock starts at 00:00 UTC on Thursday, 1 January 1970."""

HEALTHY = {
    "ibkr_depth_start_time_seconds": "1772636000x1000",
    "ibkr_depth_gateway_connected": "1x1000",
    "ibkr_depth_gateway_suspended": "0x1000",
    'ibkr_depth_live_seconds_total{symbol="SPY"}': "0+10x1000",
    'ibkr_depth_last_row_timestamp_seconds{symbol="SPY"}': "1772636000x1000",
    'ibkr_depth_line_troubled{symbol="SPY"}': "0x1000",
    "ibkr_depth_buffer_bytes": "1000x1000",
    "ibkr_depth_buffer_limit_bytes": "67108864x1000",
    'ibkr_depth_snapshots_lost_total{symbol="SPY"}': "0x1000",
    "ibkr_depth_refused_309_total": "0x1000",
    "ibkr_depth_pacing_violations_total": "0x1000",
    'ibkr_depth_redis_latency_seconds_bucket{le="0.01"}': "0+6000x1000",
    'ibkr_depth_redis_latency_seconds_bucket{le="2.5"}': "0+6000x1000",
    'ibkr_depth_redis_latency_seconds_bucket{le="+Inf"}': "0+6000x1000",
    "ibkr_depth_clock_steps_total": "0x1000",
    "ibkr_depth_ts_ahead_seconds": "0x1000",
    "ibkr_depth_standbys_ready": "1x1000",
}
"""Samples of each minute, in promtool's notation."""

TROUBLES: dict[str, dict[str, str]] = {
    "IbkrDepthNoIngest": {"ibkr_depth_start_time_seconds": "_x1000"},
    "IbkrDepthFiguresOld": {"ibkr_depth_figures_timestamp_seconds": "1000x1000"},
    "IbkrDepthGatewayAway": {"ibkr_depth_gateway_suspended": "1x1000"},
    "IbkrDepthSymbolStale": {'ibkr_depth_live_seconds_total{symbol="SPY"}': "10x1000"},
    "IbkrDepthLineTroubled": {'ibkr_depth_line_troubled{symbol="SPY"}': "1x1000"},
    "IbkrDepthBufferFilling": {"ibkr_depth_buffer_bytes": "50000000x1000"},
    "IbkrDepthSnapshotsLost": {'ibkr_depth_snapshots_lost_total{symbol="SPY"}': "0+5x1000"},
    "IbkrDepth309Pressure": {"ibkr_depth_refused_309_total": "0+3x1000"},
    "IbkrDepthPacing": {"ibkr_depth_pacing_violations_total": "0+1x1000"},
    "IbkrDepthLag": {'ibkr_depth_redis_latency_seconds_bucket{le="0.01"}': "0+100x1000"},
    "IbkrDepthClockStep": {"ibkr_depth_clock_steps_total": "0+1x1000"},
    "IbkrDepthStandbyMissing": {"ibkr_depth_standbys_ready": "0x1000"},
}


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"] if "alert" in rule}


def test_every_metric_that_a_rule_names_is_served() -> None:
    served = {sample.name for family in families(FIGURES, "default") for sample in family.samples}
    served |= {f"{family.name}_total" for family in families(FIGURES, "default") if family.type == "counter"}
    served |= {family.name for family in families(FIGURES, "default")}
    for rule in alerts().values():
        assert set(re.findall(r"ibkr_depth_[a-z0-9_]+", rule["expr"])) <= served, rule["alert"]


def test_every_alert_has_a_test_of_its_trouble() -> None:
    assert set(alerts()) == set(TROUBLES)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here (apt-get install prometheus)")
    return subprocess.run([found, *arguments], capture_output=True, text=True)


def alerts_at(when: str, series: dict[str, str], tmp_path: Path) -> set[str]:
    """Which alerts promtool finds firing then."""
    listed = [{"series": _labelled(name), "values": values} for name, values in series.items()]
    # promtool compares: an alert that is expected not to fire, and does, is an error that names it
    case = {
        "interval": "1m",
        "input_series": listed,
        "alert_rule_test": [{"eval_time": when, "alertname": name, "exp_alerts": []} for name in alerts()],
    }
    file = tmp_path / "case.yaml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}
    file.write_text(yaml.safe_dump(document))
    result = promtool("test", "rules", str(file))
    output = result.stdout + result.stderr
    firing = set(re.findall(r"alertname: ?(\w+)", output))
    assert bool(firing) is (result.returncode != 0), output
    return firing


def _labelled(name: str) -> str:
    metric, brace, labels = name.partition("{")
    return f'{metric}{{job="ibkr", instance="host:9400"{", " + labels if brace else "}"}'


def test_promtool_accepts_the_rules() -> None:
    result = promtool("check", "rules", str(RULES))
    assert result.returncode == 0, result.stderr


def test_healthy_recording_raises_no_alert(tmp_path: Path) -> None:
    assert alerts_at(THURSDAY, HEALTHY, tmp_path) == set()


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_raises_its_alert_and_no_other(name: str, tmp_path: Path) -> None:
    assert alerts_at(THURSDAY, HEALTHY | TROUBLES[name], tmp_path) == {name}


def test_lag_of_an_ingest_without_a_histogram_raises_the_alert(tmp_path: Path) -> None:
    healthy = {name: values for name, values in HEALTHY.items() if "latency" not in name}
    gauge = 'ibkr_depth_redis_lag_seconds{percentile="99"}'
    assert alerts_at(THURSDAY, healthy | {gauge: "0.01x1000"}, tmp_path) == set()
    assert alerts_at(THURSDAY, healthy | {gauge: "5x1000"}, tmp_path) == {"IbkrDepthLag"}
    count = {"ibkr_depth_redis_latency_seconds_count": "0+6000x1000"}
    assert alerts_at(THURSDAY, HEALTHY | count | {gauge: "5x1000"}, tmp_path) == set()


def test_nothing_is_missed_on_a_day_without_a_session(tmp_path: Path) -> None:
    assert alerts_at(SUNDAY, {}, tmp_path) == set()


def test_first_start_of_prometheus_without_any_ingest_is_noticed(tmp_path: Path) -> None:
    assert alerts_at(THURSDAY, {}, tmp_path) == {"IbkrDepthNoIngest"}
