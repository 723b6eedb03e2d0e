"""When contracts are resolved again, and which answers change anything."""

from __future__ import annotations

from ibkr_depth_pipeline.ingest.venue_search import DAY_SECS, RECENT_SECS, ROLL_RETRY_SECS, ContractRefresh
from ibkr_depth_pipeline.model import Instrument, Unresolved

NOON = 20_000 * DAY_SECS + DAY_SECS / 2
SPY = Instrument("SPY", 1, "STK", "USD", "ARCA", "ARCA")
ES = Instrument("ES", 2, "FUT", "USD", "CME", "", expiry="20261218", rolls_at=NOON + 100)
NONE = Unresolved("SPY", "200")


def refresh(*known: Instrument, at: float = NOON) -> ContractRefresh:
    found = ContractRefresh()
    for each in known:
        found.resolved(each, at)
    return found


def test_contract_is_due_at_its_roll_and_again_while_it_is_not_answered() -> None:
    found = refresh(SPY, ES)
    assert found.due(NOON + 99) == []
    assert found.due(NOON + 100) == ["ES"]
    assert found.due(NOON + 101) == []
    assert found.due(NOON + 100 + ROLL_RETRY_SECS) == ["ES"]


def test_everything_is_due_once_on_a_new_day() -> None:
    found = refresh(SPY)
    midnight = NOON + DAY_SECS / 2
    assert found.due(midnight - 1) == []
    assert found.due(midnight) == ["SPY"]
    found.resolved(SPY, midnight + 1)
    assert found.due(midnight + 2) == []


def test_reconnect_asks_for_what_was_not_resolved_lately() -> None:
    found = refresh(SPY)
    assert found.reconnected(NOON + 1) == []
    assert found.reconnected(NOON + RECENT_SECS) == ["SPY"]


def test_contract_in_force_is_kept_unless_its_depth_is_refused_or_it_has_rolled() -> None:
    found = refresh(SPY, ES)
    assert found.keeps(NONE, NOON)
    assert not found.keeps(SPY, NOON)
    found.doubted("SPY")
    assert not found.keeps(NONE, NOON)
    assert found.keeps(Unresolved("ES", "200"), NOON)
    assert not found.keeps(Unresolved("ES", "200"), NOON + 100)
    assert not found.keeps(Unresolved("NEW", "200"), NOON)


def test_clock_that_is_set_back_delays_no_roll() -> None:
    found = refresh(ES)
    assert found.due(NOON + 100) == ["ES"]
    found.resolved(ES, NOON - 3600)
    assert found.due(NOON - 3599) == []
    assert found.due(NOON + 100) == ["ES"]


def test_name_that_is_no_longer_recorded_is_never_due() -> None:
    found = refresh(ES)
    found.forget("ES")
    assert found.due(NOON + DAY_SECS) == []
