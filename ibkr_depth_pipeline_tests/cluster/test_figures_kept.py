"""The history of figures and the alerts, from wherever the ingests' keys lie."""

from __future__ import annotations

from pathlib import Path

from ibkr_depth_pipeline.archive.alerts import alerts_of
from ibkr_depth_pipeline.archive.archiver import run_archiver
from ibkr_depth_pipeline.archive.figures import ingests, read_figures
from ibkr_depth_pipeline.archive.layout import day_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.monitoring.delivery import deliver, redis_record
from ibkr_depth_pipeline.monitoring.state import AlertOutbox
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.schema.keys import ingest_key
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON
from ibkr_depth_pipeline_tests.cluster.servers import Servers

NAMES = ["a", "b", "c", "default", "e", "f"]


def test_figures_of_every_ingest_are_kept(several: Servers, tmp_path: Path) -> None:
    settings = load_settings(redis_url=several.url, archive_url=str(tmp_path / "archive"))
    with several.client() as client:
        for name in NAMES:
            figures = FeedFigures(RunIdentity(f"run-{name}", "a-host", 77, NOON), NOON)
            client.set(ingest_key(name), figures.to_json())
    run_archiver(settings, once=True)
    store = ArchiveStore(settings.archive_url)
    assert ingests(store, DAY) == NAMES
    assert [read_figures(store, DAY, name)["run_id"].to_pylist() for name in NAMES] == [[f"run-{n}"] for n in NAMES]


def test_alerts_of_every_ingest_are_put_on_record_and_kept(several: Servers, tmp_path: Path) -> None:
    alert = Alert(unix_ms(), AlertKind.TROUBLE, "gateway", "feed stale", "the gateway is away")
    for name in NAMES:
        settings = load_settings(redis_url=several.url, ibkr_gateway_name=name, archive_url=str(tmp_path / "archive"))
        for _ in range(2):
            assert deliver(AlertOutbox(), [alert], (), alert.ts, record=redis_record(settings)) == AlertOutbox()
    run_archiver(settings, once=True)
    kept = alerts_of(ArchiveStore(settings.archive_url), day_of(alert.ts))
    assert [(each.ingest, each.alert) for each in kept] == [(name, alert) for name in NAMES]
