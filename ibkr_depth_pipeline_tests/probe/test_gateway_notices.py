"""Messages of the gateway that concern no symbol: which are notices, and which explain silence."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.model import RowFault
from ibkr_depth_pipeline.probe.gateway_notices import GatewayNotice, GatewayNotices, one_line

BROKEN = gateway.FarmStatus(False, 2103, "farm\nbroken")


def recorded(*events: gateway.GatewayEvent) -> GatewayNotices:
    notices = GatewayNotices()
    for event in events:
        notices.record(event)
    return notices


@pytest.mark.parametrize(
    ("event", "trouble"),
    [
        (BROKEN, "2103: farm broken"),
        (gateway.ConnectivityLost("servers away"), "1100: servers away"),
        (
            gateway.RowUnreadable(1, RowFault.UNKNOWN_SIDE, ()),
            f"rows that can't be read ({RowFault.UNKNOWN_SIDE.value})",
        ),
    ],
)
def test_event_that_may_stop_rows_is_trouble(event: gateway.GatewayEvent, trouble: str) -> None:
    assert recorded(event).trouble == trouble


@pytest.mark.parametrize("event", [gateway.FarmStatus(True, 2104, "OK"), gateway.ConnectivityRestored(False, "back")])
def test_recovery_ends_the_trouble(event: gateway.GatewayEvent) -> None:
    assert recorded(BROKEN, event).trouble == ""


def test_notices_are_listed_once_in_order_without_connected_farms() -> None:
    notices = recorded(
        gateway.PacingViolation("slower"),
        gateway.FarmStatus(True, 2104, "OK"),
        BROKEN,
        gateway.ConnectivityLost("away"),
        gateway.ConnectivityRestored(True, "back"),
        gateway.ConnectivityRestored(False, "back"),
        BROKEN,
        gateway.Notice(None, 2152, "IEX"),
    )
    assert notices.notices == (
        GatewayNotice(100, "slower"),
        GatewayNotice(2103, "farm broken"),
        GatewayNotice(1100, "away"),
        GatewayNotice(1101, "back"),
        GatewayNotice(1102, "back"),
        GatewayNotice(2152, "IEX"),
    )


def test_event_of_a_symbol_is_no_notice() -> None:
    notices = recorded(gateway.SlotRefused(1, "Max number (3)"), gateway.ConnectionLost("broke"))
    assert (notices.notices, notices.trouble) == ((), "")


def test_text_becomes_one_printable_line() -> None:
    assert one_line(" not\nsubscribed\x1b[31m\t today ") == "not subscribed [31m today"
