"""One venue per symbol, never SMART: each rule by example, properties of any answer, and the next venue on refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.gateway.venues import (
    FALLBACK_SECS,
    MOST_FRUITLESS,
    PROOFS,
    REMEMBERED_SECS,
    ContractAnswer,
    ContractQuery,
    DepthExchange,
    FallbackBudget,
    Resolution,
    VenueFallback,
    resolve,
)
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
def test_venue_of_a_stock_is_the_one_of_its_listing(symbol: str, primary: str, expected: tuple[str, str]) -> None:
    assert venue_of(resolve(ContractQuery(symbol), [stock(symbol, primary)], DEEP)) == expected


@pytest.mark.parametrize(("symbol", "primary"), [("AAPL", "NASDAQ"), ("AAPL", "ISLAND"), ("QQQ", "NASDAQ")])
def test_nasdaq_is_requested_under_the_name_that_the_gateway_lists(symbol: str, primary: str) -> None:
    answer = stock(symbol, primary, renamed(UNITED_STATES))
    assert venue_of(resolve(ContractQuery(symbol), [answer], DEEP_RENAMED)) == ("NASDAQ", "NASDAQ")
    assert venue_of(resolve(ContractQuery(symbol), [answer], DEEP)) == ("NASDAQ", "NASDAQ")


@pytest.mark.parametrize("query", ["ISLAND", "NASDAQ"])
def test_configured_venue_is_found_under_either_name_of_nasdaq(query: str) -> None:
    islands = resolve(ContractQuery("IBM", exchange=query), [stock("IBM", "NYSE")], DEEP)
    assert venue_of(islands) == ("ISLAND", "NYSE")
    nasdaqs = resolve(
        ContractQuery("IBM", exchange=query), [stock("IBM", "NYSE", renamed(UNITED_STATES))], DEEP_RENAMED
    )
    assert venue_of(nasdaqs) == ("NASDAQ", "NYSE")


@pytest.mark.parametrize("query", ["ISLAND", "NASDAQ"])
def test_configured_name_of_nasdaq_is_kept_if_both_are_listed(query: str) -> None:
    answer = stock("AAPL", "NASDAQ", ("SMART", "NASDAQ", "ISLAND"))
    assert venue_of(resolve(ContractQuery("AAPL", exchange=query), [answer], DEEP)) == (query, "NASDAQ")


def test_configured_venue_wins_over_every_rule_even_if_no_depth_is_listed_for_it() -> None:
    assert venue_of(resolve(ContractQuery("SPY", exchange="BATS"), [stock("SPY", "ARCA")], DEEP)) == ("BATS", "ARCA")
    assert venue_of(resolve(ContractQuery("SPY", exchange="PHLX"), [stock("SPY", "ARCA")], DEEP)) == ("PHLX", "ARCA")
    overridden = ContractQuery("AAPL", primary_exchange="NYSE")
    assert venue_of(resolve(overridden, [stock("AAPL", "NASDAQ")], DEEP)) == ("NYSE", "NYSE")


def test_configured_venue_that_the_contract_does_not_list_is_unresolved_with_the_reason() -> None:
    reason = why_not(resolve(ContractQuery("SPY", exchange="LSE"), [stock("SPY", "ARCA")], DEEP))
    assert reason.startswith("LSE is not among the contract's exchanges (SMART, AMEX")


def test_configured_smart_is_unresolved() -> None:
    assert isinstance(resolve(ContractQuery("SPY", exchange="SMART"), [stock("SPY", "ARCA")], DEEP), Unresolved)


def test_stock_whose_listing_has_no_depth_gets_the_best_other_venue() -> None:
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


def test_depth_exchange_of_another_security_type_is_ignored() -> None:
    futures = [DepthExchange(name, "FUT") for name in UNITED_STATES]
    reason = why_not(resolve(ContractQuery("IBM"), [stock("IBM", "NYSE")], futures))
    assert "has market depth" in reason


@pytest.mark.parametrize("symbol", ["SPX", "VIX"])
def test_index_gets_cboe_although_no_gateway_lists_depth_of_indices(symbol: str) -> None:
    answer = ContractAnswer(416904, symbol, "IND", "USD", "CBOE", "", ("SMART", "CBOE"), symbol, symbol)
    assert venue_of(resolve(ContractQuery(symbol, sec_type="IND"), [answer], DEEP)) == ("CBOE", "")


def test_index_that_is_not_on_cboe_gets_a_venue_with_depth_or_none() -> None:
    answer = ContractAnswer(5, "DAX", "IND", "EUR", "EUREX", "", ("EUREX",), "DAX", "DAX")
    query = ContractQuery("DAX", sec_type="IND", currency="EUR")
    assert isinstance(resolve(query, [answer], DEEP), Unresolved)
    assert venue_of(resolve(query, [answer], [DepthExchange("EUREX", "IND")])) == ("EUREX", "")


def test_namesake_of_a_well_known_etf_in_another_currency_gets_its_own_venue() -> None:
    answer = replace(stock("SPY", "TSE", ("SMART", "TSE", "ARCA")), currency="CAD")
    deep = [DepthExchange("TSE", "STK"), DepthExchange("ARCA", "STK")]
    assert venue_of(resolve(ContractQuery("SPY", currency="CAD"), [answer], deep)) == ("TSE", "TSE")


def test_unknown_contract_is_unresolved_with_the_reason() -> None:
    assert why_not(resolve(ContractQuery("NOSUCH"), [], DEEP)) == "the gateway knows no such contract (200)"


def test_several_matching_contracts_are_listed_in_the_reason() -> None:
    answers = [stock("ABC", "NYSE", con_id=number) for number in range(1, 8)]
    reason = why_not(resolve(ContractQuery("ABC"), answers, DEEP))
    assert "1 ABC NYSE USD" in reason
    assert "and 2 more" in reason
    assert "con_id" in reason


def test_several_answers_with_one_con_id_are_one_contract() -> None:
    rows = [replace(stock("ABC", "NYSE"), exchange=name) for name in UNITED_STATES]
    assert venue_of(resolve(ContractQuery("ABC"), rows, DEEP)) == ("NYSE", "NYSE")


def test_con_id_and_primary_exchange_choose_among_several_contracts() -> None:
    answers = [stock("ABC", "NYSE", con_id=1), stock("ABC", "ISLAND", con_id=2)]
    assert venue_of(resolve(ContractQuery("ABC", con_id=1), answers, DEEP)) == ("NYSE", "NYSE")
    assert venue_of(resolve(ContractQuery("ABC", primary_exchange="NASDAQ"), answers, DEEP)) == ("ISLAND", "NASDAQ")


def test_con_id_of_another_symbol_is_unresolved() -> None:
    resolution = resolve(ContractQuery("AAPL", con_id=272093), [stock("MSFT", "NASDAQ", con_id=272093)], DEEP)
    assert why_not(resolution) == "contract 272093 (MSFT STK) differs: symbol is MSFT, the universe says AAPL"


@pytest.mark.parametrize("name", ["EUR.USD", "EUR"])
def test_contract_is_found_by_its_local_symbol(name: str) -> None:
    answer = ContractAnswer(12087792, "EUR", "CASH", "USD", "IDEALPRO", "", ("IDEALPRO",), "EUR.USD", "EUR.USD")
    query = ContractQuery(name, sec_type="CASH", con_id=12087792)
    assert venue_of(resolve(query, [answer], [DepthExchange("IDEALPRO", "CASH")])) == ("IDEALPRO", "")


def test_instrument_holds_the_contract_details() -> None:
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
queries = st.builds(
    ContractQuery,
    symbol=st.just("SPY"),
    exchange=st.none() | names,
    primary_exchange=st.none() | names,
    con_id=st.none() | st.integers(1, 3),
)
depths = st.lists(st.builds(DepthExchange, names, st.sampled_from(["STK", "IND", "FUT"])))


@given(queries, answers_of, depths)
def test_venue_is_always_a_real_one_that_the_contract_lists(
    query: ContractQuery, answers: list[ContractAnswer], deep: list[DepthExchange]
) -> None:
    resolution = resolve(query, answers, deep)
    assert resolution.symbol == query.symbol
    if isinstance(resolution, Unresolved):
        assert resolution.reason
        return
    assert resolution.exchange not in ("SMART", "")
    assert resolution.exchange in resolution.valid_exchanges
    twins = {"ISLAND", "NASDAQ"}
    if query.exchange is not None:
        assert resolution.exchange == query.exchange or {resolution.exchange, query.exchange} == twins
    elif resolution.sec_type != "IND":
        known = {venue.exchange for venue in deep if venue.sec_type == resolution.sec_type}
        assert resolution.exchange in known or (resolution.exchange in twins and known & twins)


@given(answers_of, depths)
def test_venue_with_depth_is_never_missed(answers: list[ContractAnswer], deep: list[DepthExchange]) -> None:
    if len({answer.con_id for answer in answers}) != 1:
        return
    answer = answers[0]
    known = {venue.exchange for venue in deep if venue.sec_type == answer.sec_type} - {"SMART", ""}
    if known & set(answer.valid_exchanges):
        assert isinstance(resolve(ContractQuery("SPY"), answers, deep), Instrument)


def venues(*names: str) -> VenueFallback:
    best, *others = names
    return VenueFallback(Instrument("A", 1, "STK", "USD", best, "NASDAQ", alternatives=tuple(others)))


def requested(fallback: VenueFallback) -> str:
    return fallback.requested.exchange


def test_refusal_leads_to_the_next_venue_in_order() -> None:
    fallback = venues("ISLAND", "ARCA", "IEX")
    assert fallback.refused("354: no", 0.0, is_well=True)
    assert requested(fallback) == "ARCA"
    assert fallback.refused("10092: no", 0.0, is_well=True)
    assert requested(fallback) == "IEX"
    assert not fallback.refused("354: no", 0.0, is_well=True)
    assert fallback.refusal_summary == "ISLAND 354: no; ARCA 10092: no; IEX 354: no"
    fallback.start_over()
    assert (requested(fallback), fallback.refusal_summary) == ("ISLAND", "")


def test_configured_venue_is_never_replaced_after_refusals() -> None:
    fallback = venues("ISLAND")
    for now in range(10):
        assert not fallback.refused("354: no", float(now), is_well=True)
        assert requested(fallback) == "ISLAND"


def test_venue_that_delivered_rows_is_left_only_when_it_refuses_again() -> None:
    fallback = venues("ISLAND", "ARCA")
    fallback.granted()
    for _ in range(PROOFS - 1):
        assert not fallback.refused("354: no", 1.0, is_well=True)
    assert fallback.refused("354: no", 2.0, is_well=True)
    assert requested(fallback) == "ARCA"


def test_venue_is_left_only_when_it_refuses_again_while_the_feed_is_degraded() -> None:
    fallback = venues("ISLAND", "ARCA")
    for _ in range(PROOFS - 1):
        assert not fallback.refused("354: no", 1.0, is_well=False)
    assert fallback.refused("354: no", 2.0, is_well=False)


def test_invalid_request_leads_to_no_other_venue() -> None:
    assert not venues("ISLAND", "ARCA").refused("321: bad", 0.0, is_well=True, elsewhere=False)


def test_refusal_of_a_venue_is_remembered_for_a_day_over_new_resolutions() -> None:
    fallback = venues("ISLAND", "ARCA", "IEX")
    fallback.refused("354: no", 0.0, is_well=True)
    assert not fallback.granted(), "it was never refused"
    fallback.update_instrument(venues("ISLAND", "ARCA", "IEX").instrument, 100.0)
    assert requested(fallback) == "ARCA"
    assert fallback.refusal_summary == "ISLAND 354: no"
    fallback.update_instrument(venues("ISLAND", "IEX").instrument, 200.0)
    assert requested(fallback) == "IEX"
    fallback.update_instrument(venues("ISLAND").instrument, REMEMBERED_SECS + 1.0)
    assert (requested(fallback), fallback.refusal_summary) == ("ISLAND", "")


def test_budget_allows_other_venues_to_one_symbol_at_a_time_while_no_symbol_is_granted() -> None:
    budget = FallbackBudget()
    assert all(budget.refused(f"S{number}", 0.0) for number in range(MOST_FRUITLESS))
    allowed = {symbol for symbol in ("A", "B", "C") for now in (0.0, 1.0) if budget.refused(symbol, now)}
    assert allowed == {"A"}
    assert budget.refused("B", FALLBACK_SECS)
    budget.granted()
    assert budget.refused("C", FALLBACK_SECS)
