"""Dagster's session is that of the universe's instruments, by the hours that the ingest published, on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.hours.instruments import MarketHours
from ibkr_depth_pipeline.hours.trading import OutsideSession
from ibkr_depth_pipeline.hours.universe import UniverseHours
from ibkr_depth_pipeline.monitoring.ticks import heartbeat_tick, recording_window, universe_sessions
from ibkr_depth_pipeline.orchestration.ingest.asset import IngestConfig
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import TrackedJob
from ibkr_depth_pipeline.orchestration.resources import ExchangeHours, session_clock
from ibkr_depth_pipeline.orchestration.scheduling import opening_schedule
from ibkr_depth_pipeline.schema.keys import ingest_hours_key
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.sink.status import HOURS_KEPT_SECS
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline_tests.dagster.conftest import SYMBOLS, closed_now, execute, failure_of
from ibkr_depth_pipeline_tests.dagster.test_sensors import Sensor

HOUR = 3_600_000
UNIVERSE = Universe((SymbolSpec("SPY"), SymbolSpec("ES")))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def publish(url: str, **hours: tuple[float, float]) -> None:
    """Each instrument is open from so many hours from now until so many hours from now."""
    now = now_ms()
    known = {
        name: MarketHours("trading", ((now + int(opens * HOUR), now + int(closes * HOUR)),), now + 100 * HOUR)
        for name, (opens, closes) in hours.items()
    }
    with redis.Redis.from_url(url) as store:
        store.set(ingest_hours_key("default"), UniverseHours.of(known).to_json())


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def closed_calendar(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The exchange is closed now."""
    monkeypatch.setenv("IBKR_CALENDAR", closed_now())
    return load_settings()


def test_sensors_follow_the_instruments_while_the_exchange_is_closed(
    closed_calendar: Settings, instance: dg.DagsterInstance, shared_redis_url: str
) -> None:
    watchdog, heartbeats = Sensor("ibkr_depth_watchdog", instance), Sensor("ibkr_depth_heartbeats", instance)
    assert "outside the session" in str(watchdog.tick().skip_reason)
    assert "is closed" in str(heartbeats.tick().skip_reason)
    publish(shared_redis_url, SPY=(-30, -24), ES=(-2, 3))
    assert watchdog.tick().run_requests
    assert heartbeats.tick().asset_events
    publish(shared_redis_url, SPY=(-30, -24), ES=(-2, -1))
    assert "outside the session" in str(watchdog.tick().skip_reason)
    assert "universe are closed" in str(heartbeats.tick().skip_reason)


