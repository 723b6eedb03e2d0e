"""Which contract an entry means: what is asked, how an ambiguity is resolved, what contradicts a con_id."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.futures import Expiry, RollRule
from ibkr_depth_pipeline.gateway.contracts import (
    ContractAnswer,
    ContractQuery,
    DepthExchange,
    NotSelected,
    Question,
    Selected,
    questions,
    select_contract,
)
from ibkr_depth_pipeline.gateway.venues import resolve
from ibkr_depth_pipeline.model import Instrument, Unresolved

NOW = datetime(2026, 11, 26, 15, tzinfo=timezone.utc).timestamp()
US = ContractAnswer(1, "META", "STK", "USD", "SMART", "NASDAQ", ("SMART", "ISLAND", "ARCA"), "META", "NMS")
SWISS = ContractAnswer(2, "META", "STK", "USD", "SMART", "EBS", ("SMART", "EBS"), "META", "META")
DEEP = (DepthExchange("ISLAND", "STK"), DepthExchange("CME", "FUT"), DepthExchange("EUREX", "FUT"))
DEEP_SWISS = (*DEEP, DepthExchange("EBS", "STK"))


def future(con_id: int, day: str, **others: str) -> ContractAnswer:
    fields = {"trading_class": "ES", "multiplier": "50", "exchange": "CME", "time_zone": "US/Central", **others}
    exchange = fields["exchange"]
    return ContractAnswer(
        con_id, "ES", "FUT", "USD", exchange, "", (exchange,), f"ES{con_id}", fields["trading_class"],
        fields["multiplier"], day, day[:6], time_zone=fields["time_zone"],
    )  # fmt: skip


ES = [future(10, "20261218"), future(11, "20270319"), future(12, "20270618")]


def chosen(query: ContractQuery, answers: list[ContractAnswer], depth: tuple[DepthExchange, ...] = DEEP) -> Selected:
    found = select_contract(query, answers, depth, NOW)
    assert isinstance(found, Selected), found
    return found


def why_not(query: ContractQuery, answers: list[ContractAnswer], depth: tuple[DepthExchange, ...] = DEEP) -> str:
    found = select_contract(query, answers, depth, NOW)
    assert isinstance(found, NotSelected), found
    return found.reason


def test_con_id_is_asked_for_alone_and_with_its_exchange_first() -> None:
    query = ContractQuery("AAPL", "STK", "USD", "ARCA", "NASDAQ", 265598)
    assert questions(query) == (Question(con_id=265598, exchange="ARCA"), Question(con_id=265598))
    assert questions(ContractQuery("", con_id=265598, name="X")) == (Question(con_id=265598),)


def test_plain_stock_is_one_question() -> None:
    (question,) = questions(ContractQuery("SPY"))
    assert question == Question(symbol="SPY", sec_type="STK", currency="USD", exchange="SMART")


def test_share_class_is_asked_for_with_a_blank_first() -> None:
    assert [each.symbol for each in questions(ContractQuery("BRK.B"))] == ["BRK B", "BRK.B"]


def test_future_has_no_usual_currency_and_is_found_after_its_venue_was_renamed() -> None:
    asked = questions(ContractQuery("ES", "FUT", None, exchange="GLOBEX", expiry=Expiry(0, "202612")))
    assert [(each.exchange, each.currency, each.expiry) for each in asked] == [
        ("GLOBEX", "", "202612"),
        ("", "", "202612"),
    ]


def test_continuous_future_asks_for_the_futures() -> None:
    query = ContractQuery("ES", "CONTFUT", exchange="CME")
    assert {each.sec_type for each in questions(query)} == {"FUT"}
    assert chosen(query, ES).answer.expiry == "20261218"


def test_contract_with_a_deep_venue_is_taken_and_the_other_named() -> None:
    found = chosen(ContractQuery("META"), [SWISS, US])
    assert found.answer == US
    assert "2 META EBS USD" in found.passed_over


def test_us_listing_is_taken_where_both_have_depth() -> None:
    assert chosen(ContractQuery("META"), [SWISS, US], DEEP_SWISS).answer == US


def test_only_a_deep_venue_decides_in_another_currency() -> None:
    one, other = replace(US, currency="CHF", con_id=3), replace(SWISS, currency="CHF", con_id=4)
    query = ContractQuery("META", currency="CHF")
    assert chosen(query, [one, other]).answer == one
    assert "several contracts match" in why_not(query, [one, other], DEEP_SWISS)


def test_named_exchange_decides() -> None:
    assert chosen(ContractQuery("META", exchange="EBS"), [US, SWISS], DEEP_SWISS).answer == SWISS
    assert chosen(ContractQuery("META", primary_exchange="EBS"), [US, SWISS]).answer == SWISS


def test_contracts_that_remain_are_listed_with_what_to_write() -> None:
    reason = why_not(ContractQuery("META"), [US, replace(US, con_id=3, primary_exchange="NYSE")])
    for part in ("1 META NASDAQ USD", "3 META NYSE USD", "con_id: 1", "con_id: 3"):
        assert part in reason


@pytest.mark.parametrize(
    ("query", "said", "own"),
    [
        (ContractQuery("AAPL", con_id=1), "AAPL", "META"),
        (ContractQuery("", currency="CHF", con_id=1), "CHF", "USD"),
        (ContractQuery("", sec_type="FUT", con_id=1), "FUT", "STK"),
        (ContractQuery("", primary_exchange="NYSE", con_id=1), "NYSE", "NASDAQ"),
        (ContractQuery("", trading_class="FB", con_id=1), "FB", "NMS"),
        (ContractQuery("", None, None, expiry=Expiry(0, "202612"), con_id=1), "202612", "expiry is empty"),
    ],
)
def test_word_that_contradicts_a_con_id_is_shown_beside_the_answer(query: ContractQuery, said: str, own: str) -> None:
    reason = why_not(query, [US])
    assert said in reason
    assert own in reason


def test_con_id_alone_takes_type_currency_and_symbol_from_the_answer() -> None:
    found = resolve(ContractQuery("", None, None, con_id=10, name="ES.X"), [ES[0]], DEEP, NOW)
    assert isinstance(found, Instrument)
    assert (found.symbol, found.sec_type, found.exchange, found.expiry) == ("ES.X", "FUT", "CME", "20261218")


def test_front_of_a_chain_has_the_moment_of_its_roll() -> None:
    found = chosen(ContractQuery("ES", "FUT", expiry=Expiry()), ES)
    assert found.answer.con_id == 10
    assert found.rolls_at == datetime(2026, 12, 13, 23, tzinfo=timezone.utc).timestamp()
    assert chosen(ContractQuery("ES", "FUT", expiry=Expiry(1)), ES).answer.con_id == 11
    early = RollRule(days_before=30)
    assert chosen(ContractQuery("ES", "FUT", expiry=Expiry(), roll=early), ES).answer.con_id == 11


def test_month_is_one_contract_for_good() -> None:
    found = chosen(ContractQuery("ES", "FUT", expiry=Expiry(0, "202703")), ES)
    assert (found.answer.con_id, found.rolls_at) == (11, None)
    assert "20261218 (ES10)" in why_not(ContractQuery("ES", "FUT", expiry=Expiry(0, "202701")), ES)


def test_future_without_an_expiry_says_what_to_write() -> None:
    assert "expiry: front" in why_not(ContractQuery("ES", "FUT"), ES)


def test_chain_of_several_kinds_takes_the_one_of_the_symbol_or_says_what_to_write() -> None:
    micro = [future(20, "20261218", trading_class="MES", multiplier="5")]
    assert chosen(ContractQuery("ES", "FUT", expiry=Expiry()), [*micro, *ES]).answer.con_id == 10
    unnamed = [replace(each, trading_class="XES") for each in ES]
    reason = why_not(ContractQuery("ES", "FUT", expiry=Expiry()), [*micro, *unnamed])
    for part in ("trading_class: MES", "trading_class: XES", "multiplier: '5'"):
        assert part in reason


def test_renamed_venue_names_those_that_the_contract_has_now() -> None:
    found = resolve(ContractQuery("ES", "FUT", exchange="GLOBEX", expiry=Expiry()), ES, DEEP, NOW)
    assert isinstance(found, Unresolved)
    assert found.reason == "GLOBEX is not among the contract's exchanges (CME)"


def test_venue_of_another_listing_alone_has_no_depth() -> None:
    amex = (DepthExchange("AMEX", "STK", "AMEX"), DepthExchange("ARCA", "STK", ""))
    listed = replace(US, valid_exchanges=("SMART", "AMEX", "ARCA"))
    found = resolve(ContractQuery("META"), [listed], amex)
    assert isinstance(found, Instrument)
    assert (found.exchange, found.alternatives) == ("ARCA", ())
    own = resolve(ContractQuery("META"), [replace(listed, primary_exchange="AMEX")], amex)
    assert isinstance(own, Instrument)
    assert (own.exchange, own.alternatives) == ("AMEX", ("ARCA",))


_ANSWERS = st.lists(
    st.builds(
        ContractAnswer,
        con_id=st.integers(1, 4),
        symbol=st.just("A"),
        sec_type=st.sampled_from(["STK", "FUT"]),
        currency=st.sampled_from(["USD", "CHF"]),
        exchange=st.just("SMART"),
        primary_exchange=st.sampled_from(["NASDAQ", "EBS", ""]),
        valid_exchanges=st.lists(st.sampled_from(["SMART", "ISLAND", "EBS", "CME"]), max_size=3).map(tuple),
        trading_class=st.sampled_from(["A", "B"]),
        expiry=st.sampled_from(["", "20261218", "20270319", "soon"]),
    ),
    max_size=5,
)
_QUERIES = st.builds(
    ContractQuery,
    symbol=st.just("A"),
    sec_type=st.sampled_from([None, "STK", "FUT", "CONTFUT"]),
    con_id=st.none() | st.integers(1, 4),
    expiry=st.none() | st.builds(Expiry, st.integers(0, 2)) | st.just(Expiry(0, "202612")),
)


@given(_QUERIES, _ANSWERS, st.permutations(DEEP_SWISS))
def test_contract_is_chosen_from_the_answers_or_a_reason_is_given(
    query: ContractQuery, answers: list[ContractAnswer], depth: list[DepthExchange]
) -> None:
    found = select_contract(query, answers, depth, NOW)
    if isinstance(found, NotSelected):
        assert found.reason
        return
    assert found.answer in answers
    assert query.con_id in (None, found.answer.con_id)
    assert found.rolls_at is None or found.rolls_at > NOW
