"""No contract is recorded under two names on one venue."""

from __future__ import annotations

from dataclasses import replace

from ibkr_depth_pipeline.gateway.venues import ContractOwners
from ibkr_depth_pipeline.model import Instrument, Unresolved


def apple(name: str, venue: str, *others: str) -> Instrument:
    return Instrument(name, 265598, "STK", "USD", venue, "NASDAQ", local_symbol="AAPL", alternatives=others)


def test_second_entry_of_a_contract_and_venue_is_one_error_that_names_both() -> None:
    owners = ContractOwners()
    owners.register(apple("AAPL", "ISLAND"))
    (found,) = owners.register(apple("APPLE", "NASDAQ"))
    assert isinstance(found, Unresolved)
    for part in ("'AAPL'", "'APPLE'", "265598", "NASDAQ"):
        assert part in found.reason


def test_contract_on_two_venues_has_two_books() -> None:
    owners = ContractOwners()
    assert owners.register(apple("AAPL", "ISLAND")) == [apple("AAPL", "ISLAND")]
    assert owners.register(apple("AAPL.ARCA", "ARCA")) == [apple("AAPL.ARCA", "ARCA")]


def test_entry_never_falls_back_to_the_venue_of_another() -> None:
    owners = ContractOwners()
    owners.register(apple("AAPL", "ISLAND", "ARCA", "BATS"))
    own, other = owners.register(apple("AAPL.ARCA", "ARCA"))
    assert isinstance(other, Instrument)
    assert (own.symbol, other.symbol, other.alternatives) == ("AAPL.ARCA", "AAPL", ("BATS",))
    (later,) = owners.register(apple("AAPL", "ISLAND", "ARCA", "BATS"))
    assert isinstance(later, Instrument)
    assert later.alternatives == ("BATS",)


def test_entry_without_a_contract_leaves_its_place() -> None:
    owners = ContractOwners()
    owners.register(apple("AAPL", "ISLAND"))
    owners.forget("AAPL")
    assert owners.register(apple("APPLE", "ISLAND")) == [apple("APPLE", "ISLAND")]
    assert owners.register(apple("APPLE", "ISLAND")) == [apple("APPLE", "ISLAND")]


def test_front_takes_the_place_of_the_next_contract_which_is_resolved_again() -> None:
    owners = ContractOwners()
    rolling = replace(apple("NEXT", "CME"), rolls_at=5.0)
    owners.register(rolling)
    (found,) = owners.register(replace(rolling, symbol="FRONT"))
    assert isinstance(found, Instrument)
    assert owners.outdated == ["NEXT"]
    (again,) = owners.register(rolling)
    assert isinstance(again, Unresolved)  # both mean one contract after all
