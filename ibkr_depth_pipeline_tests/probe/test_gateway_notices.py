"""What the gateway says that concerns no symbol: what is told of it, and what explains silence."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.gateway import events as says
from ibkr_depth_pipeline.model import RowFault
from ibkr_depth_pipeline.probe.gateway_notices import GatewayNotices, one_line
from ibkr_depth_pipeline.probe.report import GatewayNotice

BROKEN = says.FarmStatus(False, 2103, "farm\nbroken")


def heard(*events: says.GatewayEvent) -> GatewayNotices:
    news = GatewayNotices()
    for event in events:
        news.hear(event)
    return news


@pytest.mark.parametrize(
    ("event", "trouble"),
    [
        (BROKEN, "2103: farm broken"),
        (says.ConnectivityLost("servers away"), "1100: servers away"),
        (says.RowUnreadable(1, RowFault.UNKNOWN_SIDE, ()), f"rows that can't be read ({RowFault.UNKNOWN_SIDE.value})"),
    ],
)
def test_what_may_keep_rows_away_is_trouble(event: says.GatewayEvent, trouble: str) -> None:
    assert heard(event).trouble == trouble


@pytest.mark.parametrize("event", [says.FarmStatus(True, 2104, "OK"), says.ConnectivityRestored(False, "back")])
def test_good_news_ends_the_trouble(event: says.GatewayEvent) -> None:
    assert heard(BROKEN, event).trouble == ""


def test_notices_are_told_once_in_the_order_they_came_and_a_farm_that_is_well_is_none() -> None:
    news = heard(
        says.PacingViolation("slower"),
        says.FarmStatus(True, 2104, "OK"),
        BROKEN,
        says.ConnectivityLost("away"),
        says.ConnectivityRestored(True, "back"),
        says.ConnectivityRestored(False, "back"),
        BROKEN,
        says.Notice(None, 2152, "IEX"),
    )
    assert news.notices == (
        GatewayNotice(100, "slower"),
        GatewayNotice(2103, "farm broken"),
        GatewayNotice(1100, "away"),
        GatewayNotice(1101, "back"),
        GatewayNotice(1102, "back"),
        GatewayNotice(2152, "IEX"),
    )


def test_what_concerns_a_symbol_changes_nothing() -> None:
    news = heard(says.SlotRefused(1, "Max number (3)"), says.ConnectionLost("broke"))
    assert (news.notices, news.trouble) == ((), "")


def test_a_text_becomes_one_printable_line() -> None:
    assert one_line(" not\nsubscribed\x1b[31m\t today ") == "not subscribed [31m today"
