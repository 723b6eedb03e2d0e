"""Which news puts subscriptions in doubt, and which rows prove them."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.ingest.liveness import AILING_SECS, CURED_SECS, IN_FLIGHT_SECS, LivenessTracker

ALL = {1, 2}


def proven() -> LivenessTracker:
    """Of two subscriptions that have had their first rows, at 0 s."""
    doubts = LivenessTracker()
    doubts.connecting()
    for request in ALL:
        doubts.wait_for(request)
        doubts.dispel(request)
    return doubts


@pytest.mark.parametrize("code", [2103, 2108, 2110, 10197])
def test_rows_right_after_bad_news_prove_nothing_as_they_may_be_older(code: int) -> None:
    doubts = proven()
    assert doubts.feed_health(code, ALL, 100.0) == AILING_SECS
    assert (doubts.awaited, doubts.ailments) == (ALL, (code,))
    assert not doubts.is_proof(100.0 + IN_FLIGHT_SECS / 2)
    assert doubts.is_proof(100.0 + IN_FLIGHT_SECS)


def test_a_trouble_is_over_when_the_last_in_doubt_has_proven_itself() -> None:
    doubts = proven()
    doubts.feed_health(10197, ALL, 100.0)
    doubts.dispel(1)
    assert (doubts.awaited, doubts.ailments) == ({2}, (10197,))
    doubts.dispel(2)
    assert (doubts.awaited, doubts.ailments) == (set(), ())


def test_what_is_forgotten_has_proven_nothing() -> None:
    doubts = proven()
    doubts.feed_health(10197, ALL, 100.0)
    for request in ALL:
        doubts.forget(request)
    assert (doubts.awaited, doubts.ailments) == (set(), (10197,))


def test_a_farm_that_is_well_again_leaves_doubt_but_less_patience_and_rows_prove_at_once() -> None:
    doubts = proven()
    doubts.feed_health(2103, ALL, 100.0)
    doubts.dispel(1)
    assert doubts.feed_health(2104, ALL, 110.0) == CURED_SECS
    assert (doubts.awaited, doubts.ailments) == (ALL, ())
    assert doubts.is_proof(110.0)


def test_a_farm_that_is_well_is_no_cure_for_a_competing_session() -> None:
    doubts = proven()
    doubts.feed_health(10197, ALL, 100.0)
    assert doubts.feed_health(2104, ALL, 101.0) is None
    assert doubts.ailments == (10197,)


@pytest.mark.parametrize("code", [2104, 2105, 2106, 2157, 2158])
def test_historical_farms_and_the_good_health_of_well_ones_cast_no_doubt(code: int) -> None:
    doubts = proven()
    assert doubts.feed_health(code, ALL, 100.0) is None
    assert (doubts.awaited, doubts.ailments) == (set(), ())


def test_connectivity_that_is_back_ends_the_suspension_and_every_trouble_but_not_the_doubt() -> None:
    doubts = proven()
    doubts.feed_health(10197, ALL, 100.0)
    doubts.connectivity_lost(ALL, 101.0)
    assert doubts.suspended
    assert not doubts.is_proof(102.0)
    doubts.connectivity_restored(ALL, 102.0)
    assert not doubts.suspended
    assert (doubts.awaited, doubts.ailments) == (ALL, ())
    assert doubts.is_proof(102.0)


def test_a_new_connection_begins_without_doubts() -> None:
    doubts = proven()
    doubts.feed_health(2103, ALL, 100.0)
    doubts.connectivity_lost(ALL, 100.0)
    doubts.disconnected()
    doubts.connecting()
    assert (doubts.awaited, doubts.suspended, doubts.ailments) == (set(), False, ())
    assert doubts.is_proof(101.0)


def test_whoever_keeps_the_awaited_requests_always_sees_those_of_now() -> None:
    doubts = proven()
    awaited = doubts.awaited
    doubts.connectivity_lost(ALL, 100.0)
    assert awaited == ALL
    doubts.disconnected()
    assert awaited == set()
