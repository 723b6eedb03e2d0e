"""Entries of the universe that say which contract is meant: names, pairs, expiries, options, rolls; and bad ones."""

from __future__ import annotations

import contextlib
from datetime import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.futures import RollRule
from ibkr_depth_pipeline.universe import SymbolSpec, Universe, parse_universe


def universe(text: str) -> Universe:
    return parse_universe(yaml.safe_load(text), "file")


def spec(entry: str) -> SymbolSpec:
    (only,) = universe(f"symbols: [{entry}]").specs
    return only


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        universe(text)
    return refused.value.problems


def test_entries_have_names_of_their_own() -> None:
    found = universe("symbols: [AAPL, {name: AAPL.ARCA, symbol: AAPL, exchange: ARCA}]")
    assert found.symbols == ("AAPL", "AAPL.ARCA")
    assert [each.symbol for each in found.specs] == ["AAPL", "AAPL"]
    assert found.subset(["AAPL.ARCA"]).specs == (found.specs[1],)


def test_name_and_con_id_are_enough() -> None:
    assert spec("{name: APPLE, con_id: 265598}") == SymbolSpec("", con_id=265598, name="APPLE")
    assert spec("{name: Z6, local_symbol: ESZ6, sec_type: FUT, exchange: CME}").local_symbol == "ESZ6"


def test_entry_without_symbol_needs_a_name() -> None:
    (problem,) = problems("symbols: [{con_id: 265598}]")
    assert "needs a name" in problem


@pytest.mark.parametrize(
    "entry",
    [
        "{symbol: EUR.GBP, sec_type: CASH}",
        "{name: EUR.GBP, symbol: EURGBP, sec_type: CASH}",
        "{name: EUR.GBP, symbol: EUR, currency: GBP, sec_type: CASH}",
        "{symbol: EUR.GBP, sec_type: CASH, currency: GBP}",
    ],
)
def test_pair_is_base_and_quote(entry: str) -> None:
    found = spec(entry)
    assert (found.name, found.symbol, found.currency) == ("EUR.GBP", "EUR", "GBP")


def test_pair_stands_beside_another_of_the_same_base() -> None:
    text = "symbols: [{symbol: EUR.USD, sec_type: CASH}, {symbol: EUR.GBP, sec_type: CASH}]"
    assert [(each.name, each.symbol, each.currency) for each in universe(text).specs] == [
        ("EUR.USD", "EUR", "USD"),
        ("EUR.GBP", "EUR", "GBP"),
    ]


@pytest.mark.parametrize(
    ("entry", "expiry"),
    [
        ("{name: ES, symbol: ES, sec_type: FUT, exchange: CME, expiry: front}", "front"),
        ("{symbol: ES, sec_type: FUT, exchange: CME, expiry: front+1}", "front+1"),
        ("{name: ES-DEC, symbol: ES, sec_type: FUT, exchange: CME, expiry: 202612}", "202612"),
        ("{symbol: ES, sec_type: FUT, expiry: '20261218'}", "20261218"),
        ("{symbol: ES, sec_type: CONTFUT, exchange: CME}", None),
    ],
)
def test_expiry_is_read(entry: str, expiry: str | None) -> None:
    assert spec(entry).expiry == expiry


@pytest.mark.parametrize(
    ("roll", "expected"),
    [
        ("{days_before: 8}", RollRule(8)),
        ("{days_before: 0, at: '09:30', timezone: America/New_York}", RollRule(0, time(9, 30), "America/New_York")),
        ("{at: 17:00}", RollRule(at=time(17))),
        ("{at: 17:00:30}", RollRule(at=time(17, 0, 30))),
        ("{at: 09:30}", RollRule(at=time(9, 30))),
    ],
)
def test_roll_is_read_quoted_or_not(roll: str, expected: RollRule) -> None:
    assert spec(f"{{symbol: ES, sec_type: FUT, expiry: front, roll: {roll}}}").roll == expected


