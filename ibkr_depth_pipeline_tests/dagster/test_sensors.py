"""The sensors on a real instance, with a real Redis and a real webhook; the cursor goes from tick to tick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from dagster._core.execution.plan.objects import StepSuccessData

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.definitions import build_definitions
from ibkr_depth_pipeline.orchestration.archive.archiver import ARCHIVE_JOB, ARCHIVE_KEY
from ibkr_depth_pipeline.orchestration.gateway_assets import load_gateway_assets, symbol_key
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import tracked_probe
from ibkr_depth_pipeline.orchestration.probe import LONGEST_PROBE
from ibkr_depth_pipeline.orchestration.scheduling import opening_schedule
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline_tests.dagster.conftest import FEED, SYMBOLS, closed_now
from ibkr_depth_pipeline_tests.monitoring.test_deadman import Switch
from ibkr_depth_pipeline_tests.monitoring.webhook import SECRET, Webhook

INGEST, PROBE = "ibkr_depth_ingest_job", "ibkr_depth_probe_job"
MATERIALIZE = "__ASSET_JOB"
PROBED = symbol_key("SPY")


Launched = tuple[Any, ...]
LAUNCHED = pytest.mark.parametrize(
    "launched", [(INGEST,), (MATERIALIZE, FEED)], ids=["by its job", "on the asset's page"]
)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def in_session(
    environment: dict[str, str], redis_server: EmbeddedRedis, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A market that is always open, alerts without delay, a Redis that may be killed."""
    now = {"IBKR_CALENDAR": "24/7", "IBKR_ALERT_AFTER_SECS": "0", "IBKR_ALERT_GRACE_SECS": "0"}
    for name, value in {**now, "ALERT_URLS": webhook.url, "REDIS_URL": redis_server.url}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def stored_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """On disk: a schedule opens its instance by itself."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@dataclass
class Sensor:
    """One sensor of the location, ticking. `cursor` survives a restart of everything else."""

    name: str
    instance: dg.DagsterInstance
    cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        defs = build_definitions(load_gateway_assets())  # as a location that has just been loaded
        with dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=defs) as context:
            result = defs.resolve_sensor_def(self.name)(context)
        assert isinstance(result, dg.SensorResult)
        assert SECRET not in repr(result)
        self.cursor = result.cursor
        return result

    def checks(self) -> dict[str, bool]:
        """What the tick tells: the last part of an asset's key -> whether its check passes."""
        events = self.tick().asset_events
        return {
            event.asset_key.path[-1]: event.passed for event in events if isinstance(event, dg.AssetCheckEvaluation)
        }


def record(server: EmbeddedRedis, *fresh: str, run_id: str = "run-1", connected: bool = True) -> None:
    """What an ingest leaves in Redis: its own figures and heartbeat, those of the symbols that are fresh, no others."""
    now = time.time_ns() // 1_000_000
    run = RunIdentity(run_id, "host", 1, now - 3_600_000)
    with redis.Redis.from_url(server.url) as store:
        store.set("raw:ibkr:depth:ingest:default", FeedFigures(run, now, connected=connected).to_json())
        store.set("raw:ibkr:depth:ingest:default:hb", run_id, ex=60)
        for symbol in SYMBOLS:
            store.hset(f"raw:ibkr:depth:last:{symbol}", mapping={"ts": now - 1000, "venue": "ARCA"})
            store.delete(f"raw:ibkr:depth:hb:{symbol}")
        for symbol in fresh:
            store.set(f"raw:ibkr:depth:hb:{symbol}", now, ex=60)


def silence(server: EmbeddedRedis) -> None:
    """The ingest's own heartbeat runs out."""
    with redis.Redis.from_url(server.url) as store:
        store.delete("raw:ibkr:depth:ingest:default:hb")


def on_record(server: EmbeddedRedis) -> list[str]:
    """The titles of the alerts in the stream of the ingest, in their order."""
    with redis.Redis.from_url(server.url, decode_responses=True) as store:
        entries: Any = store.xrange("raw:ibkr:depth:alerts:default")
    return [fields["title"] for _, fields in entries]


@pytest.fixture
def heartbeats(in_session: None, instance: dg.DagsterInstance) -> Sensor:
    return Sensor("ibkr_depth_heartbeats", instance)


