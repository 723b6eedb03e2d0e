"""The contract of a futures chain that is in force, and the moments at which contracts roll."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.futures import Expiry, RollRule, contract_in_force, last_day

CHICAGO = ZoneInfo("America/Chicago")
FRONT = Expiry.parse("front")


@dataclass(frozen=True)
class Contract:
    expiry: str
    contract_month: str = ""
    exchange: str = "CME"
    trading_class: str = "ES"
    time_zone: str = "US/Central"


ES = [Contract(day, day[:6]) for day in ("20270319", "20261218", "20270618", "20260918")]


def at(text: str, zone: ZoneInfo = CHICAGO) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("front", Expiry()),
        ("FRONT", Expiry()),
        ("front+1", Expiry(1)),
        ("front + 2", Expiry(2)),
        (202612, Expiry(0, "202612")),
        ("202612", Expiry(0, "202612")),
        (20261218, Expiry(0, "20261218")),
    ],
)
def test_expiry_is_read_quoted_or_not(value: object, expected: Expiry) -> None:
    assert Expiry.parse(value) == expected


@pytest.mark.parametrize("value", ["", "back", "front-1", "front+99", 2026, 202613, 20261232, True, None, 1.5, "DEC26"])
def test_expiry_that_is_none_is_refused_with_the_rule(value: object) -> None:
    with pytest.raises(ValueError, match="front"):
        Expiry.parse(value)


@given(st.text(max_size=10) | st.integers() | st.booleans() | st.none())
def test_any_expiry_is_read_or_refused_and_reads_back(value: object) -> None:
    try:
        expiry = Expiry.parse(value)
    except ValueError:
        return
    assert Expiry.parse(str(expiry)) == expiry


def test_front_of_an_equity_index_is_that_of_the_exchange_until_the_monday_before_its_last_trade_date() -> None:
    before, after = at("2026-12-13T16:59:59"), at("2026-12-13T17:00:00")  # the Sunday on which Monday's session begins
    first, second = contract_in_force(ES, FRONT, RollRule(), before), contract_in_force(ES, FRONT, RollRule(), after)
    assert first is not None
    assert first.contract.expiry == "20261218"
    assert first.rolls_at == after
    assert second is not None
    assert second.contract.expiry == "20270319"


def test_contract_behind_the_front_rolls_when_the_front_does() -> None:
    found = contract_in_force(ES, Expiry(1), RollRule(), at("2026-12-01T12:00"))
    assert found is not None
    assert found.contract.expiry == "20270319"
    assert found.rolls_at == at("2026-12-13T17:00")


def test_month_and_last_trade_date_are_meant_for_good() -> None:
    for text in ("202612", "20261218"):
        found = contract_in_force(ES, Expiry.parse(text), RollRule(), at("2026-12-17T12:00"))
        assert found is not None
        assert (found.contract.expiry, found.rolls_at) == ("20261218", None)
    assert contract_in_force(ES, Expiry.parse("202611"), RollRule(), 0.0) is None


def test_contract_month_counts_where_the_last_trade_date_lies_in_another() -> None:
    oil = [Contract("20261120", "202612", "NYMEX", "CL"), Contract("20261221", "202701", "NYMEX", "CL")]
    found = contract_in_force(oil, Expiry.parse("202612"), RollRule(), 0.0)
    assert found is not None
    assert found.contract.expiry == "20261120"


@pytest.mark.parametrize(
    ("contract", "day"),
    [
        (Contract("20261228", "202612", "COMEX", "GC", "US/Eastern"), "2026-11-26"),
        (Contract("20261221", "202612", "CBOT", "ZN", "US/Central"), "2026-11-26"),
        (Contract("20261221", "202701", "NYMEX", "CL", "US/Eastern"), "2026-12-16"),
        (Contract("20261218", "202612", "CBOT", "YM", "US/Central"), "2026-12-13"),
        (Contract("20261218", "202612", "EUREX", "FDAX", "MET"), "2026-12-13"),
        (Contract("20261228", "", "COMEX", "GC", "US/Eastern"), "2026-12-23"),
    ],
)
def test_contract_that_is_delivered_rolls_before_its_month_begins(contract: Contract, day: str) -> None:
    assert RollRule().moment(contract) == at(f"{day}T17:00", ZoneInfo(contract.time_zone))


def test_operators_rule_counts_from_the_last_trade_date_in_its_own_zone() -> None:
    rule = RollRule(8, time(8, 30), "America/New_York")
    assert rule.moment(Contract("20261218", "202612", "CBOT", "ZN")) == at(
        "2026-12-10T08:30", ZoneInfo("America/New_York")
    )
    assert RollRule(days_before=1).moment(Contract("20261218", time_zone="nowhere/at all")) == at("2026-12-17T17:00")


def test_contract_without_a_readable_date_is_passed_over() -> None:
    chain = [Contract("", "202609"), Contract("soon"), *ES]
    found = contract_in_force(chain, FRONT, RollRule(), at("2026-11-26T12:00"))
    assert found is not None
    assert found.contract.expiry == "20261218"
    assert contract_in_force([Contract("")], FRONT, RollRule(), 0.0) is None


_DAYS = st.dates(datetime(2026, 1, 1).date(), datetime(2028, 12, 31).date()).map(lambda day: f"{day:%Y%m%d}")
_RULES = st.builds(
    RollRule, st.none() | st.integers(0, 60), st.none() | st.times(), st.sampled_from([None, "Asia/Tokyo"])
)


@given(st.lists(_DAYS, unique=True, max_size=12), st.integers(0, 3), _RULES, st.datetimes(datetime(2026, 1, 1)))
def test_roll_moves_on_by_one_contract_and_never_back(
    days: list[str], ahead: int, rule: RollRule, when: datetime
) -> None:
    chain = [Contract(day, day[:6]) for day in days]
    now = min(when, datetime(2030, 1, 1)).replace(tzinfo=timezone.utc).timestamp()
    found = contract_in_force(chain, Expiry(ahead), rule, now)
    if found is None:
        return
    assert found.rolls_at is not None
    assert found.rolls_at > now
    just_before = contract_in_force(chain, Expiry(ahead), rule, found.rolls_at - 0.001)
    assert just_before is not None
    assert just_before.contract == found.contract
    following = contract_in_force(chain, Expiry(ahead), rule, found.rolls_at)
    later = sorted(day for day in days if day > found.contract.expiry)
    assert (following.contract.expiry if following else None) == (later[0] if later else None)


def test_last_day_of_a_month() -> None:
    assert str(last_day("202612")) == "2026-12-31"
    assert str(last_day("202802")) == "2028-02-29"
    assert last_day("209913") is None
