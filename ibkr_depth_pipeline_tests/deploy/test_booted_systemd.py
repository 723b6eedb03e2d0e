"""The units under a booted systemd, installed by install.sh: restart, stop, wipe, upgrade and back, broken versions.

The tests share one machine and run in the order of this file; the last one breaks it. `-s` prints what was measured.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.hours.trading import TradingHours
from ibkr_depth_pipeline.reader import open_reader
from ibkr_depth_pipeline_tests.deploy.booted import BootedMachine, DoesNotBoot, make_machine, missing_tool
from ibkr_depth_pipeline_tests.deploy.installed import (
    LINK,
    NEEDED,
    PATIENCE_SECS,
    SERVICES,
    SYMBOLS,
    TARGET,
    InstalledRecorder,
    unit_name,
)
from ibkr_depth_pipeline_tests.monitoring.webhook import Webhook

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

OLDEST_DAGSTER = "1.13.0"
"""What pyproject.toml admits at least: version 1 has that, version 2 the tested one."""

CALENDARS = ("XNYS", "XTKS", "XLON", "XASX", "XBOM")
"""Around the globe: one of them is closed at any hour."""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledRecorder]:
    if reason := missing_tool():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("machine")
    root = folder / "root"
    try:
        make_machine(root, NEEDED)
        machine = BootedMachine(root, folder / "console.log")
    except DoesNotBoot as reason:
        pytest.skip(str(reason))
    try:
        installed = InstalledRecorder(machine)
        installed.install(1, dagster=OLDEST_DAGSTER)
        yield installed
    finally:
        machine.end()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def webhook(recorder: InstalledRecorder) -> Iterator[Webhook]:
    with recorder.machine.network(), Webhook() as running:
        yield running


@pytest.fixture(scope="module")
def started(recorder: InstalledRecorder, webhook: Webhook) -> InstalledRecorder:
    """Configured, and started with archiver and page, beside the gateway's unit."""
    # a slow machine takes longer to start than the default grace; what fails is alerted all the same
    patient = {"ibkr_alert_grace_secs": 1200, "ibkr_alert_after_secs": 600}
    recorder.configure(ibkr_calendar="24/7", ibkr_stream_maxlen=1_000_000, alert_urls=webhook.url, **patient)
    recorder.list_symbols()
    with recorder.machine.network():
        recorder.start_gateway()
        recorder.systemctl("enable", unit_name("archive"), unit_name("page"))
        recorder.systemctl("start", TARGET)
    return recorder


@pytest.fixture
def recording(started: InstalledRecorder) -> Iterator[InstalledRecorder]:
    """A session is under way; the test is in the machine's network."""
    with started.machine.network():
        started.grows()
        yield started


def archive_of(recorder: InstalledRecorder) -> Path:
    return recorder.machine.root / "var/lib/ibkr-depth/archive"


def measured(what: str, value: object) -> None:
    print(f"MEASURED {what}: {value}")


def test_installed_services_record_archive_and_serve(recording: InstalledRecorder) -> None:
    assert recording.states() == dict.fromkeys(SERVICES, "active")
    assert recording.failed_units() == ""
    assert wait_until(lambda: any(archive_of(recording).glob("books/*/*/*.parquet")), PATIENCE_SECS)
    recording.machine.run(f"{LINK}/.venv/bin/python", "-c", _ASK.format(port=3080))
    (run,) = recording.runs()
    assert run.status == "STARTED"


_ASK = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=30).read()"


def test_systemd_accepts_the_installed_units_and_finds_them_confined(recording: InstalledRecorder) -> None:
    units = [unit_name(service) for service in (*SERVICES, "gateway", "alert@x")]
    machine = recording.machine
    assert machine.run("systemd-analyze", "verify", *units, TARGET) == ""
    for service in SERVICES:
        rated = machine.run("systemd-analyze", "--no-pager", "security", unit_name(service))
        found = re.search(r"exposure level for \S+: ([0-9.]+)", rated)
        assert found is not None
        measured(f"exposure of {service}", found[1])
        assert float(found[1]) < 4


def test_gateways_unit_runs_what_it_names_as_its_own_user(recording: InstalledRecorder) -> None:
    main = recording.machine.unit(unit_name("gateway"), "MainPID")
    assert "ibkr_gateway_sim" in recording.machine.run("ps", "-o", "args=", "--pid", main)
    assert recording.machine.run("ps", "-o", "user=", "--pid", main).strip() == "ibgateway"


def test_restart_of_a_healthy_session_is_a_hand_over(recording: InstalledRecorder, webhook: Webhook) -> None:
    before, began = recording.count(), time.monotonic()
    recording.systemctl("restart", TARGET)
    measured("systemctl restart returns after", f"{time.monotonic() - began:.1f} s")
    recording.grows()
    measured("restart within a session, without a row", f"{recording.gap_ms(before) / 1000:.1f} s")
    newest, drained, *_ = recording.runs()
    assert (newest.status, drained.status) == ("STARTED", "SUCCESS")
    assert recording.is_whole()
    assert recording.failed_units() == ""
    assert [recording.machine.unit(unit_name(service), "NRestarts") for service in SERVICES] == ["0"] * len(SERVICES)
    assert webhook.received == []


def test_stop_script_returns_when_nothing_runs_any_more(recording: InstalledRecorder, webhook: Webhook) -> None:
    recording.run_script("stop", 1)
    assert recording.states() == dict.fromkeys(SERVICES, "inactive")
    assert recording.machine.run("sh", "-c", "ps --user ibkr-depth -o args= || true") == ""
    assert not recording.store.exists("raw:ibkr:depth:lease:default")
    recording.systemctl("start", TARGET)
    recording.grows()
    assert recording.is_whole()
    assert webhook.received == []