@pytest.fixture
def watchdog(in_session: None, instance: dg.DagsterInstance) -> Sensor:
    return Sensor("ibkr_depth_watchdog", instance)


@pytest.fixture
def run_alerts(in_session: None, instance: dg.DagsterInstance) -> Sensor:
    return Sensor("ibkr_depth_run_alerts", instance)


# ---- heartbeats


def list_symbols(server: EmbeddedRedis, *symbols: str) -> None:
    """The universe of the session that runs, in its figures."""
    now = time.time_ns() // 1_000_000
    figures = FeedFigures(
        RunIdentity("run-1", "host", 1, now - 3_600_000),
        now,
        connected=True,
        symbols={symbol: SymbolFigures(subscribed=True) for symbol in symbols},
    )
    with redis.Redis.from_url(server.url) as store:
        store.set("raw:ibkr:depth:ingest:default", figures.to_json())


def test_symbol_that_the_running_session_does_not_record_raises_no_alert_and_passes_its_check(
    heartbeats: Sensor, redis_server: EmbeddedRedis, webhook: Webhook
) -> None:
    first, *others = SYMBOLS
    record(redis_server, *others)
    list_symbols(redis_server, *others)
    assert all(heartbeats.checks().values())
    heartbeats.tick()
    assert webhook.received == []
    list_symbols(redis_server, *SYMBOLS)  # the change of the file is in force
    assert heartbeats.checks()[first] is False
    heartbeats.tick()
    assert len(webhook.received) == 1


def test_symbol_that_the_file_lost_is_watched_as_long_as_the_session_records_it(
    heartbeats: Sensor, redis_server: EmbeddedRedis, webhook: Webhook
) -> None:
    record(redis_server, *SYMBOLS)
    list_symbols(redis_server, *SYMBOLS, "GONE")
    assert "GONE" not in heartbeats.checks()
    heartbeats.tick()
    assert "GONE" in str(webhook.received)