def test_calendar_counts_if_the_settings_say_so_and_if_no_hours_are_known(
    closed_calendar: Settings, shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = now_ms()
    assert universe_sessions(closed_calendar, now) is None
    publish(shared_redis_url, ES=(-2, 3))
    window = recording_window(closed_calendar, now)
    assert window is not None
    assert abs(window.close_ts - (now + 3 * HOUR)) < 60_000
    monkeypatch.setenv("IBKR_SESSION", "calendar")
    assert recording_window(load_settings(), now) is None
    assert heartbeat_tick(load_settings(), ("ES",), None).quiet


def test_run_ends_at_the_last_close_and_is_refused_while_all_are_closed(
    closed_calendar: Settings, shared_redis_url: str
) -> None:
    now = datetime.now(timezone.utc)
    publish(shared_redis_url, SPY=(-1, 2), ES=(-20, 5))
    clock = session_clock(closed_calendar, UNIVERSE, ExchangeHours(), now)
    left = IngestConfig(stop_at_close=True).seconds_to_record(clock, now)
    assert left == pytest.approx(5 * 3600, abs=5)
    alone = session_clock(closed_calendar, Universe((SymbolSpec("SPY"),)), ExchangeHours(), now)
    assert IngestConfig(stop_at_close=True).seconds_to_record(alone, now) == pytest.approx(2 * 3600, abs=5)
    publish(shared_redis_url, SPY=(5, 9), ES=(4, 8))
    shut = session_clock(closed_calendar, UNIVERSE, ExchangeHours(), now)
    opens = f"{now + timedelta(hours=4):%Y-%m-%d %H:%M}"[:-1]
    with pytest.raises(OutsideSession, match=f"the first opens at {opens}.*stop_at_close: false"):
        IngestConfig(stop_at_close=True).seconds_to_record(shut, now)
    named = ExchangeHours(calendar="24/7")
    assert session_clock(closed_calendar, UNIVERSE, named, now) is named


def test_run_whose_instruments_are_closed_fails_at_once_and_connects_nowhere(
    closed_calendar: Settings, instance: dg.DagsterInstance, gateway: GatewayThread, shared_redis_url: str
) -> None:
    publish(shared_redis_url, SPY=(5, 9), AAPL=(4, 8))
    assert "the first opens at" in failure_of(execute(instance, stop_at_close=True))
    assert not gateway.journal.entries("opened")
    publish(shared_redis_url, SPY=(-1, 0.0015))
    assert execute(instance, stop_at_close=True).success, "it ends by itself at the last close"


def make_old(url: str) -> None:
    """What is published was published two hours ago."""
    with redis.Redis.from_url(url) as store:
        store.expire(ingest_hours_key("default"), HOURS_KEPT_SECS - 2 * 3600)


def test_run_that_old_hours_would_refuse_asks_the_gateway_for_them_and_records(
    closed_calendar: Settings, instance: dg.DagsterInstance, gateway: GatewayThread, shared_redis_url: str
) -> None:
    publish(shared_redis_url, SPY=(5, 9), AAPL=(4, 8))
    make_old(shared_redis_url)
    assert execute(instance, stop_at_close=True, duration=1.0).success
    published = UniverseHours.of_json(redis.Redis.from_url(shared_redis_url).get(ingest_hours_key("default")))
    assert all(hours.is_open(now_ms()) for hours in published.by_symbol().values())


def test_run_without_published_hours_is_refused_by_no_calendar_before_the_gateway_was_asked(
    closed_calendar: Settings, instance: dg.DagsterInstance
) -> None:
    assert execute(instance, stop_at_close=True, duration=1.0).success


def test_run_whose_markets_are_closed_by_the_gateway_too_is_refused(
    closed_calendar: Settings, instance: dg.DagsterInstance, shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shared_redis_url, SPY=(5, 9))
    make_old(shared_redis_url)
    day = datetime.now(timezone.utc).date() + timedelta(days=3)
    listed = f"{day:%Y%m%d}:0930-{day:%Y%m%d}:1600"
    with GatewayThread(GatewayOptions(hours=dict.fromkeys(SYMBOLS, listed))) as closed:
        monkeypatch.setenv("IBKR_PORT", str(closed.port))
        assert f"the first opens at {day}" in failure_of(execute(instance, stop_at_close=True))
        assert closed.journal.entries("opened")


def test_run_that_old_hours_refuse_says_that_the_gateway_could_not_be_asked(
    closed_calendar: Settings,
    instance: dg.DagsterInstance,
    shared_redis_url: str,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(shared_redis_url, SPY=(5, 9))
    make_old(shared_redis_url)
    monkeypatch.setenv("IBKR_PORT", str(unused_port))
    text = failure_of(execute(instance, stop_at_close=True))
    assert "the first opens at" in text
    assert f"The gateway could not be asked for its hours: 127.0.0.1:{unused_port}: nothing listens there" in text


def test_schedule_starts_a_run_by_the_instruments_hours(instance: dg.DagsterInstance, shared_redis_url: str) -> None:
    due = datetime(2026, 11, 26, 14, 25, tzinfo=timezone.utc)  # Thanksgiving
    settings = load_settings(redis_url=shared_redis_url)

    def tick(*open_spans: tuple[str, str]) -> dg.RunRequest | dg.SkipReason:
        spans = [tuple(int(datetime.fromisoformat(f"{at}+00:00").timestamp()) * 1000 for at in s) for s in open_spans]
        hours = MarketHours("trading", tuple((opens, closes) for opens, closes in spans), 2**45)
        with redis.Redis.from_url(shared_redis_url) as store:
            store.set(ingest_hours_key("default"), UniverseHours.of({"ES": hours}).to_json())
        schedule = opening_schedule(
            "before_open",
            TrackedJob("ibkr_depth_ingest_job"),
            lead=timedelta(minutes=5),
            after_open=True,
            run_config={},
            clock=lambda: due,
            sessions=lambda now: universe_sessions(settings, now),
        )
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=due) as context:
            answer = schedule(context)
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    assert isinstance(tick(("2026-11-25T23:00", "2026-11-26T18:00")), dg.RunRequest)
    assert isinstance(tick(("2026-11-26T14:30", "2026-11-26T18:00")), dg.RunRequest)
    closed = tick(("2026-11-25T23:00", "2026-11-26T01:00"), ("2026-11-26T23:00", "2026-11-27T18:00"))
    assert isinstance(closed, dg.SkipReason)
    assert "the first opens at 2026-11-26 23:00" in str(closed.skip_message)
