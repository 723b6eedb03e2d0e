"""One concrete venue per symbol, never SMART: each rule by example, and what must hold whatever a gateway says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.gateway.venues import ContractAnswer, ContractQuery, DepthExchange, Resolution, resolve
from ibkr_depth_pipeline.model import Instrument, Unresolved

UNITED_STATES = ("SMART", "AMEX", "NYSE", "CBOE", "PHLX", "CHX", "ARCA", "ISLAND", "DRCTEDGE", "BEX", "BATS", "IEX")
DEEP = tuple(DepthExchange(name, "STK") for name in ("ISLAND", "ARCA", "NYSE", "BATS", "IEX", "BEX", "AMEX"))


def stock(symbol: str, primary: str, valid: tuple[str, ...] = UNITED_STATES, con_id: int = 1) -> ContractAnswer:
    return ContractAnswer(con_id, symbol, "STK", "USD", "SMART", primary, valid, symbol, "NMS")


def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
    """As a gateway lists them whose compatibility checkbox says NASDAQ."""
    return tuple("NASDAQ" if name == "ISLAND" else name for name in names)


DEEP_RENAMED = tuple(replace(venue, exchange=renamed((venue.exchange,))[0]) for venue in DEEP)


def venue_of(resolution: Resolution) -> tuple[str, str]:
    assert isinstance(resolution, Instrument), resolution
    return resolution.exchange, resolution.primary_exchange


def why_not(resolution: Resolution) -> str:
    assert isinstance(resolution, Unresolved), resolution
    return resolution.reason


@pytest.mark.parametrize(
    ("symbol", "primary", "expected"),
    [
        ("AAPL", "NASDAQ", ("ISLAND", "NASDAQ")),
        ("AAPL", "ISLAND", ("ISLAND", "NASDAQ")),
        ("QQQ", "NASDAQ", ("ISLAND", "NASDAQ")),
        ("SPY", "ARCA", ("ARCA", "ARCA")),
        ("IWM", "ARCA", ("ARCA", "ARCA")),
        ("GLD", "ARCA", ("ARCA", "ARCA")),
        ("IBM", "NYSE", ("NYSE", "NYSE")),
        ("VIXY", "BATS", ("BATS", "BATS")),
    ],
)
def test_the_listing_decides(symbol: str, primary: str, expected: tuple[str, str]) -> None:
    assert venue_of(resolve(ContractQuery(symbol), [stock(symbol, primary)], DEEP)) == expected


@pytest.mark.parametrize(("symbol", "primary"), [("AAPL", "NASDAQ"), ("AAPL", "ISLAND"), ("QQQ", "NASDAQ")])
def test_the_name_that_the_gateway_lists_is_requested(symbol: str, primary: str) -> None:
    answer = stock(symbol, primary, renamed(UNITED_STATES))
    assert venue_of(resolve(ContractQuery(symbol), [answer], DEEP_RENAMED)) == ("NASDAQ", "NASDAQ")
    assert venue_of(resolve(ContractQuery(symbol), [answer], DEEP)) == ("NASDAQ", "NASDAQ")


@pytest.mark.parametrize("wanted", ["ISLAND", "NASDAQ"])
def test_an_override_names_the_venue_under_either_name(wanted: str) -> None:
    islands = resolve(ContractQuery("IBM", exchange=wanted), [stock("IBM", "NYSE")], DEEP)
    assert venue_of(islands) == ("ISLAND", "NYSE")
    nasdaqs = resolve(
        ContractQuery("IBM", exchange=wanted), [stock("IBM", "NYSE", renamed(UNITED_STATES))], DEEP_RENAMED
    )
    assert venue_of(nasdaqs) == ("NASDAQ", "NYSE")


@pytest.mark.parametrize("wanted", ["ISLAND", "NASDAQ"])
def test_the_configured_name_is_kept_where_both_are_listed(wanted: str) -> None:
    answer = stock("AAPL", "NASDAQ", ("SMART", "NASDAQ", "ISLAND"))
    assert venue_of(resolve(ContractQuery("AAPL", exchange=wanted), [answer], DEEP)) == (wanted, "NASDAQ")


def test_an_override_wins_over_every_rule_and_even_where_no_depth_is_listed() -> None:
    assert venue_of(resolve(ContractQuery("SPY", exchange="BATS"), [stock("SPY", "ARCA")], DEEP)) == ("BATS", "ARCA")
    assert venue_of(resolve(ContractQuery("SPY", exchange="PHLX"), [stock("SPY", "ARCA")], DEEP)) == ("PHLX", "ARCA")
    overridden = ContractQuery("AAPL", primary_exchange="NYSE")
    assert venue_of(resolve(overridden, [stock("AAPL", "NASDAQ")], DEEP)) == ("NYSE", "NYSE")


def test_an_override_that_the_contract_does_not_list_says_so() -> None:
    reason = why_not(resolve(ContractQuery("SPY", exchange="LSE"), [stock("SPY", "ARCA")], DEEP))
    assert reason.startswith("LSE is not among the contract's exchanges (SMART, AMEX")


def test_smart_is_not_even_taken_from_an_override() -> None:
    assert isinstance(resolve(ContractQuery("SPY", exchange="SMART"), [stock("SPY", "ARCA")], DEEP), Unresolved)


def test_a_listing_without_depth_falls_back_to_the_best_real_venue() -> None:
    no_nyse = [venue for venue in DEEP if venue.exchange != "NYSE"]
    assert venue_of(resolve(ContractQuery("IBM"), [stock("IBM", "NYSE")], no_nyse)) == ("ISLAND", "NYSE")
    assert venue_of(resolve(ContractQuery("IBM"), [stock("IBM", "NYSE", ("SMART", "IEX", "BATS"))], DEEP)) == (
        "BATS",
        "NYSE",
    )
    only = [DepthExchange("TGATE", "STK")]
    assert venue_of(resolve(ContractQuery("SAP"), [stock("SAP", "IBIS", ("SMART", "TGATE"))], only)) == (
        "TGATE",
        "IBIS",
    )


def test_depth_of_another_kind_of_contract_does_not_count() -> None:
    futures = [DepthExchange(name, "FUT") for name in UNITED_STATES]
    reason = why_not(resolve(ContractQuery("IBM"), [stock("IBM", "NYSE")], futures))
    assert "has market depth" in reason


@pytest.mark.parametrize("symbol", ["SPX", "VIX"])
def test_an_index_tries_cboe_although_no_gateway_lists_depth_of_indices(symbol: str) -> None:
    answer = ContractAnswer(416904, symbol, "IND", "USD", "CBOE", "", ("SMART", "CBOE"), symbol, symbol)
    assert venue_of(resolve(ContractQuery(symbol, sec_type="IND"), [answer], DEEP)) == ("CBOE", "")


def test_an_index_that_is_not_on_cboe_goes_where_it_has_depth_or_nowhere() -> None:
    answer = ContractAnswer(5, "DAX", "IND", "EUR", "EUREX", "", ("EUREX",), "DAX", "DAX")
    wanted = ContractQuery("DAX", sec_type="IND", currency="EUR")
    assert isinstance(resolve(wanted, [answer], DEEP), Unresolved)
    assert venue_of(resolve(wanted, [answer], [DepthExchange("EUREX", "IND")])) == ("EUREX", "")


def test_a_namesake_of_a_well_known_etf_in_another_currency_is_not_taken_for_it() -> None:
    answer = replace(stock("SPY", "TSE", ("SMART", "TSE", "ARCA")), currency="CAD")
    deep = [DepthExchange("TSE", "STK"), DepthExchange("ARCA", "STK")]
    assert venue_of(resolve(ContractQuery("SPY", currency="CAD"), [answer], deep)) == ("TSE", "TSE")


def test_no_answer_is_a_reason_in_words() -> None:
    assert why_not(resolve(ContractQuery("NOSUCH"), [], DEEP)) == "the gateway knows no such contract (200)"


def test_several_contracts_are_listed_for_the_operator_to_choose() -> None:
    answers = [stock("ABC", "NYSE", con_id=number) for number in range(1, 8)]
    reason = why_not(resolve(ContractQuery("ABC"), answers, DEEP))
    assert "1 ABC NYSE USD" in reason
    assert "and 2 more" in reason
    assert "con_id" in reason


def test_several_rows_of_one_contract_are_one_contract() -> None:
    rows = [replace(stock("ABC", "NYSE"), exchange=name) for name in UNITED_STATES]
    assert venue_of(resolve(ContractQuery("ABC"), rows, DEEP)) == ("NYSE", "NYSE")


def test_con_id_and_primary_exchange_choose_among_several() -> None:
    answers = [stock("ABC", "NYSE", con_id=1), stock("ABC", "ISLAND", con_id=2)]
    assert venue_of(resolve(ContractQuery("ABC", con_id=1), answers, DEEP)) == ("NYSE", "NYSE")
    assert venue_of(resolve(ContractQuery("ABC", primary_exchange="NASDAQ"), answers, DEEP)) == ("ISLAND", "NASDAQ")


def test_a_con_id_of_another_symbol_is_refused_rather_than_stored_under_the_wrong_name() -> None:
    resolution = resolve(ContractQuery("AAPL", con_id=272093), [stock("MSFT", "NASDAQ", con_id=272093)], DEEP)
    assert why_not(resolution) == "contract 272093 is MSFT"


@pytest.mark.parametrize("name", ["EUR.USD", "EUR"])
def test_a_contract_may_go_by_its_local_symbol(name: str) -> None:
    answer = ContractAnswer(12087792, "EUR", "CASH", "USD", "IDEALPRO", "", ("IDEALPRO",), "EUR.USD", "EUR.USD")
    wanted = ContractQuery(name, sec_type="CASH", con_id=12087792)
    assert venue_of(resolve(wanted, [answer], [DepthExchange("IDEALPRO", "CASH")])) == ("IDEALPRO", "")


def test_what_was_found_is_kept_in_the_instrument() -> None:
    assert resolve(ContractQuery("AAPL"), [stock("AAPL", "NASDAQ")], DEEP) == Instrument(
        "AAPL", 1, "STK", "USD", "ISLAND", "NASDAQ", UNITED_STATES, "AAPL", "NMS"
    )


names = st.sampled_from(["SMART", "", "ISLAND", "NASDAQ", "ARCA", "NYSE", "CBOE", "BATS", "IEX", "LSE", "TGATE"])
answers_of = st.lists(
    st.builds(
        ContractAnswer,
        con_id=st.integers(1, 3),
        symbol=st.just("SPY"),
        sec_type=st.sampled_from(["STK", "IND", "FUT"]),
        currency=st.sampled_from(["USD", "EUR"]),
        exchange=names,
        primary_exchange=names,
        valid_exchanges=st.lists(names).map(tuple),
    ),
    max_size=3,
)
wanteds = st.builds(
    ContractQuery,
    symbol=st.just("SPY"),
    exchange=st.none() | names,
    primary_exchange=st.none() | names,
    con_id=st.none() | st.integers(1, 3),
)
depths = st.lists(st.builds(DepthExchange, names, st.sampled_from(["STK", "IND", "FUT"])))


@given(wanteds, answers_of, depths)
def test_whatever_comes_the_venue_is_a_real_one_that_the_contract_lists(
    wanted: ContractQuery, answers: list[ContractAnswer], deep: list[DepthExchange]
) -> None:
    resolution = resolve(wanted, answers, deep)
    assert resolution.symbol == wanted.symbol
    if isinstance(resolution, Unresolved):
        assert resolution.reason
        return
    assert resolution.exchange not in ("SMART", "")
    assert resolution.exchange in resolution.valid_exchanges
    twins = {"ISLAND", "NASDAQ"}
    if wanted.exchange is not None:
        assert resolution.exchange == wanted.exchange or {resolution.exchange, wanted.exchange} == twins
    elif resolution.sec_type != "IND":
        known = {venue.exchange for venue in deep if venue.sec_type == resolution.sec_type}
        assert resolution.exchange in known or (resolution.exchange in twins and known & twins)


@given(answers_of, depths)
def test_a_venue_with_depth_is_never_missed(answers: list[ContractAnswer], deep: list[DepthExchange]) -> None:
    if len({answer.con_id for answer in answers}) != 1:
        return
    answer = answers[0]
    known = {venue.exchange for venue in deep if venue.sec_type == answer.sec_type} - {"SMART", ""}
    if known & set(answer.valid_exchanges):
        assert isinstance(resolve(ContractQuery("SPY"), answers, deep), Instrument)