def test_option_is_read() -> None:
    found = spec(
        "{name: SPY-C600, symbol: SPY, sec_type: OPT, expiry: 20261218, strike: 600, right: CALL, multiplier: 100}"
    )
    assert (found.strike, found.right, found.multiplier, found.expiry) == (600.0, "C", "100", "20261218")


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("{symbol: T, sec_type: BOND}", "no exchange with market depth of bonds"),
        ("{symbol: EUR.GBP, sec_type: CASH, currency: USD}", "contradicts the pair"),
        ("{symbol: SPY, expiry: front}", "STK does not expire"),
        ("{symbol: ES, sec_type: FUT, expiry: 202612, roll: {days_before: 1}}", "roll: only"),
        ("{symbol: ES, sec_type: FUT, expiry: front, roll: {days_before: -1}}", "days_before"),
        ("{symbol: ES, sec_type: FUT, expiry: front, roll: {timezone: Mars}}", "timezone"),
        ("{symbol: ES, sec_type: FUT, expiry: front, roll: {at: 25:00}}", "at (a time"),
        ("{symbol: ES, sec_type: CONTFUT, expiry: 202612}", "contradicts CONTFUT"),
        ("{symbol: ES, sec_type: FUT, expiry: december}", "use front"),
        ("{symbol: ES, sec_type: FUT, expiry: 202613}", "use front"),
        ("{symbol: SPY, sec_type: OPT, expiry: front, strike: 1, right: C}", "is for futures"),
        ("{symbol: SPY, sec_type: OPT}", "needs expiry, strike and right"),
        ("{symbol: SPY, strike: 600}", "STK has none"),
        ("{symbol: ES, con_id: 5, expiry: front}", "contradicts con_id"),
        ("{symbol: SPY, name: spy}", "is not a name"),
        ("{symbol: SPY, name: ON}", "quote it"),
        ("{symbol: SPY, trading_class: NO}", "quote it"),
        ("{symbol: SPY, strike: yes}", "use a price"),
    ],
)
def test_impossible_entry_is_one_problem_with_its_reason(entry: str, part: str) -> None:
    (problem,) = problems(f"symbols: [{entry}]")
    assert problem.startswith("symbols[1] ")
    assert part in problem


@pytest.mark.parametrize("ticker", ["ON", "NO", "TRUE", "7203", "off", "1.5", "2026-01-02"])
def test_ticker_that_yaml_takes_for_something_else_says_to_quote_it(ticker: str) -> None:
    for entry in (ticker, f"{{symbol: {ticker}}}", f"{{name: {ticker}, symbol: SPY}}"):
        assert "quote it" in problems(f"symbols: [{entry}]")[0]


@pytest.mark.parametrize("ticker", ["ON", "NO", "Y", "TRUE", "7203"])
def test_quoted_ticker_works_everywhere(ticker: str) -> None:
    entries = f"symbols: ['{ticker}', {{name: '{ticker}.X', symbol: '{ticker}', exchange: X}}]"
    text = f"{entries}\noverrides: {{'{ticker}': {{exchange: ARCA}}}}"
    found = universe(text)
    assert found.symbols == (ticker, f"{ticker}.X")
    assert found.specs[0].exchange == "ARCA"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("AAPL", "{name: APPLE, symbol: AAPL}"),
        ("{name: A, con_id: 5}", "{name: B, con_id: 5}"),
        ("{name: A, symbol: EUR.GBP, sec_type: CASH}", "{name: B, symbol: EUR, currency: GBP, sec_type: CASH}"),
        ("{name: A, symbol: ES, sec_type: FUT, expiry: front}", "{name: B, symbol: ES, sec_type: CONTFUT}"),
        ("{name: A, symbol: IBM, exchange: ISLAND}", "{name: B, symbol: IBM, exchange: NASDAQ}"),
    ],
)
def test_two_entries_of_one_contract_are_one_problem_that_names_both(one: str, other: str) -> None:
    (problem,) = problems(f"symbols: [{one}, {other}]")
    first, second = universe(f"symbols: [{one}]").symbols + universe(f"symbols: [{other}]").symbols
    assert repr(first) in problem
    assert repr(second) in problem


def test_override_goes_by_the_name() -> None:
    found = universe("symbols: [{name: A, symbol: AAPL}]\noverrides: {A: {exchange: ARCA}}")
    assert found.specs[0].exchange == "ARCA"
    assert "no such symbol" in problems("symbols: [{name: A, symbol: AAPL}]\noverrides: {AAPL: {exchange: ARCA}}")[0]


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just({"at": 1020})
_KEYS = st.sampled_from(
    [
        "name",
        "symbol",
        "sec_type",
        "currency",
        "exchange",
        "con_id",
        "local_symbol",
        "trading_class",
        "multiplier",
        "expiry",
        "strike",
        "right",
        "roll",
    ]
)


@given(st.dictionaries(_KEYS, _VALUES | st.sampled_from(["FUT", "OPT", "CASH", "front", "ES", "EUR.USD", "C"])))
def test_any_entry_is_a_spec_with_a_name_or_a_configuration_error(entry: dict[str, object]) -> None:
    with contextlib.suppress(ConfigurationError):
        (found,) = parse_universe({"symbols": [entry]}, "file").specs
        assert found.name
        assert found.symbol or found.con_id or found.local_symbol
