"""Which cancelled subscriptions may hold a slot all the same, and for how long they are suspected."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.slots import LATE_ROWS_SECS, RECONNECT_PACE, Orphans, Slot, SlotEvent


def cancelled(*events: SlotEvent) -> Orphans:
    """One request to which this happened, and whose cancel was sent at 0 s."""
    slot = Slot(1, "A", requested_at=-5.0)
    for event in (*events, SlotEvent.CANCELLED):
        slot.on(event)
    leftovers = Orphans()
    leftovers.cancelled(slot, 0.0)
    return leftovers


def test_request_that_had_answered_is_not_suspect() -> None:
    leftovers = cancelled(SlotEvent.ANSWERED)
    assert leftovers.suspects(0.1) == ()
    assert not leftovers.justify_reconnect(0.1)


def test_request_cancelled_before_its_first_row_is_suspect_until_the_connection_ends() -> None:
    leftovers = cancelled()
    assert leftovers.suspects(3600.0) == ("A",)
    leftovers.connection_lost()
    assert leftovers.suspects(3600.0) == ()


def test_request_cancelled_again_after_its_first_row_is_suspect_until_its_rows_have_stopped() -> None:
    leftovers = cancelled()
    assert leftovers.rows_came(1, 20.0) is not None
    assert leftovers.suspects(20.0 + LATE_ROWS_SECS) == ("A",)
    assert leftovers.suspects(20.0 + 3 * LATE_ROWS_SECS) == ()
    assert leftovers.justify_reconnect(20.0 + LATE_ROWS_SECS)
    assert not leftovers.justify_reconnect(20.0 + LATE_ROWS_SECS + RECONNECT_PACE.first), "it is a suspect no more"


def test_request_whose_rows_go_on_after_the_second_cancel_stays_suspect() -> None:
    leftovers = cancelled()
    leftovers.rows_came(1, 20.0)
    leftovers.rows_came(1, 20.0 + LATE_ROWS_SECS)
    assert leftovers.suspects(3600.0) == ("A",)


def test_request_that_the_gateway_reports_to_hold_nothing_is_no_longer_suspect() -> None:
    leftovers = cancelled()
    leftovers.refused(1)
    assert leftovers.suspects(0.1) == ()
