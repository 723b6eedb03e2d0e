"""Which venue is requested while venues refuse: the next best, and a proven one not before it refuses again."""

from __future__ import annotations

from ibkr_depth_pipeline.gateway.venue_fallback import (
    MOST_FRUITLESS,
    PROOFS,
    REMEMBERED_SECS,
    WALK_SECS,
    FallbackBudget,
    VenueFallback,
)
from ibkr_depth_pipeline.model import Instrument


def venues(*names: str) -> VenueFallback:
    best, *others = names
    return VenueFallback(Instrument("A", 1, "STK", "USD", best, "NASDAQ", alternatives=tuple(others)))


def requested(fallback: VenueFallback) -> str:
    return fallback.requested.exchange


def test_a_refusal_leads_to_the_next_venue_in_the_given_order() -> None:
    fallback = venues("ISLAND", "ARCA", "IEX")
    assert fallback.refused("354: no", 0.0, is_well=True)
    assert requested(fallback) == "ARCA"
    assert fallback.refused("10092: no", 0.0, is_well=True)
    assert requested(fallback) == "IEX"
    assert not fallback.refused("354: no", 0.0, is_well=True)
    assert fallback.refusal_summary == "ISLAND 354: no; ARCA 10092: no; IEX 354: no"
    fallback.start_over()
    assert (requested(fallback), fallback.refusal_summary) == ("ISLAND", "")


def test_a_venue_that_the_operator_named_is_never_replaced() -> None:
    fallback = venues("ISLAND")
    for now in range(10):
        assert not fallback.refused("354: no", float(now), is_well=True)
        assert requested(fallback) == "ISLAND"


def test_a_venue_that_brought_rows_is_left_only_when_it_refuses_again() -> None:
    fallback = venues("ISLAND", "ARCA")
    fallback.granted(0.0)
    for _ in range(PROOFS - 1):
        assert not fallback.refused("354: no", 1.0, is_well=True)
    assert fallback.refused("354: no", 2.0, is_well=True)
    assert requested(fallback) == "ARCA"


def test_while_the_feed_is_not_well_a_venue_is_left_only_when_it_refuses_again() -> None:
    fallback = venues("ISLAND", "ARCA")
    for _ in range(PROOFS - 1):
        assert not fallback.refused("354: no", 1.0, is_well=False)
    assert fallback.refused("354: no", 2.0, is_well=False)


def test_an_invalid_request_is_so_at_every_venue() -> None:
    assert not venues("ISLAND", "ARCA").refused("321: bad", 0.0, is_well=True, elsewhere=False)


def test_a_venue_that_refused_is_remembered_for_the_day_also_when_the_contract_is_resolved_anew() -> None:
    fallback = venues("ISLAND", "ARCA", "IEX")
    fallback.refused("354: no", 0.0, is_well=True)
    assert not fallback.granted(1.0), "it was never refused"
    fallback.update_instrument(venues("ISLAND", "ARCA", "IEX").instrument, 100.0)
    assert requested(fallback) == "ARCA"
    assert fallback.refusal_summary == "ISLAND 354: no"
    fallback.update_instrument(venues("ISLAND", "IEX").instrument, 200.0)
    assert requested(fallback) == "IEX"
    fallback.update_instrument(venues("ISLAND").instrument, REMEMBERED_SECS + 1.0)
    assert (requested(fallback), fallback.refusal_summary) == ("ISLAND", "")


def test_while_nothing_at_all_is_granted_one_symbol_in_a_while_is_tried_at_other_venues() -> None:
    budget = FallbackBudget()
    assert all(budget.refused(f"S{number}", 0.0) for number in range(MOST_FRUITLESS))
    walkers = {symbol for symbol in ("A", "B", "C") for now in (0.0, 1.0) if budget.refused(symbol, now)}
    assert walkers == {"A"}
    assert budget.refused("B", WALK_SECS)
    budget.granted()
    assert budget.refused("C", WALK_SECS)
