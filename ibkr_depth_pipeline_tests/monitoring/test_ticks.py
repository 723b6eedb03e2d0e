"""Readings of Redis by the sensors are bounded in time; the watchdog judges the runs that record into it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.monitoring import ticks
from ibkr_depth_pipeline.monitoring.diagnosis import FEED, Unreachable
from ibkr_depth_pipeline.monitoring.supervision import ABSENT_MS, DEAD_MS, Launch, Phase, TrackedRun
from ibkr_depth_pipeline.monitoring.ticks import (
    heartbeat_tick,
    read_redis,
    recording_window,
    standby_tick,
    watchdog_tick,
)
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, StandbyFigures, SymbolFigures
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

T, HOUR = 1_700_000_000_000, 3_600_000


@pytest.fixture
def resolver_hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that is away: no name is found before the test is over."""
    over = threading.Event()

    def hang(*_: object, **__: object) -> None:
        over.wait(PATIENCE_SECS)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield
    over.set()
    for thread in threading.enumerate():
        if thread.name == "look":
            thread.join()


def why_unreachable(settings: Settings) -> str:
    reading = read_redis(settings, (), patience=0.5)
    assert isinstance(reading, Unreachable)
    return reading.reason


def test_hanging_resolver_does_not_delay_a_reading(resolver_hangs: None) -> None:
    assert "did not answer" in why_unreachable(load_settings(redis_url="redis://redis.example:6379/0"))


def test_mute_redis_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        assert "did not answer" in why_unreachable(load_settings(redis_url=url))


def test_redis_that_refuses_connections_is_unreachable() -> None:
    assert "did not answer" not in why_unreachable(load_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))


def test_error_of_our_own_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ticks, "read_health", fails)
    with pytest.raises(ZeroDivisionError):
        read_redis(load_settings(), ())