def test_dead_mans_switch_hears_of_an_incident_and_of_its_end(
    heartbeats: Sensor, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Switch() as switch:
        monkeypatch.setenv("DEADMAN_URL", switch.url + "-{gateway}")
        path = switch.url.rpartition("/")[2] + "-default"
        record(redis_server, *SYMBOLS)
        heartbeats.tick()
        silence(redis_server)
        heartbeats.tick()
        heartbeats.tick()
        record(redis_server, *SYMBOLS)
        heartbeats.tick()
        heartbeats.tick()
        assert switch.asked == [f"/{path}", f"/{path}/fail", f"/{path}"]


def test_heartbeat_sensor_alerts_an_incident_once_and_its_end_once_and_evaluates_checks_on_a_change(
    heartbeats: Sensor, redis_server: EmbeddedRedis, webhook: Webhook
) -> None:
    record(redis_server, *SYMBOLS)
    assert heartbeats.checks() == {"feed": True, **dict.fromkeys(SYMBOLS, True)}
    assert heartbeats.checks() == {}
    record(redis_server, "SPY", "QQQ")
    assert heartbeats.checks() == {"AAPL": False, "MSFT": False}
    record(redis_server, "SPY")
    assert heartbeats.checks() == {"QQQ": False}
    assert webhook.titles() == ["IBKR depth default: AAPL, MSFT stale (these symbols only)"]
    record(redis_server, *SYMBOLS)
    assert heartbeats.checks() == {"AAPL": True, "MSFT": True, "QQQ": True}
    assert webhook.titles()[1:] == ["IBKR depth default: recovered"]
    assert heartbeats.checks() == {}
    assert len(webhook.received) == 2
    assert on_record(redis_server) == webhook.titles()


def test_heartbeat_sensor_distinguishes_a_killed_redis_from_a_missing_ingest(
    heartbeats: Sensor, redis_server: EmbeddedRedis, webhook: Webhook
) -> None:
    record(redis_server)
    silence(redis_server)
    assert heartbeats.checks() == dict.fromkeys(("feed", *SYMBOLS), False)
    assert webhook.titles() == ["IBKR depth default: feed stale (no ingest run)"]
    redis_server.kill()
    heartbeats.cursor = None
    results = heartbeats.tick().asset_events
    assert {str(event.metadata["state"].value) for event in results} == {"unknown", "redis"}
    assert webhook.titles()[1:] == ["IBKR depth default: feed stale (Redis unreachable)"]


def test_heartbeat_sensor_is_silent_outside_sessions(
    heartbeats: Sensor, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_CALENDAR", closed_now())
    result = heartbeats.tick()
    assert not result.asset_events
    assert "is closed" in str(result.skip_reason)
    assert not webhook.received


def test_alert_refused_by_the_webhook_is_delivered_once_it_is_back_also_after_a_restart(
    heartbeats: Sensor, redis_server: EmbeddedRedis, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook.refuse = True
    record(redis_server, "SPY")
    heartbeats.tick()
    assert webhook.refused == 1
    webhook.refuse = False
    heartbeats.tick()
    assert not webhook.received, "it waits before it tries again"
    monkeypatch.setattr("ibkr_depth_pipeline.monitoring.ticks.unix_ms", lambda: time.time_ns() // 1_000_000 + 60_000)
    heartbeats.tick()
    assert len(webhook.received) == 1


def test_heartbeat_checks_executed_by_hand_show_the_present_state(
    in_session: None, instance: dg.DagsterInstance, redis_server: EmbeddedRedis
) -> None:
    record(redis_server, "SPY")
    checks = build_definitions(load_gateway_assets()).get_asset_checks_def(
        dg.AssetCheckKey(symbol_key("SPY"), "heartbeat")
    )
    result = dg.materialize([checks], instance=instance, selection=dg.AssetSelection.all_asset_checks())
    found = {event.asset_key: event.passed for event in result.get_asset_check_evaluations()}
    assert found == {FEED: True, **{symbol_key(symbol): symbol == "SPY" for symbol in SYMBOLS}}


# ---- watchdog


def started(instance: dg.DagsterInstance, job: str = INGEST, *assets: dg.AssetKey) -> str:
    """A run that the instance believes to be under way; of MATERIALIZE, for these assets."""
    job_def = build_definitions(load_gateway_assets()).resolve_job_def(job)
    selection = frozenset(assets) or None
    run = instance.create_run_for_job(job_def, status=dg.DagsterRunStatus.NOT_STARTED, asset_selection=selection)
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=job)
    instance.report_dagster_event(event, run_id=run.run_id)
    return run.run_id


def end(instance: dg.DagsterInstance, run_id: str, how: str = "failed") -> None:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    if how == "terminated":
        instance.report_run_canceling(run)
    if how == "failed":
        instance.report_run_failed(run, "the gateway is away")
    else:
        instance.report_run_canceled(run)


def test_watchdog_launches_a_run_for_a_session_without_one(watchdog: Sensor) -> None:
    (request,) = watchdog.tick().run_requests or ()
    assert request.run_config == {"ops": {"ibkr_depth_feed": {"config": {"stop_at_close": True}}}}
    (again,) = watchdog.tick().run_requests or ()
    assert request.run_key == again.run_key


@LAUNCHED
def test_watchdog_fails_a_run_without_heartbeat_and_no_other(
    watchdog: Sensor,
    instance: dg.DagsterInstance,
    redis_server: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
    launched: Launched,
) -> None:
    run_id = started(instance, *launched)
    record(redis_server, *SYMBOLS, run_id=run_id)
    for _ in range(2):
        assert "under way" in str(watchdog.tick().skip_reason)
    silence(redis_server)
    watchdog.tick()
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED
    monkeypatch.setattr("ibkr_depth_pipeline.monitoring.ticks.unix_ms", lambda: time.time_ns() // 1_000_000 + 30_000)
    watchdog.tick()
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_watchdog_judges_a_run_of_several_assets_only_while_it_records(
    watchdog: Sensor, instance: dg.DagsterInstance, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(instance, MATERIALIZE, PROBED, FEED)

    def look_later(secs: int) -> str:
        now = time.time_ns() // 1_000_000
        monkeypatch.setattr("ibkr_depth_pipeline.monitoring.ticks.unix_ms", lambda: now + secs * 1000)
        return str(watchdog.tick().skip_reason)

    def step(kind: dg.DagsterEventType, data: StepSuccessData | None = None) -> None:
        event = dg.DagsterEvent(kind.value, MATERIALIZE, step_key="ibkr_depth_feed", event_specific_data=data)
        instance.report_dagster_event(event, run_id=run_id)

    assert all("under way" in look_later(secs) for secs in (0, 600, 1200))
    step(dg.DagsterEventType.STEP_START)
    record(redis_server, *SYMBOLS, run_id=run_id)
    look_later(1210)
    silence(redis_server)
    step(dg.DagsterEventType.STEP_SUCCESS, StepSuccessData(1.0))
    look_later(1220)
    look_later(1800)
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED, "it goes on with what is downstream"
    step(dg.DagsterEventType.STEP_START)
    look_later(1810)
    look_later(2400)
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_materialize_of_another_asset_does_not_count_as_ingest(watchdog: Sensor, instance: dg.DagsterInstance) -> None:
    started(instance, MATERIALIZE, PROBED)
    assert watchdog.tick().run_requests


def test_watchdog_neither_fails_nor_launches_runs_while_redis_is_away(
    watchdog: Sensor, instance: dg.DagsterInstance, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(instance)
    record(redis_server, *SYMBOLS, run_id=run_id)
    watchdog.tick()
    redis_server.kill()
    monkeypatch.setattr("ibkr_depth_pipeline.monitoring.ticks.unix_ms", lambda: time.time_ns() // 1_000_000 + 3_600_000)
    watchdog.tick()
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED
    end(instance, run_id)
    assert "Redis" in str(watchdog.tick().skip_reason)


@LAUNCHED
def test_terminated_run_is_not_replaced_but_a_run_ended_by_a_signal_is(
    watchdog: Sensor, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, launched: Launched
) -> None:
    end(instance, started(instance), "canceled")
    monkeypatch.setattr("ibkr_depth_pipeline.monitoring.ticks.unix_ms", lambda: time.time_ns() // 1_000_000 + 60_000)
    assert watchdog.tick().run_requests
    end(instance, started(instance, *launched), "terminated")
    assert "terminated by a person" in str(watchdog.tick().skip_reason)


@LAUNCHED
def test_session_that_a_person_ended_raises_no_alert_of_missing_rows_until_a_run_is_launched(
    heartbeats: Sensor,
    instance: dg.DagsterInstance,
    redis_server: EmbeddedRedis,
    webhook: Webhook,
    launched: Launched,
) -> None:
    ended = started(instance, *launched)
    record(redis_server, run_id=ended)
    assert not all(heartbeats.checks().values())
    assert len(webhook.received) == 1, "symbols are stale"
    run = instance.get_run_by_id(ended)
    assert run is not None
    silence(redis_server)
    instance.report_run_canceling(run)  # it drains
    assert heartbeats.checks()["feed"] is False
    instance.report_run_canceled(run)
    skipped = [str(heartbeats.tick().skip_reason) for _ in range(2)]
    assert all("terminated by a person" in reason for reason in skipped)
    assert len(webhook.received) == 1
    end(instance, started(instance), "failed")
    heartbeats.tick()
    assert webhook.titles()[1:] == ["IBKR depth default: feed stale (no ingest run)"]


@pytest.mark.parametrize(("way", "word", "starts"), [("hold", "held", False), ("start", "started", True)])
def test_failed_probe_holds_the_ingest_if_set_and_is_alerted_once(
    watchdog: Sensor,
    instance: dg.DagsterInstance,
    webhook: Webhook,
    redis_server: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    word: str,
    starts: bool,
) -> None:
    monkeypatch.setenv("IBKR_PROBE_FAILED", way)
    end(instance, started(instance, PROBE))
    assert [bool(watchdog.tick().run_requests) for _ in range(2)] == [starts, starts]
    assert on_record(redis_server) == webhook.titles() == [f"IBKR depth default: probe failed, ingest {word}"]


@pytest.mark.parametrize("way", ["hold", "start"])
def test_ingest_schedule_is_held_by_a_failed_probe_if_set(
    in_session: None, stored_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("IBKR_PROBE_FAILED", way)
    schedule = build_definitions(load_gateway_assets()).resolve_schedule_def("ibkr_depth_ingest_before_open")

    def starts() -> bool:
        with dg.build_schedule_context(stored_instance, scheduled_execution_time=datetime.now(timezone.utc)) as context:
            return isinstance(schedule(context), dg.RunRequest)

    assert starts()
    end(stored_instance, started(stored_instance, PROBE))
    assert starts() == (way == "start")


def test_ingest_schedule_starts_nothing_beside_a_feed_launched_by_materialize(
    in_session: None, stored_instance: dg.DagsterInstance
) -> None:
    schedule = build_definitions(load_gateway_assets()).resolve_schedule_def("ibkr_depth_ingest_before_open")
    run_id = started(stored_instance, MATERIALIZE, FEED)
    with dg.build_schedule_context(stored_instance, scheduled_execution_time=datetime.now(timezone.utc)) as context:
        answer = schedule(context)
    assert isinstance(answer, dg.SkipReason)
    assert run_id in str(answer.skip_message)


@pytest.mark.parametrize("launched", [(PROBE,), (MATERIALIZE, PROBED)], ids=["by its job", "on the asset's page"])
def test_stuck_probe_is_failed_by_the_next_days_schedule_and_alerted_once(
    in_session: None, stored_instance: dg.DagsterInstance, webhook: Webhook, launched: Launched
) -> None:
    alerts = Sensor("ibkr_depth_run_alerts", stored_instance)
    alerts.tick()
    run_id = started(stored_instance, *launched)
    waiting = started(stored_instance, MATERIALIZE, FEED)

    def probe_after(hours: float) -> bool:
        assets, now = load_gateway_assets(), datetime.now(timezone.utc) + timedelta(hours=hours)
        schedule = opening_schedule(
            "probe_then",
            tracked_probe(assets),
            lead=timedelta(minutes=5),
            after_open=True,
            run_config={},
            calendar="24/7",
            longest=LONGEST_PROBE,
            clock=lambda: now,
        )
        with dg.build_schedule_context(stored_instance, scheduled_execution_time=now) as context:
            return isinstance(schedule(context), dg.RunRequest)

    assert not probe_after(hours=1)
    assert status(stored_instance, run_id) is dg.DagsterRunStatus.STARTED
    assert probe_after(hours=24)
    assert status(stored_instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert status(stored_instance, waiting) is dg.DagsterRunStatus.STARTED
    for _ in range(2):
        alerts.tick()
    (message,) = webhook.received
    assert "more than 2:00:00: its process is dead or stuck" in str(message["message"])


# ---- runs


def test_failed_and_canceled_runs_of_ingest_and_probe_are_alerted_once_each(
    run_alerts: Sensor, instance: dg.DagsterInstance, webhook: Webhook, redis_server: EmbeddedRedis
) -> None:
    end(instance, started(instance))
    run_alerts.tick()
    assert not webhook.received, "what ended before it first looked is no news"
    end(instance, started(instance))
    end(instance, started(instance, PROBE))
    end(instance, started(instance), "terminated")
    end(instance, started(instance, MATERIALIZE, FEED))
    end(instance, started(instance, MATERIALIZE, PROBED, symbol_key("QQQ")))
    end(instance, started(instance, MATERIALIZE, PROBED, FEED), "terminated")
    for _ in range(2):
        run_alerts.tick()
    assert sorted(webhook.titles(), key=str.lower) == [
        f"IBKR depth default: {INGEST} canceled",
        f"IBKR depth default: {INGEST} failed",
        f"IBKR depth default: {PROBE} failed",
        "IBKR depth default: Materialize of raw/ibkr/depth/feed canceled",
        "IBKR depth default: Materialize of raw/ibkr/depth/feed failed",
        "IBKR depth default: Materialize of raw/ibkr/depth/symbol/QQQ and 1 more failed",
    ]
    texts = " ".join(str(message["message"]) for message in webhook.received)
    assert "the gateway is away" in texts
    assert "Somebody terminated it." in texts
    assert texts.count("until the next session") == 2, "of both feeds that somebody terminated"
    assert sorted(on_record(redis_server)) == sorted(webhook.titles())


def test_failed_runs_of_the_archive_are_alerted_by_their_own_sensor(
    in_session: None, instance: dg.DagsterInstance, webhook: Webhook, redis_server: EmbeddedRedis
) -> None:
    sensors = [Sensor(f"ibkr_depth_{each}", instance) for each in ("archive_run_alerts", "run_alerts")]
    for sensor in sensors:
        sensor.tick()
    end(instance, started(instance, ARCHIVE_JOB))
    end(instance, started(instance, MATERIALIZE, ARCHIVE_KEY), "terminated")
    for sensor in sensors:
        sensor.tick()
    assert sorted(webhook.titles()) == [
        "IBKR depth default: Materialize of raw/ibkr/depth/archive canceled",
        f"IBKR depth default: {ARCHIVE_JOB} failed",
    ]
    assert "next session" not in " ".join(str(message["message"]) for message in webhook.received)
    assert sorted(on_record(redis_server)) == sorted(webhook.titles())


# ---- bad settings


@pytest.mark.parametrize(("name", "value"), [("IBKR_ROTATION_SECS", "1x"), ("IBKR_CALENDAR", "XXXX")])
def test_bad_setting_is_alerted_once_and_the_sensors_go_on(
    in_session: None,
    stored_instance: dg.DagsterInstance,
    webhook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    sensors = [Sensor(f"ibkr_depth_{each}", stored_instance) for each in ("heartbeats", "watchdog", "run_alerts")]
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("IBKR_ALERT_AFTER_SECS", "3600")
    for _ in range(2):
        for sensor in sensors:
            sensor.tick()
    (message,) = webhook.received
    assert message["title"] == "IBKR depth default: settings can't be read"
    assert name in str(message["message"])
    assert value in str(message["message"])


@pytest.mark.parametrize(
    ("name", "value"), [("REDIS_URL", "nonsense"), ("IBKR_GATEWAY_NAME", "a b"), ("REDIS_TLS_CA_FILE", __file__)]
)
def test_sensors_judge_no_run_if_the_redis_to_ask_is_unknown(
    in_session: None,
    stored_instance: dg.DagsterInstance,
    webhook: Webhook,
    redis_server: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    watchdog, heartbeats, run_alerts = (
        Sensor(f"ibkr_depth_{each}", stored_instance) for each in ("watchdog", "heartbeats", "run_alerts")
    )
    run_id = started(stored_instance)
    record(redis_server, *SYMBOLS, run_id=run_id)
    watchdog.tick()
    before = watchdog.cursor
    monkeypatch.setenv(name, value)
    for secs in (0, 3600, 7200):
        now = time.time_ns() // 1_000_000 + secs * 1000
        monkeypatch.setattr("ibkr_depth_pipeline.monitoring.ticks.unix_ms", lambda now=now: now)
        assert name in str(watchdog.tick().skip_reason)
        assert name in str(heartbeats.tick().skip_reason)
        run_alerts.tick()
    assert status(stored_instance, run_id) is dg.DagsterRunStatus.STARTED
    assert watchdog.cursor == before
    assert webhook.titles() == ["IBKR depth default: settings can't be read"]


# ---- on by default


@pytest.mark.parametrize(("switch", "status"), [("on", "RUNNING"), ("off", "STOPPED"), ("", "RUNNING")])
def test_automation_setting_switches_all_schedules_and_sensors(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, switch: str, status: str
) -> None:
    monkeypatch.setenv("IBKR_AUTOMATION", switch)
    defs = build_definitions(load_gateway_assets())
    schedules = [defs.resolve_schedule_def(f"ibkr_depth_{name}_before_open") for name in ("probe", "ingest")]
    instigators = [*(defs.sensors or ()), *schedules]
    assert len(instigators) == 6
    assert {each.default_status.value for each in instigators} == {status}  # type: ignore[union-attr]


def test_bad_setting_does_not_unload_sensors_and_schedules(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_PORT", "none")
    monkeypatch.setenv("IBKR_CALENDAR", "XXXX")
    defs = build_definitions(load_gateway_assets())
    assert {sensor.default_status.value for sensor in defs.sensors or ()} == {"STOPPED"}


def test_lead_times_and_calendar_are_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CALENDAR": "XLON", "PROBE_LEAD_MINUTES": "30", "INGEST_LEAD_MINUTES": "10"}.items():
        monkeypatch.setenv(f"IBKR_{name}", value)
    defs = build_definitions(load_gateway_assets())
    found = {name: defs.resolve_schedule_def(f"ibkr_depth_{name}_before_open") for name in ("probe", "ingest")}
    assert {name: each.cron_schedule for name, each in found.items()} == {"probe": "30 7 * * *", "ingest": "50 7 * * *"}
    assert {each.execution_timezone for each in found.values()} == {"Europe/London"}
