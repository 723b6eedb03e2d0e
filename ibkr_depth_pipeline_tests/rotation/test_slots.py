"""The life of a subscription, and which cancelled ones may hold a slot all the same."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.ring import Turn
from ibkr_depth_pipeline.rotation.slots import LATE_ROWS_SECS, RECONNECT_PACE, Orphans, Slot, SlotEvent

DWELL = 10.0
CAP = 4.0


def begun(now: float) -> Turn:
    turn = Turn(DWELL, CAP)
    turn.begin(now)
    return turn


def test_nothing_is_due_without_a_turn_or_without_subscriptions() -> None:
    assert Turn(DWELL, CAP).due([Slot(1, "A", 0.0)]) is None
    assert begun(0.0).due([]) is None


def test_dwell_counts_from_the_first_row_and_the_slowest_decides() -> None:
    turn = begun(100.0)
    assert turn.due([Slot(1, "A", 100.0)]) == 100.0 + CAP
    assert turn.due([Slot(1, "A", 100.0, answered_at=101.0), Slot(2, "B", 100.0)]) == 101.0 + DWELL
    assert turn.due([Slot(1, "A", 100.0, 101.0), Slot(2, "B", 100.0, 103.0)]) == 103.0 + DWELL


def test_subscription_of_the_turn_before_has_its_dwell_from_the_turns_start() -> None:
    assert begun(100.0).due([Slot(1, "A", 0.0, answered_at=1.0)]) == 100.0 + DWELL
    assert begun(100.0).due([Slot(1, "A", 0.0)]) == 100.0 + CAP


def test_late_subscription_does_not_extend_the_turn() -> None:
    assert begun(100.0).due([Slot(1, "A", 112.0, answered_at=113.0)]) == 100.0 + CAP + DWELL


def test_turn_takes_its_dwell_or_as_long_as_the_last_one_took() -> None:
    turn = begun(0.0)
    assert turn.usual_secs == DWELL
    assert turn.end(12.0) == 12.0
    assert turn.usual_secs == 12.0
    turn.begin(20.0)
    turn.abandon()
    assert not turn.is_on
    assert turn.usual_secs == 12.0, "one that came to nothing says nothing of the next"


def test_new_turn_knows_no_refusal_of_the_last() -> None:
    turn = begun(0.0)
    turn.refused = True
    turn.end(1.0)
    turn.begin(2.0)
    assert (turn.number, turn.refused) == (2, False)


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