@pytest.mark.parametrize(("calendar", "close", "last_call"), [("XNYS", 21, True), ("CMES", 23, False)])
def test_run_is_not_started_just_before_a_close_unless_the_next_session_follows_at_once(
    redis_url: str, calendar: str, close: int, last_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = round(datetime(2026, 11, 18, close, tzinfo=timezone.utc).timestamp() * 1000) - 30_000
    monkeypatch.setattr(ticks, "unix_ms", lambda: now)
    settings = load_settings(redis_url=redis_url, ibkr_calendar=calendar)
    done = watchdog_tick(settings, [], None, recording_window(settings, now), None)
    assert isinstance(done.launch, str) == last_call


@pytest.mark.parametrize(
    ("shares", "turns"),
    [
        ({"A": 1.0, "B": 1.0}, 1),
        ({"PIN": 1.0, "A": 0.5, "B": 0.5}, 2),
        ({"HEAVY": 0.6, "A": 0.2, "B": 0.2}, 5),
        ({"A": 0.0, "B": 1.0}, 1),  # the market of A is closed
        ({}, 4),
    ],
)
def test_grace_after_the_open_lasts_until_each_symbol_had_its_turn(
    shared_redis_url: str, shares: dict[str, float], turns: int
) -> None:
    settings = load_settings(redis_url=shared_redis_url, ibkr_calendar="24/7", ibkr_rotation_secs=10)
    now = ticks.unix_ms()
    grace_ms = int(settings.ibkr_alert_grace_secs * 1000) + turns * 10_000
    symbols = {name: SymbolFigures(share=share, last_row_ts=1) for name, share in shares.items()}
    for age_ms, early in ((grace_ms - 5000, True), (grace_ms + 5000, False)):
        figures = FeedFigures(RunIdentity("run", "host", 1, now - age_ms), now, connected=True, symbols=symbols)
        with redis.Redis.from_url(shared_redis_url) as store:
            store.set("raw:ibkr:depth:ingest:default", figures.to_json())
            store.set("raw:ibkr:depth:ingest:default:hb", "run", ex=60)
        done = heartbeat_tick(settings, tuple(shares) or tuple("ABCDEFGHIJ"), None)
        states = {check.symbol: check.certain for check in done.checks if check.symbol != FEED and not check.passed}
        assert states
        assert not any(states.values()) if early else all(states.values())


@pytest.mark.parametrize(("url", "judged"), [("", True), ("the settings'", True), ("redis://elsewhere:6379/0", False)])
def test_only_runs_that_record_into_the_redis_being_read_are_judged(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, url: str, judged: bool
) -> None:
    settings, state = load_settings(redis_url=redis_url), None
    run = TrackedRun("r1", Phase.STARTED, T, T, redis_url=redis_url if url == "the settings'" else url)
    for now in (T + HOUR, T + HOUR + DEAD_MS):
        monkeypatch.setattr(ticks, "unix_ms", lambda now=now: now)
        done = watchdog_tick(settings, [run], None, None, state)
        state = done.state
    assert list(done.dead) == (["r1"] if judged else [])


def published(url: str, recorder: str, *standbys: str) -> None:
    """What Redis shows while that run records, and those stand by, ready."""
    now = ticks.unix_ms()
    waiting = {name: StandbyFigures(RunIdentity(name, "host", 2, now), now, connected=True) for name in standbys}
    lines = [f"{now // 1000} {name} {figures.to_json().decode()}" for name, figures in waiting.items()]
    with redis.Redis.from_url(url) as store:
        store.set("raw:ibkr:depth:ingest:default", FeedFigures(RunIdentity(recorder, "host", 1, now), now).to_json())
        store.set("raw:ibkr:depth:ingest:default:hb", recorder, ex=60)
        store.set("raw:ibkr:depth:standby:default", "\n".join(lines), ex=60)


def test_recorder_of_another_service_gets_a_run_that_stands_by_only_with_a_standby(shared_redis_url: str) -> None:
    published(shared_redis_url, "of-a-service")
    for role, launched in (("off", False), ("on", True)):
        settings = load_settings(redis_url=shared_redis_url, ibkr_calendar="24/7", ibkr_standby=role)
        window = recording_window(settings, ticks.unix_ms())
        assert isinstance(watchdog_tick(settings, [], None, window, None).launch, Launch) is launched


def test_standby_of_another_service_needs_no_second_one(shared_redis_url: str) -> None:
    settings = load_settings(redis_url=shared_redis_url, ibkr_calendar="24/7", ibkr_standby="on")
    window = recording_window(settings, ticks.unix_ms())
    published(shared_redis_url, "r1", "of-a-service")
    assert standby_tick(settings, [], window, None, {"r1"}).launch == "another one stands by: run of-a-service"
    published(shared_redis_url, "r1")
    assert isinstance(standby_tick(settings, [], window, None, {"r1"}).launch, Launch)


def test_missing_standby_is_alerted_while_another_run_records(
    shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(redis_url=shared_redis_url, ibkr_calendar="24/7", ibkr_standby="on")
    now, state, alerts = ticks.unix_ms(), None, []
    run = TrackedRun("s1", Phase.STARTED, now, now)
    for later, standbys in ((0, ()), (ABSENT_MS, ()), (ABSENT_MS + 10_000, ()), (ABSENT_MS + 20_000, ("s1",))):
        published(shared_redis_url, "r1", *standbys)
        monkeypatch.setattr(ticks, "unix_ms", lambda later=later: now + later)
        done = standby_tick(settings, [run], recording_window(settings, now), state, {"r1"})
        state, alerts = done.state, [*alerts, *done.alerts]
        monkeypatch.undo()
    assert [(alert.kind.value, alert.cause) for alert in alerts] == [
        ("trouble", "standby_missing"),
        ("recovery", "standby_missing"),
    ]


def test_grace_begins_anew_as_a_standby_takes_over(shared_redis_url: str) -> None:
    settings = load_settings(redis_url=shared_redis_url, ibkr_calendar="24/7", ibkr_rotation_secs=10)
    now = ticks.unix_ms()
    waited = RunIdentity("standby", "host", 1, now - 24 * HOUR)
    for up_ms, certain in ((1000, False), (HOUR, True)):
        figures = FeedFigures(waited, now, connected=True, up_ms=up_ms, symbols={"A": SymbolFigures(last_row_ts=1)})
        with redis.Redis.from_url(shared_redis_url) as store:
            store.set("raw:ibkr:depth:ingest:default", figures.to_json())
            store.set("raw:ibkr:depth:ingest:default:hb", "standby", ex=60)
        (check,) = (each for each in heartbeat_tick(settings, ("A",), None).checks if each.symbol == "A")
        assert (check.passed, check.certain) == (False, certain)
