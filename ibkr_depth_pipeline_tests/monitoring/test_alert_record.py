"""Alerts on record in a real Redis: each once, by ingest, and never in the way of their delivery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, free_port
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.monitoring.delivery import deliver, redis_record
from ibkr_depth_pipeline.monitoring.state import MOST, AlertOutbox, RunAlertState, dump_state, load_state
from ibkr_depth_pipeline.monitoring.ticks import run_alert_tick
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind, decode_alert
from ibkr_depth_pipeline.schema.keys import alerts_stream
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.monitoring.webhook import Webhook

NOW = 1_700_000_000_000


def alert(title: str = "the title", kind: AlertKind = AlertKind.TROUBLE) -> Alert:
    return Alert(NOW, kind, "gateway", title, "line 1\nline 2 of a text — with any letter")


def on_record(url: str, name: str = "default") -> list[Alert]:
    client: Any = redis.Redis.from_url(url)
    return [decode_alert(fields) for _, fields in client.xrange(alerts_stream(name))]


def send(settings: Settings, *alerts: Alert, before: AlertOutbox | None = None) -> AlertOutbox:
    """A tick's delivery; what is left goes through the sensor's cursor."""
    urls, record = settings.alert_targets, redis_record(settings)
    left = deliver(before or AlertOutbox(), alerts, urls, NOW, record=record)
    return load_state(RunAlertState, dump_state(RunAlertState(outbox=left))).outbox


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


@pytest.fixture(autouse=True)
def _our_logs() -> None:
    configure_logging("DEBUG")


def test_alert_and_all_clear_are_on_record_in_order(shared_redis_url: str) -> None:
    settings = load_settings(redis_url=shared_redis_url)
    both = alert(), alert("recovered", AlertKind.RECOVERY)
    assert send(settings, *both) == AlertOutbox()
    assert on_record(shared_redis_url) == list(both)


def test_ingests_have_records_of_their_own(shared_redis_url: str) -> None:
    for name in ("east", "west"):
        send(load_settings(redis_url=shared_redis_url, ibkr_gateway_name=name), alert(f"of {name}"))
    assert [[each.title for each in on_record(shared_redis_url, name)] for name in ("east", "west")] == [
        ["of east"],
        ["of west"],
    ]


def test_alert_is_delivered_while_redis_is_away_and_on_record_once_it_is_back(
    webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    settings = load_settings(redis_url=f"redis://:hunter2@127.0.0.1:{port}/0", alert_urls=webhook.url)
    left = send(settings, alert("one"))
    left = send(settings, alert("two"), before=left)
    assert [each["title"] for each in webhook.received] == ["one", "two"]
    assert ([each.title for each in left.unrecorded], left.pending) == (["one", "two"], ())
    left = send(settings, before=left)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines].count("alert_not_recorded") == 2, "a retry logs nothing"
    assert "hunter2" not in str(lines)
    with EmbeddedRedis(port=port, extra_args=["--requirepass", "hunter2"]) as server:
        assert send(settings, before=left) == AlertOutbox()
        assert [each.title for each in on_record(server.url)] == ["one", "two"]
    assert len(webhook.received) == 2


def test_alert_whose_record_was_not_answered_is_on_record_once(
    redis_server: EmbeddedRedis, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibkr_depth_pipeline.monitoring.delivery.RECORD_SECS", 0.3)
    settings = load_settings(redis_url=redis_server.url, alert_urls=webhook.url)
    redis_server.pause()
    left = send(settings, alert())
    assert [each["title"] for each in webhook.received] == ["the title"]
    assert left.unrecorded == (alert(),)
    left = send(settings, before=left)
    redis_server.resume()
    assert wait_until(lambda: len(on_record(redis_server.url)) > 0, PATIENCE_SECS), "a late write is carried out"
    monkeypatch.undo()
    assert send(settings, before=left) == AlertOutbox()
    assert on_record(redis_server.url) == [alert()]


def test_key_of_another_type_keeps_no_alert_from_its_target(shared_redis_url: str, webhook: Webhook) -> None:
    redis.Redis.from_url(shared_redis_url).set(alerts_stream("default"), "somebody else's")
    left = send(load_settings(redis_url=shared_redis_url, alert_urls=webhook.url), alert())
    assert (len(webhook.received), left.unrecorded) == (1, (alert(),))


def test_user_who_may_not_read_the_stream_puts_alerts_on_record(shared_redis_url: str) -> None:
    client: Any = redis.Redis.from_url(shared_redis_url)
    client.acl_setuser(
        "recorder",
        enabled=True,
        passwords=["+secret"],
        commands=["+xadd", "+eval"],
        keys=["raw:ibkr:depth:*"],
        reset=True,
    )
    try:
        url = shared_redis_url.replace("redis://", "redis://recorder:secret@")
        assert send(load_settings(redis_url=url), alert()) == AlertOutbox()
        assert on_record(shared_redis_url) == [alert()]
    finally:
        client.acl_deluser("recorder")


def test_record_is_bounded_and_so_is_what_waits_for_it(shared_redis_url: str) -> None:
    many = [alert(str(number)) for number in range(2 * MOST)]
    away = load_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert [each.title for each in send(away, *many).unrecorded] == [each.title for each in many[-MOST:]]
    client: Any = redis.Redis.from_url(shared_redis_url)
    for number in range(1500):
        client.xadd(alerts_stream("default"), {"ts": number})
    send(load_settings(redis_url=shared_redis_url), alert())
    assert client.xlen(alerts_stream("default")) < 1200


def test_settings_that_do_not_name_a_redis_write_to_none(shared_redis_url: str) -> None:
    settings = load_settings(redis_url=shared_redis_url)
    blind = run_alert_tick(settings, [], None, "REDIS_URL=... is not allowed", blind=True)
    assert [each.cause for each in blind.alerts] == ["bad_settings"]
    assert on_record(shared_redis_url) == []
    run_alert_tick(settings, [], blind.state)
    assert [each.cause for each in on_record(shared_redis_url)] == ["bad_settings"]