def test_wipe_script_empties_the_history_and_the_recording_goes_on(recording: InstalledRecorder) -> None:
    before = len(recording.runs())
    recording.run_script("wipe", 1)
    recording.grows()
    (only,) = recording.runs()
    assert before > 1
    assert only.status == "STARTED"
    assert recording.is_whole()


def test_upgrade_within_market_hours_and_back_again_lose_no_number(
    recording: InstalledRecorder, webhook: Webhook
) -> None:
    machine = recording.machine
    assert machine.run(f"{LINK}-1/.venv/bin/dagster", "--version").split()[-1] == OLDEST_DAGSTER
    assert "installed beside" in recording.install(2)
    assert recording.universe(2) == recording.universe(1)
    make_history_older(recording)
    for version, other in ((2, 1), (1, 2)):
        before, began = recording.count(), time.monotonic()
        switched = recording.run_script("switch", version)
        measured(f"switch.sh from {other} to {version} returns after", f"{time.monotonic() - began:.1f} s")
        assert f"now: {LINK}-{version}" in switched
        recording.grows()
        measured(f"{other} to {version} within a session, without a row", f"{recording.gap_ms(before) / 1000:.1f} s")
        main = machine.unit(unit_name("code"), "MainPID")
        assert machine.run("readlink", f"/proc/{main}/cwd").strip() == f"{LINK}-{version}"
        assert [run.status for run in recording.runs()[:2]] == ["STARTED", "SUCCESS"]
    assert revision(recording) != OLDER
    assert recording.is_whole()
    assert recording.failed_units() == ""
    assert webhook.received == []
    assert wait_until(lambda: len(archived(recording)) > before, PATIENCE_SECS)
    kept = archived(recording)
    assert kept == list(range(1, len(kept) + 1))


def archived(recorder: InstalledRecorder) -> list[int]:
    """The `seq` of each snapshot of the first symbol in the archive."""
    with open_reader(str(archive_of(recorder))) as reader:
        return [snapshot.seq for snapshot in reader.range(SYMBOLS[0])]


OLDER = "7e2f3204cf8e"
"""The revision of Dagster's tables before 1.12; on SQLite the later ones change nothing but this number."""

_INDEX = "/var/lib/ibkr-depth/dagster_home/history/runs.db"


def revision(recorder: InstalledRecorder) -> str:
    return recorder.machine.run("sqlite3", _INDEX, "SELECT version_num FROM alembic_version").strip()


def make_history_older(recorder: InstalledRecorder) -> None:
    """As a version of Dagster left it that has not all of today's migrations."""
    recorder.machine.run("sqlite3", _INDEX, f"UPDATE alembic_version SET version_num = '{OLDER}'")


def closed_calendar() -> str:
    """A calendar that is closed now, and for half an hour."""
    now = datetime.now(timezone.utc)
    moments = (now, now + timedelta(minutes=30))
    return next(name for name in CALENDARS if not any(TradingHours(name, now).session_at(at) for at in moments))


def test_upgrade_outside_market_hours_starts_no_run_and_alerts_nothing(
    recording: InstalledRecorder, webhook: Webhook
) -> None:
    recording.configure(ibkr_calendar=closed_calendar(), ibkr_session="calendar", ibkr_ingest_lead_minutes=0)
    recording.run_script("stop", 1)
    before = recording.count()
    recording.systemctl("start", TARGET)
    launched = len(recording.runs())
    for version in (2, 1):
        began = time.monotonic()
        recording.run_script("switch", version)
        assert wait_until(lambda: ticked(recording), PATIENCE_SECS), recording.machine.journal(unit_name("daemon"))
        measured(f"outside hours, to {version}: the watchdog looks after", f"{time.monotonic() - began:.1f} s")
    assert len(recording.runs()) == launched
    assert recording.count() == before
    assert recording.failed_units() == ""
    assert webhook.received == []
    recording.configure(ibkr_calendar="24/7")


def ticked(recorder: InstalledRecorder) -> bool:
    """Whether the watchdog has looked since the daemon's start."""
    since = recorder.machine.unit(unit_name("daemon"), "InvocationID")
    lines = recorder.machine.run("journalctl", "--no-pager", f"_SYSTEMD_INVOCATION_ID={since}")
    return "Sensor ibkr_depth_watchdog skipped: outside the session" in lines


def test_broken_environment_is_given_up_and_alerted_by_the_version_beside_it(
    recorder: InstalledRecorder, webhook: Webhook
) -> None:
    with recorder.machine.network():
        recorder.run_script("stop", 1)
        recorder.machine.run("mv", f"{LINK}-1/.venv/bin/python3", f"{LINK}-1/python3.away")
        began = time.monotonic()
        recorder.machine.run("sh", "-c", f"systemctl start {TARGET} || true")
        given_up = wait_until(lambda: recorder.states() == dict.fromkeys(SERVICES, "failed"), 600.0)
        assert given_up, recorder.states()
        measured("a broken environment is given up after", f"{time.monotonic() - began:.0f} s")
        restarts = {recorder.machine.unit(unit_name(service), "NRestarts") for service in SERVICES}
        (limit,) = {recorder.machine.unit(unit_name(service), "StartLimitBurst") for service in SERVICES}
        assert {int(each) for each in restarts} <= {int(limit) - 1, int(limit)}  # the first start is none
        assert wait_until(lambda: len(webhook.titles()) >= len(SERVICES), PATIENCE_SECS)
        alerted = [title.partition(" has failed")[0].rpartition(" ")[2] for title in webhook.titles()]
        assert sorted(alerted) == sorted(map(unit_name, SERVICES))
