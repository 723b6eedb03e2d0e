"""What differs between two universes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline.universe.changes import UniverseFile, change_between

SPECS = st.builds(
    SymbolSpec,
    symbol=st.sampled_from("ABCDEF"),
    exchange=st.sampled_from([None, "ARCA", "ISLAND"]),
    pin=st.booleans(),
    weight=st.integers(1, 3),
    hours=st.sampled_from([None, "always"]),
)
UNIVERSES = st.lists(SPECS, unique_by=lambda spec: spec.name).map(lambda specs: Universe(tuple(specs)))


@given(UNIVERSES, UNIVERSES)
def test_each_entry_that_differs_stands_in_one_place(before: Universe, after: Universe) -> None:
    change = change_between(before, after)
    added = {spec.name for spec in change.added}
    assert added == set(after.symbols) - set(before.symbols)
    assert set(change.removed) == set(before.symbols) - set(after.symbols)
    old = {spec.name: spec for spec in before.specs}
    for spec in after.specs:
        if spec.name in old:
            was = old[spec.name]
            assert (spec in change.contracts) == (was.exchange != spec.exchange)
            assert (spec in change.wishes) == (was != spec and was.exchange == spec.exchange)


@given(UNIVERSES, st.randoms())
def test_another_order_is_no_change(universe: Universe, random: object) -> None:
    assert change_between(universe, Universe(universe.specs[::-1])).is_empty


def test_words_name_every_changed_entry() -> None:
    before = Universe((SymbolSpec("A"), SymbolSpec("B"), SymbolSpec("C")))
    after = Universe((SymbolSpec("D"), replace(before.specs[1], weight=3), replace(before.specs[2], exchange="ARCA")))
    assert change_between(before, after).in_words() == {"added": ["D"], "removed": ["A"], "changed": ["C", "B"]}


def test_file_is_read_with_the_symbols_that_a_run_is_restricted_to_and_its_pins_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "symbols.yaml"
    path.write_text("symbols: [{symbol: A, pin: true}, {symbol: B, pin: true}, C]\n")
    assert UniverseFile(path, ("C", "A"), 2).load().symbols == ("C", "A")
    with pytest.raises(ConfigurationError, match="A, B"):
        UniverseFile(path, (), 2).load()
