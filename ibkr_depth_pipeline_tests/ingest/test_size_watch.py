"""The unit of sizes: what the contract, the gateway and the sizes themselves say, and what a change leads to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ibkr_depth_pipeline.ingest.books import BookState
from ibkr_depth_pipeline.ingest.effects import Effect
from ibkr_depth_pipeline.ingest.size_watch import SHOWN_SECS, SizeWatch
from ibkr_depth_pipeline.schema.size_units import SizeUnit, unit_of_fields, unit_of_sizes
from ibkr_depth_pipeline_tests.ingest.wiring import instrument, said

IN_SHARES = [100.0, 300.0, 1200.0, 200.0, 5000.0]
IN_LOTS = [1.0, 3.0, 12.0, 2.0, 50.0]


def watched(watch: SizeWatch, sizes: list[float], price: float = 50.0, times: int = 20) -> list[Effect]:
    """What comes of so many samples of a book with these sizes on each side."""
    side = tuple((price, size, "NSDQ") for size in sizes)
    return [each for _ in range(times) for each in watch.sample("SPY", BookState(1, 1, side, side), 0.0)]


def test_unit_of_a_stock_is_judged_by_many_sizes() -> None:
    stored: list[SizeUnit] = []
    watch = SizeWatch(lambda symbol, unit: stored.append(unit))
    watch.requested(instrument("SPY"), 176, 0.0)
    watched(watch, IN_SHARES, times=19)
    assert [unit.size_unit for unit in stored] == [""]
    watched(watch, IN_SHARES, times=1)
    assert [unit.size_unit for unit in stored] == ["", "shares"]


def test_gateway_that_changes_from_shares_to_lots_is_reported_once() -> None:
    watch = SizeWatch()
    watch.requested(instrument("SPY"), 176, 0.0)
    assert said(watched(watch, IN_SHARES)) == []
    assert said(watched(watch, IN_LOTS, times=60)) == ["size_unit_changed"]
    assert watch.problem(1.0) == "SPY: sizes are in lots, they were in shares"
    assert watch.problem(SHOWN_SECS) == ""


def test_change_since_an_earlier_run_is_reported() -> None:
    watch = SizeWatch()
    watch.load({"SPY": SizeUnit("shares", False, 1.0, 1.0, 176)})
    effects = watch.requested(replace(instrument("SPY"), min_size=0.0001, size_increment=0.0001), 178, 0.0)
    assert said(effects) == ["size_unit_changed"]
    assert watch.unit_of("SPY") == SizeUnit("shares", True, 0.0001, 0.0001, 178)


def test_new_version_of_the_gateway_alone_is_recorded_and_no_change() -> None:
    stored: list[SizeUnit] = []
    watch = SizeWatch(lambda symbol, unit: stored.append(unit))
    watch.load({"SPY": SizeUnit("shares", False, 1.0, 1.0, 163)})
    assert watch.requested(replace(instrument("SPY"), min_size=1.0, size_increment=1.0), 176, 0.0) == []
    assert stored == [SizeUnit("shares", False, 1.0, 1.0, 176)]


def test_size_that_is_not_whole_is_fractional() -> None:
    watch = SizeWatch()
    watch.requested(replace(instrument("SPY"), sec_type="CRYPTO"), 176, 0.0)
    watched(watch, [0.25, 3.0], times=1)
    assert watch.unit_of("SPY").size_fractional


@pytest.mark.parametrize(
    ("sec_type", "unit"), [("FUT", "contracts"), ("CASH", "currency"), ("CRYPTO", ""), ("STK", "")]
)
def test_kind_of_contract_fixes_some_units(sec_type: str, unit: str) -> None:
    watch = SizeWatch()
    watch.requested(replace(instrument("SPY"), sec_type=sec_type), 176, 0.0)
    assert watch.unit_of("SPY").size_unit == unit


@pytest.mark.parametrize(
    ("price", "sizes", "unit"),
    [
        (50.0, [100.0, 200.0], "shares"),
        (50.0, [1.0, 7.0], "lots"),
        (50.0, [100.0, 168.0, 300.0, 523.0], "shares"),  # mixed lots among them
        (50.0, [100.0, 57.0, 300.0, 43.0], ""),  # half of them odd lots
        (600.0, [40.0, 120.0], "shares"),
        (600.0, [100.0, 300.0], "shares"),
        (10.0, [523.0, 811.0, 377.0], ""),  # in lots, of a busy stock
        (600.0, [3.0, 12.0], "lots"),
        (500_000.0, [1.0, 2.0], ""),  # a round lot is one share
        (50.0, [], ""),
        (50.0, [0.0], ""),
    ],
)
def test_unit_is_judged_by_the_round_lot_of_the_price(price: float, sizes: list[float], unit: str) -> None:
    assert unit_of_sizes([(price, size) for size in sizes]) == unit


@pytest.mark.parametrize("unit", [SizeUnit(), SizeUnit("lots", True, 0.5, 0.25, 176), SizeUnit(min_size=1.0)])
def test_stored_unit_is_read_back(unit: SizeUnit) -> None:
    assert unit_of_fields(unit.fields()) == unit
