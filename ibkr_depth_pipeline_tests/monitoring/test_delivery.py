"""Alerts on their way to a real webhook: delivered, refused, unreachable, mute; and no secret anywhere."""

from __future__ import annotations

import json
import logging.config
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import apprise
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.monitoring import delivery
from ibkr_depth_pipeline.monitoring.state import ATTEMPTS, GIVE_UP_MS, MOST, AlertOutbox
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.monitoring.webhook import Webhook

NOW = 1_700_000_000_000
SECRET = "hunter2token"

deliver = partial(delivery.deliver, patience=PATIENCE_SECS)
"""The first target of a process loads all of apprise: on a busy machine that takes longer than an alert may."""


def alert(title: str = "the title", ts: int = NOW) -> Alert:
    return Alert(ts, AlertKind.TROUBLE, "gateway", title, "the text")


def url_of(server: socket.socket) -> str:
    return f"json://{HOST}:{server.getsockname()[1]}"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


@pytest.fixture(autouse=True)
def _our_logs() -> None:
    configure_logging("DEBUG")


def test_alert_reaches_the_webhook_and_the_log(webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    assert deliver(AlertOutbox(), [alert()], [webhook.url], NOW) == AlertOutbox()
    assert [(each["title"], each["message"], each["type"]) for each in webhook.received] == [
        ("the title", "the text", "failure")
    ]
    line = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (line["event"], line["title"], line["cause"]) == ("alert", "the title", "gateway")


def test_alert_without_any_url_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    assert deliver(AlertOutbox(), [alert()], [], NOW) == AlertOutbox()
    assert '"event": "alert"' in capsys.readouterr().err


def test_only_the_failed_target_is_tried_again_and_gets_the_alert_when_it_is_back(webhook: Webhook) -> None:
    with Webhook() as other:
        other.refuse = True
        urls = [webhook.url, other.url]
        left = deliver(AlertOutbox(), [alert()], urls, NOW)
        assert [(each.targets, each.attempts) for each in left.pending] == [((1,), 1)]
        assert deliver(left, [], urls, NOW + 1000) == left, "it was not due yet"
        other.refuse = False
        assert deliver(left, [], urls, NOW + int(ATTEMPTS.longest)) == AlertOutbox()
        assert len(webhook.received) == len(other.received) == 1


def test_undeliverable_alert_is_given_up_and_so_is_one_without_a_target() -> None:
    urls = [f"json://127.0.0.1:{free_port()}"]
    outbox, now = deliver(AlertOutbox(), [alert()], urls, NOW), NOW
    while outbox.pending:
        now = outbox.pending[0].due_ts
        outbox = deliver(outbox, [], urls, now)
    assert now >= NOW + GIVE_UP_MS
    left = deliver(AlertOutbox(), [alert()], urls, NOW)
    assert deliver(left, [], [], NOW + int(ATTEMPTS.longest)) == AlertOutbox()


def test_target_that_never_answers_is_given_up_for_now() -> None:
    with socket.create_server((HOST, 0)) as mute:
        left = delivery.deliver(AlertOutbox(), [alert("one"), alert("two")], [url_of(mute)], NOW, patience=0.2)
        assert [each.targets for each in left.pending] == [(0,), (0,)]


def test_mute_target_does_not_delay_the_others(webhook: Webhook) -> None:
    seen: list[list[str]] = []

    def hang_up_once_the_others_have_theirs(mute: socket.socket) -> None:
        wait_until(lambda: len(webhook.received) == 2, PATIENCE_SECS)
        seen.append(sorted(webhook.titles()))
        for _ in range(2):
            mute.accept()[0].close()

    with socket.create_server((HOST, 0)) as mute, ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(hang_up_once_the_others_have_theirs, mute)
        left = deliver(AlertOutbox(), [alert("one"), alert("two")], [url_of(mute), webhook.url], NOW)
        hanging.result()
    assert seen == [["one", "two"]], "before the mute one was done with"
    assert [each.targets for each in left.pending] == [(0,), (0,)]


@pytest.fixture
def impatient_apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up on an answer after 0.2 s where nothing else is said, so that no test has to wait for its 4 s."""
    monkeypatch.setattr(apprise.URLBase, "socket_read_timeout", 0.2)


def test_slow_target_gets_the_alert_once(webhook: Webhook, impatient_apprise: None) -> None:
    webhook.answer_secs = 0.6
    assert deliver(AlertOutbox(), [alert()], [webhook.url], NOW) == AlertOutbox()
    assert len(webhook.received) == 1


def test_read_timeout_in_the_url_wins(webhook: Webhook) -> None:
    webhook.answer_secs = PATIENCE_SECS
    left = deliver(AlertOutbox(), [alert()], [f"{webhook.url}?rto=0.1"], NOW)
    assert [each.targets for each in left.pending] == [(0,)]


BAD_TARGETS = [
    f"json://user:{SECRET}@127.0.0.1:1/{SECRET}?{SECRET}={SECRET}",
    f"nosuchservice://{SECRET}",
    f"slack://{SECRET}",
    f"tgram://{SECRET}",
    f"json://127.0.0.1:{SECRET}/",
    f"json://{SECRET}.invalid/{SECRET}",
]


@pytest.mark.parametrize("url", BAD_TARGETS)
def test_failed_delivery_reveals_no_part_of_the_url(
    url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # enables what was disabled
    left = deliver(AlertOutbox(), [alert()], [url], NOW)
    told = capfd.readouterr()
    scheme = url.partition("://")[0]
    assert f"ALERT_URLS[0] {scheme}://***" in told.err
    assert SECRET not in told.out + told.err + caplog.text + repr(left)


@given(st.lists(st.integers(0, 10 * MOST), max_size=5))
def test_outbox_is_bounded_and_keeps_the_newest_alerts(batches: list[int]) -> None:
    outbox, sent = AlertOutbox(), []
    for size in batches:
        alerts = [alert(f"{len(sent) + number}") for number in range(size)]
        outbox, sent = outbox.with_alerts(alerts), sent + alerts
    assert [each.alert for each in outbox.pending] == sent[-MOST:]
