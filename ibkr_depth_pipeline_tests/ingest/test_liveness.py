"""Which news puts subscriptions in doubt, and which rows prove them."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.ingest.liveness import AILING_SECS, CURED_SECS, IN_FLIGHT_SECS, DataGaps, LivenessTracker

ALL = {1, 2}


def proven() -> LivenessTracker:
    """Of two subscriptions that have had their first rows, at 0 s."""
    tracker = LivenessTracker()
    tracker.connecting()
    for request in ALL:
        tracker.await_row(request)
        tracker.prove(request)
    return tracker


@pytest.mark.parametrize("code", [2103, 2108, 2110, 10197])
def test_rows_right_after_bad_news_prove_nothing_as_they_may_be_older(code: int) -> None:
    tracker = proven()
    assert tracker.farm_status(code, ALL, 100.0) == AILING_SECS
    assert (tracker.awaited, tracker.ailments) == (ALL, (code,))
    assert not tracker.is_proof(100.0 + IN_FLIGHT_SECS / 2)
    assert tracker.is_proof(100.0 + IN_FLIGHT_SECS)


def test_trouble_is_over_when_the_last_in_doubt_has_proven_itself() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    tracker.prove(1)
    assert (tracker.awaited, tracker.ailments) == ({2}, (10197,))
    tracker.prove(2)
    assert (tracker.awaited, tracker.ailments) == (set(), ())


def test_forgotten_request_has_proven_nothing() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    for request in ALL:
        tracker.forget(request)
    assert (tracker.awaited, tracker.ailments) == (set(), (10197,))


def test_farm_that_is_well_again_leaves_doubt_but_less_patience_and_rows_prove_at_once() -> None:
    tracker = proven()
    tracker.farm_status(2103, ALL, 100.0)
    tracker.prove(1)
    assert tracker.farm_status(2104, ALL, 110.0) == CURED_SECS
    assert (tracker.awaited, tracker.ailments) == (ALL, ())
    assert tracker.is_proof(110.0)


def test_farm_that_is_well_is_no_cure_for_a_competing_session() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    assert tracker.farm_status(2104, ALL, 101.0) is None
    assert tracker.ailments == (10197,)


@pytest.mark.parametrize("code", [2104, 2105, 2106, 2157, 2158])
def test_historical_farms_and_the_good_health_of_well_ones_cast_no_doubt(code: int) -> None:
    tracker = proven()
    assert tracker.farm_status(code, ALL, 100.0) is None
    assert (tracker.awaited, tracker.ailments) == (set(), ())


def test_connectivity_that_is_back_ends_the_suspension_and_every_trouble_but_not_the_doubt() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    tracker.connectivity_lost(ALL, 101.0)
    assert tracker.suspended
    assert not tracker.is_proof(102.0)
    tracker.connectivity_restored(ALL, 102.0)
    assert not tracker.suspended
    assert (tracker.awaited, tracker.ailments) == (ALL, ())
    assert tracker.is_proof(102.0)


def test_new_connection_begins_without_doubts() -> None:
    tracker = proven()
    tracker.farm_status(2103, ALL, 100.0)
    tracker.connectivity_lost(ALL, 100.0)
    tracker.disconnected()
    tracker.connecting()
    assert (tracker.awaited, tracker.suspended, tracker.ailments) == (set(), False, ())
    assert tracker.is_proof(101.0)


# ---- gaps


def test_first_cause_of_a_gap_counts_and_its_length_is_from_row_to_row() -> None:
    gaps = DataGaps()
    gaps.open([("SPY", 1000)], "connectivity_lost", 1100)
    gaps.open([("SPY", 1500), ("QQQ", 1200)], "connection_lost")
    assert gaps.missing == {"SPY": "connectivity_lost", "QQQ": "connection_lost"}
    gap = gaps.close("SPY", 4500)
    assert gap is not None
    assert (gap.cause, gap.code, gap.secs) == ("connectivity_lost", 1100, 3.5)
    assert gaps.close("SPY", 5000) is None
