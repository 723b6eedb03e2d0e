"""Alerts on their way to a real webhook: delivered, refused, unreachable, mute; and no secret anywhere."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import apprise
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.monitoring import delivery
from ibkr_depth_pipeline.monitoring.alert import Alert, Kind
from ibkr_depth_pipeline.monitoring.delivery import tell
from ibkr_depth_pipeline.monitoring.outbox import ATTEMPTS, GIVE_UP_MS, MOST, Outbox
from ibkr_depth_pipeline_tests.monitoring.webhook import Webhook

NOW = 1_700_000_000_000
SECRET = "hunter2token"


def alert(title: str = "the title", ts: int = NOW) -> Alert:
    return Alert(ts, Kind.TROUBLE, "gateway", title, "the text")


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


@pytest.fixture(autouse=True)
def _our_logs() -> None:
    configure_logging("DEBUG")


def test_an_alert_reaches_the_webhook_and_the_log(webhook: Webhook, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(Outbox(), [alert()], [webhook.url], NOW) == Outbox()
    assert [(each["title"], each["message"], each["type"]) for each in webhook.received] == [
        ("the title", "the text", "failure")
    ]
    line = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (line["event"], line["title"], line["cause"]) == ("alert", "the title", "gateway")


def test_without_any_url_it_is_in_the_log_and_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(Outbox(), [alert()], [], NOW) == Outbox()
    assert '"event": "alert"' in capsys.readouterr().err


def test_only_the_target_that_failed_is_tried_again_and_when_it_is_back_it_gets_the_alert(webhook: Webhook) -> None:
    with Webhook() as other:
        other.refuse = True
        urls = [webhook.url, other.url]
        left = tell(Outbox(), [alert()], urls, NOW)
        assert [(each.targets, each.attempts) for each in left.pending] == [((1,), 1)]
        assert tell(left, [], urls, NOW + 1000) == left, "it was not due yet"
        other.refuse = False
        assert tell(left, [], urls, NOW + int(ATTEMPTS.longest)) == Outbox()
        assert len(webhook.received) == len(other.received) == 1


def test_an_alert_that_never_arrives_is_given_up_and_one_whose_target_is_gone_too() -> None:
    urls = [f"json://127.0.0.1:{free_port()}"]
    outbox, now = tell(Outbox(), [alert()], urls, NOW), NOW
    while outbox.pending:
        now = outbox.pending[0].due_ts
        outbox = tell(outbox, [], urls, now)
    assert now >= NOW + GIVE_UP_MS
    left = tell(Outbox(), [alert()], urls, NOW)
    assert tell(left, [], [], NOW + int(ATTEMPTS.longest)) == Outbox()


def test_a_target_that_never_answers_stalls_nobody(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "ROUND_SECS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        urls = [f"json://127.0.0.1:{mute.getsockname()[1]}", webhook.url]
        left = tell(Outbox(), [alert("one"), alert("two")], urls, NOW)
        assert [each.targets for each in left.pending] == [(0,), (0,)]
        assert {each["title"] for each in webhook.received} == {"one", "two"}


@pytest.fixture
def impatient_apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up on an answer after 0.2 s where nothing else is said, so that no test has to wait for its 4 s."""
    monkeypatch.setattr(apprise.URLBase, "socket_read_timeout", 0.2)


def test_a_target_that_answers_later_than_apprise_would_wait_gets_the_alert_once(
    webhook: Webhook, impatient_apprise: None
) -> None:
    webhook.answer_secs = 0.6
    assert tell(Outbox(), [alert()], [webhook.url], NOW) == Outbox()
    assert len(webhook.received) == 1


def test_how_long_an_answer_is_waited_for_may_stand_in_the_url(webhook: Webhook) -> None:
    webhook.answer_secs = 0.6
    left = tell(Outbox(), [alert()], [f"{webhook.url}?rto=0.1"], NOW)
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
def test_whatever_goes_wrong_no_part_of_a_url_is_told(
    url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    left = tell(Outbox(), [alert()], [url], NOW)
    told = capfd.readouterr()
    scheme = url.partition("://")[0]
    assert f"ALERT_URLS[0] {scheme}://***" in told.err
    assert SECRET not in told.out + told.err + caplog.text + repr(left)


@given(st.lists(st.integers(0, 10 * MOST), max_size=5))
def test_the_outbox_is_bounded_and_keeps_the_newest(batches: list[int]) -> None:
    outbox, sent = Outbox(), []
    for size in batches:
        alerts = [alert(f"{len(sent) + number}") for number in range(size)]
        outbox, sent = outbox.with_alerts(alerts), sent + alerts
    assert [each.alert for each in outbox.pending] == sent[-MOST:]
