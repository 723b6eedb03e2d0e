"""Reports, rows and gaps of lines; silent ones: single cases, and days of simulated flow without a false alarm."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from ibkr_depth_pipeline.ingest.liveness import (
    AILING_SECS,
    CURED_SECS,
    IN_FLIGHT_SECS,
    DataGaps,
    LineSample,
    LivenessTracker,
    SilenceDetector,
    SilentLine,
)

ALL = {1, 2}


def proven() -> LivenessTracker:
    """Of two subscriptions that have had their first rows, at 0 s."""
    tracker = LivenessTracker()
    tracker.connecting()
    for request in ALL:
        tracker.await_row(request)
        tracker.prove(request)
    return tracker


@pytest.mark.parametrize("code", [2103, 2108, 2110, 10197])
def test_rows_right_after_bad_news_prove_nothing_as_they_may_be_older(code: int) -> None:
    tracker = proven()
    assert tracker.farm_status(code, ALL, 100.0) == AILING_SECS
    assert (tracker.awaited, tracker.ailments) == (ALL, (code,))
    assert not tracker.is_proof(100.0 + IN_FLIGHT_SECS / 2)
    assert tracker.is_proof(100.0 + IN_FLIGHT_SECS)


def test_trouble_is_over_when_the_last_in_doubt_has_proven_itself() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    tracker.prove(1)
    assert (tracker.awaited, tracker.ailments) == ({2}, (10197,))
    tracker.prove(2)
    assert (tracker.awaited, tracker.ailments) == (set(), ())


def test_forgotten_request_has_proven_nothing() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    for request in ALL:
        tracker.forget(request)
    assert (tracker.awaited, tracker.ailments) == (set(), (10197,))


def test_farm_that_is_well_again_leaves_doubt_but_less_patience_and_rows_prove_at_once() -> None:
    tracker = proven()
    tracker.farm_status(2103, ALL, 100.0)
    tracker.prove(1)
    assert tracker.farm_status(2104, ALL, 110.0) == CURED_SECS
    assert (tracker.awaited, tracker.ailments) == (ALL, ())
    assert tracker.is_proof(110.0)


def test_farm_that_is_well_is_no_cure_for_a_competing_session() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    assert tracker.farm_status(2104, ALL, 101.0) is None
    assert tracker.ailments == (10197,)


@pytest.mark.parametrize("code", [2104, 2105, 2106, 2157, 2158])
def test_historical_farms_and_the_good_health_of_well_ones_cast_no_doubt(code: int) -> None:
    tracker = proven()
    assert tracker.farm_status(code, ALL, 100.0) is None
    assert (tracker.awaited, tracker.ailments) == (set(), ())


def test_connectivity_that_is_back_ends_the_suspension_and_every_trouble_but_not_the_doubt() -> None:
    tracker = proven()
    tracker.farm_status(10197, ALL, 100.0)
    tracker.connectivity_lost(ALL, 101.0)
    assert tracker.suspended
    assert not tracker.is_proof(102.0)
    tracker.connectivity_restored(ALL, 102.0)
    assert not tracker.suspended
    assert (tracker.awaited, tracker.ailments) == (ALL, ())
    assert tracker.is_proof(102.0)


def test_new_connection_begins_without_doubts() -> None:
    tracker = proven()
    tracker.farm_status(2103, ALL, 100.0)
    tracker.connectivity_lost(ALL, 100.0)
    tracker.disconnected()
    tracker.connecting()
    assert (tracker.awaited, tracker.suspended, tracker.ailments) == (set(), False, ())
    assert tracker.is_proof(101.0)


# ---- gaps


def test_first_cause_of_a_gap_counts_and_its_length_is_from_row_to_row() -> None:
    gaps = DataGaps()
    gaps.open([("SPY", 1000)], "connectivity_lost", 1100)
    gaps.open([("SPY", 1500), ("QQQ", 1200)], "connection_lost")
    assert gaps.missing == {"SPY": "connectivity_lost", "QQQ": "connection_lost"}
    gap = gaps.close("SPY", 4500)
    assert gap is not None
    assert (gap.cause, gap.code, gap.secs) == ("connectivity_lost", 1100, 3.5)
    assert gaps.close("SPY", 5000) is None


FLOOR = 15.0
IMAGE = 20
DAY_SECS = 23_400

Flow = Iterator[int]
"""How many rows a line gets in each second."""


def liveness(floor: float = FLOOR) -> SilenceDetector:
    return SilenceDetector(floor=floor, first_row_secs=floor, image_rows=IMAGE)


class Market:
    """Lines with flows, sampled once a second; the first second of each brings its opening image."""

    def __init__(self, flows: dict[str, Flow], floor: float = FLOOR) -> None:
        self.liveness = liveness(floor)
        self.flows = flows
        self.now = 0.0
        self.requests = {symbol: number for number, symbol in enumerate(flows, 1)}
        self.rows = dict.fromkeys(flows, IMAGE)
        self.dead: set[str] = set()
        self.found: list[tuple[float, SilentLine]] = []

    def run(self, secs: float) -> list[tuple[float, SilentLine]]:
        """Returns what is found meanwhile. A line that is asked for again is a new request with a new image."""
        end, before = self.now + secs, len(self.found)
        while self.now < end:
            self.now += 1.0
            for symbol, flow in self.flows.items():
                rows = next(flow)
                self.rows[symbol] += 0 if symbol in self.dead else rows
            lines = [LineSample(self.requests[each], each, self.rows[each]) for each in self.flows]
            for each in self.liveness.sample(lines, self.now):
                self.found.append((self.now, each))
                self.subscribe(each.symbol)
        return self.found[before:]

    def subscribe(self, symbol: str, rows: int | None = None) -> None:
        self.liveness.forget(self.requests[symbol])
        self.requests[symbol] = max(self.requests.values()) + 1
        image = 0 if symbol in self.dead else IMAGE
        self.rows[symbol] = image if rows is None else rows


def poisson(rate: Callable[[int], float], seed: object) -> Flow:
    """Rows at random, at rate(second) a second."""
    chance, second = random.Random(str(seed)), 0
    while True:
        mean = rate(second)
        yield round(max(0.0, chance.gauss(mean, math.sqrt(mean)))) if mean > 30 else _poisson(chance, mean)
        second += 1


def _poisson(chance: random.Random, mean: float) -> int:
    count, product, limit = 0, chance.random(), math.exp(-mean)
    while product > limit:
        count += 1
        product *= chance.random()
    return count


def hawkes(rate: float, branching: float, decay_secs: float, seed: object) -> Flow:
    """Rows that call for more rows: bursts. rate: of the rows that come by themselves."""
    chance, excited = random.Random(str(seed)), 0.0
    while True:
        rows = _poisson(chance, min(300.0, rate + excited))
        excited = excited * math.exp(-1 / decay_secs) + rows * branching / decay_secs
        yield rows


def steady(rows: int) -> Flow:
    while True:
        yield rows


def course_of_a_day(second: int) -> float:
    """Busy at the open and the close, a fifth of that at noon, a tenth for an hour at lunch."""
    if 9_000 <= second % DAY_SECS < 12_600:
        return 0.1
    noon = abs(second % DAY_SECS - DAY_SECS / 2) / (DAY_SECS / 2)
    return 0.2 + 0.8 * noon**2


# ---- single cases


def test_line_that_dies_while_others_tick_is_found_and_its_neighbours_are_not() -> None:
    market = Market({symbol: poisson(lambda _: 20.0, symbol) for symbol in ("SPY", "QQQ", "IWM")})
    market.run(60)
    market.dead.add("SPY")
    (at, found), *_ = market.run(40)
    assert (found.symbol, found.proven) == ("SPY", True)
    assert at <= 60 + 2 * FLOOR
    assert {each.symbol for _, each in market.found} == {"SPY"}
    assert set(market.liveness.silent) == {"SPY"}


def test_line_that_dies_after_a_second_of_rows_is_found_within_two_floors() -> None:
    market = Market({"SPY": steady(50), "QQQ": steady(50)})
    market.run(2)
    market.dead.add("SPY")
    assert {each.symbol for _, each in market.run(2 * FLOOR + 4)} == {"SPY"}


def test_dead_line_is_asked_for_ever_more_rarely_and_rows_end_its_silence() -> None:
    market = Market({"SPY": steady(5), "QQQ": steady(5), "IWM": steady(5)})
    market.run(60)
    market.dead.add("SPY")
    times = [at for at, _ in market.run(1000)]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert 4 <= len(times) <= 8
    assert all(later > 1.5 * earlier for earlier, later in pairwise(pauses))
    market.dead.clear()
    market.subscribe("SPY")
    market.run(5)
    assert market.liveness.silent == {}


def test_line_that_never_answers_is_asked_for_again_while_others_tick() -> None:
    market = Market({"SPY": steady(5), "QQQ": steady(5)})
    market.dead.add("SPY")
    market.subscribe("SPY")
    market.run(60)
    assert [each.symbol for _, each in market.found] == ["SPY", "SPY"]
    assert all(each.proven for _, each in market.found)


def test_market_that_is_quiet_as_a_whole_is_no_fault() -> None:
    market = Market({symbol: poisson(lambda _: 20.0, symbol) for symbol in ("SPY", "QQQ", "IWM", "DIA")})
    market.run(300)
    market.dead.update(market.flows)
    assert market.run(20_000) == []
    market.dead.clear()
    assert market.run(300) == []


def test_line_that_is_always_quiet_is_no_fault() -> None:
    flows = {"SPY": steady(20), "QQQ": steady(20), "QUIET": poisson(lambda _: 1 / 60, "quiet")}
    market = Market(flows)
    assert [each for _, each in market.run(DAY_SECS) if each.proven] == []


def test_line_without_rows_from_its_opening_image_on_is_asked_for_again_but_not_called_silent() -> None:
    market = Market({"SPY": steady(20), "QQQ": steady(20), "STILL": steady(0)})
    found = [each for _, each in market.run(3600)]
    assert 1 <= len(found) <= 6
    assert not any(each.proven for each in found)
    assert market.liveness.silent == {}


def test_lone_line_is_asked_for_again_but_rarely_and_not_called_silent() -> None:
    market = Market({"SPY": steady(20)})
    market.run(60)
    market.dead.add("SPY")
    found = market.run(3600)
    assert 1 <= len(found) <= 3
    assert not any(each.proven for _, each in found)


def test_usual_silence_survives_turns() -> None:
    flows = {"SPY": steady(20), "QQQ": steady(20), "SLOW": poisson(lambda _: 1 / 10, "slow")}
    market = Market(flows)
    for _ in range(100):
        market.run(15)
        market.subscribe("SLOW")
    assert market.found == []
    assert market.liveness.usual_silence("SLOW") > 5


def test_doubted_lines_are_not_judged_and_a_restart_begins_again() -> None:
    watched = liveness()
    for second in range(60):
        watched.sample([LineSample(1, "SPY", IMAGE + second), LineSample(2, "QQQ", IMAGE + second)], float(second))
    for second in range(60, 200):
        assert not watched.sample([LineSample(1, "SPY", 80, True), LineSample(2, "QQQ", 20 + second)], float(second))
    watched.restart()
    assert not watched.sample([LineSample(1, "SPY", 80), LineSample(2, "QQQ", 220)], 200.0)


def test_process_that_slept_holds_no_silence_against_anybody() -> None:
    market = Market({"SPY": steady(5), "QQQ": steady(5)})
    market.run(60)
    market.now += 3600
    assert market.run(10) == []


# ---- days of simulated flow


DAYS = [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in (1, 2))]


@pytest.mark.parametrize("seed", DAYS)
def test_day_of_rows_at_random_at_any_rate_is_without_a_false_alarm(seed: int) -> None:
    rates = (50.0, 20.0, 5.0, 2.0, 0.5, 0.2, 0.05, 0.02, 0.005)

    def line(rate: float) -> Flow:
        return poisson(lambda second: rate * course_of_a_day(second), (seed, rate))

    market = Market({f"R{rate}": line(rate) for rate in rates})
    proven = [(at, each.symbol) for at, each in market.run(DAY_SECS) if each.proven]
    assert proven == []


@pytest.mark.parametrize("seed", DAYS)
def test_day_of_bursts_is_without_a_false_alarm(seed: int) -> None:
    kinds = ((5.0, 0.6, 5.0), (1.0, 0.8, 10.0), (0.3, 0.9, 20.0), (0.05, 0.9, 5.0), (0.02, 0.95, 3.0), (0.01, 0.8, 2.0))
    flows = {f"B{number}": hawkes(*kind, (seed, number)) for number, kind in enumerate(kinds)}
    market = Market(flows)
    proven = [(at, each.symbol) for at, each in market.run(DAY_SECS) if each.proven]
    assert proven == []
