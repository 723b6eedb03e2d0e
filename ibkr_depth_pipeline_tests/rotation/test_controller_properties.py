"""The rotation against a model gateway: nobody is left out, and no slot is asked for in vain."""

from __future__ import annotations

from statistics import median

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.rotation.events import (
    Closed,
    Connected,
    Disconnected,
    FarmsReported,
    Focused,
    Halted,
    Opened,
    Rechecked,
    Removed,
    Resumed,
    RotationPlan,
    Suspended,
    Wanted,
)
from ibkr_depth_pipeline.rotation.retry_schedule import RETRY_BURST
from ibkr_depth_pipeline.rotation.slot_allocator import LONGEST_TRIAL_TURNS
from ibkr_depth_pipeline_tests.rotation.model_gateway import LATENCY, PLAN, ModelGateway, Run, symbols

TRIALS_IN_240_TURNS = 4


@settings(max_examples=20)
@given(count=st.integers(1, 25), batch=st.integers(1, 6), first_row=st.floats(0.01, 13.0), dwell=st.floats(1.0, 60.0))
def test_alone_on_the_account_there_is_no_309_and_every_symbol_gets_the_same_share(
    count: int, batch: int, first_row: float, dwell: float
) -> None:
    plan = RotationPlan(batch, dwell, 15.0, 8.0, 4, 3600.0)
    gateway = ModelGateway(limit=batch, first_row=first_row)
    run = Run(symbols(count), gateway, plan)
    turns = 40 * count
    run.until(turns * (dwell + first_row))
    assert gateway.refusals == 0
    assert run.most == min(batch, count)
    if count > batch:
        shares = run.coverage.values()
        assert max(shares) - min(shares) <= 2 * (dwell + first_row)


@settings(max_examples=15)
@given(delay=st.floats(0.01, 1.9), count=st.integers(2, 20), batch=st.integers(1, 3))
def test_gateway_that_frees_slots_late_costs_few_refusals_and_shrinks_nothing(
    delay: float, count: int, batch: int
) -> None:
    plan = RotationPlan(batch, 15.0, 15.0, 8.0, 4, 3600.0)
    gateway = ModelGateway(limit=batch, free_delay=delay)
    run = Run(symbols(count), gateway, plan)
    run.until(3600.0)
    assert run.controller.batch_size == batch
    refused_batches = 1 if delay < 0.5 - LATENCY else 2
    assert gateway.refusals <= refused_batches * batch + TRIALS_IN_240_TURNS


def test_gateway_that_frees_slots_300_ms_late_costs_one_refused_batch_and_single_refusals_ever_more_rarely() -> None:
    gateway = ModelGateway(limit=3, free_delay=0.3)
    run = Run(symbols(10), gateway)
    run.until(300.0)
    assert gateway.refusals <= 3
    run.until(4 * 3600.0)
    first_hours = gateway.refusals
    assert first_hours <= 3 + 5
    run.until(28 * 3600.0)
    assert gateway.refusals - first_hours <= 24 * 3600 / 15 / LONGEST_TRIAL_TURNS + 1
    assert run.controller.batch_size == 3
    assert 0.3 - LATENCY <= pause_after_cancels(run) <= 0.4, "the lag itself is learnt"


def test_gateway_that_was_late_once_costs_a_pause_for_a_while_only() -> None:
    gateway = ModelGateway(limit=3, free_delay=1.9)
    run = Run(symbols(10), gateway)
    run.until(60.0)
    assert gateway.refusals > 0
    assert pause_after_cancels(run) > 1.9
    gateway.free_delay = 0.0
    refused = gateway.refusals
    run.until(60.0 + 80 * 17.5)
    assert pause_after_cancels(run) == 0.0
    assert gateway.refusals == refused


@settings(max_examples=3)
@given(st.lists(st.floats(0.0, 2.5), min_size=1, max_size=60))
def test_lag_that_varies_costs_ever_fewer_refusals(lags: list[float]) -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(10), gateway)
    refusals = []
    for hour in range(1, 13):
        before = gateway.refusals
        while run.now < hour * 3600.0:
            gateway.free_delay = min(1.9, lags[int(run.now // 20) % len(lags)])
            run.until(run.now + 20.0)
        refusals.append(gateway.refusals - before)
    assert run.controller.batch_size == 3
    assert sum(refusals[-6:]) <= 24


def pause_after_cancels(run: Run) -> float:
    """What the controller leaves between the cancels of a turn's end and the next request: the usual one of eight."""
    pauses = []
    for _ in range(8):
        cancelled_at = None
        asked = len(run.subscribed)
        while cancelled_at is None or len(run.subscribed) == asked:
            deadline = run.controller.next_deadline()
            assert deadline is not None
            on, asked = set(run.controller.subscribed), len(run.subscribed)
            run.until(deadline)
            if not on <= set(run.controller.subscribed):
                cancelled_at = deadline
        pauses.append(run.now - cancelled_at)
    return median(pauses)


@settings(max_examples=15)
@given(limit=st.integers(1, 2), count=st.integers(3, 20))
def test_every_symbol_keeps_its_turn_under_a_lower_limit_and_attempts_to_grow_become_rarer(
    limit: int, count: int
) -> None:
    gateway = ModelGateway(limit=limit)
    run = Run(symbols(count), gateway)
    run.until(3600.0)
    first_hour = gateway.refusals
    run.until(5 * 3600.0)
    assert min(run.coverage.values()) > 0
    assert run.controller.batch_size in (limit, limit + 1)
    # 4, 8, 16, 32 and then every 64 turns of 15.3 s; a limit of 1 starts with two refusals.
    assert gateway.refusals - first_hour <= 4 * 3600 / 15.3 / 64 + 1
    shares = run.coverage.values()
    assert min(shares) >= 0.7 * max(shares)


@settings(max_examples=15)
@given(limits=st.lists(st.tuples(st.integers(0, 3), st.floats(1, 300)), max_size=8), count=st.integers(3, 12))
def test_batch_recovers_once_slots_taken_by_another_client_are_given_back(
    limits: list[tuple[int, float]], count: int
) -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(count), gateway)
    for limit, secs in limits:
        gateway.limit = limit
        run.until(run.now + secs)
    gateway.limit = 3
    run.until(run.now + 3600.0)
    before = dict(run.coverage)
    refused = gateway.refusals
    run.until(run.now + 3600.0)
    assert run.controller.batch_size == 3
    assert gateway.refusals == refused
    assert all(run.coverage[symbol] > before[symbol] for symbol in run.coverage) or count == 3


@settings(max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])
@given(silent=st.sets(st.integers(0, 9), max_size=10), ignores=st.booleans())
def test_silent_symbols_cost_their_cap_and_never_a_slot_for_good(silent: set[int], ignores: bool) -> None:
    quiet = frozenset(f"S{number}" for number in silent)
    gateway = ModelGateway(limit=3, silent=quiet, ignores_early_cancels=False)
    run = Run(symbols(10), gateway)
    run.until(3600.0)
    assert gateway.refusals == 0
    assert all(run.coverage[symbol] > 0 for symbol in run.coverage if symbol not in quiet)


def test_late_first_row_after_an_ignored_cancel_frees_the_slot_again() -> None:
    gateway = ModelGateway(limit=3, first_row=20.0, ignores_early_cancels=True)
    run = Run(symbols(10), gateway)
    run.until(3600.0)
    gateway.first_row = 0.3
    run.until(7200.0)
    refused = gateway.refusals
    run.until(2 * 7200.0)
    assert run.controller.batch_size == 3
    assert gateway.refusals == refused
    assert gateway.live == set(run.controller.subscribed)


def test_refused_symbol_leaves_no_slot_empty_and_is_retried_ever_more_rarely_up_to_each_hour() -> None:
    gateway = ModelGateway(limit=3, unsupported=frozenset({"S1"}))
    run = Run(symbols(5), gateway)
    run.until(1.0)
    assert sorted(run.controller.subscribed.values()) == ["S0", "S2", "S3"]
    run.until(3 * 3600.0)
    assert run.coverage["S1"] == 0
    assert 4 < len(run.subscribed_to("S1")) < 14
    gateway.unsupported = frozenset()
    run.until(4 * 3600.0 + 2 * PLAN.dwell)
    assert run.coverage["S1"] > 0


def test_symbol_that_is_refused_at_first_is_recorded_seconds_after_it_is_granted() -> None:
    gateway = ModelGateway(limit=3, unsupported=frozenset(symbols(3)))
    run = Run(symbols(3), gateway)
    run.until(20.0)
    gateway.unsupported = frozenset()
    run.until(60.0)
    assert all(run.coverage[symbol] > 10.0 for symbol in run.coverage)


def test_three_hundred_refused_symbols_are_retried_in_bursts_and_recalled_by_a_farm_that_is_well() -> None:
    gateway = ModelGateway(limit=3, unsupported=frozenset(symbols(300)))
    run = Run(symbols(300), gateway)
    run.until(300.0)
    before = len(run.subscribed)
    for _ in range(10):
        run.tell(FarmsReported(True, False))
        run.until(run.now + 1.0)
    assert len(run.subscribed) - before <= 10 * RETRY_BURST + RETRY_BURST, "each second so many at most"
    assert 300 < before < 300 * RETRY_BURST + 300
    gateway.unsupported = frozenset()
    run.tell(FarmsReported(True, False))
    run.until(run.now + 10.0)
    assert len(run.controller.subscribed) == 3


FAULTS = st.sampled_from(["lost", "back", "1100", "1101", "1102", "316", "wait"])


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(FAULTS, st.floats(0.0, 40.0)), max_size=25), count=st.integers(1, 8))
def test_rotation_goes_on_after_any_faults_and_no_slot_is_leaked(steps: list[tuple[str, float]], count: int) -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(count), gateway)
    for fault, secs in steps:
        if fault == "lost":
            gateway.live.clear()
            for request in list(run.controller.subscribed):
                run._end(request)
            run.tell(Disconnected())
        elif fault == "back":
            gateway.live.clear()
            run.tell(Disconnected())
            run.tell(Connected())
        elif fault == "1100":
            run.tell(Suspended())
        elif fault in ("1101", "1102"):
            run.tell(Resumed(data_lost=fault == "1101"))
        elif fault == "316" and run.controller.subscribed:
            run.tell(Halted(next(iter(run.controller.subscribed))))
        run.until(run.now + secs)
    gateway.live.clear()
    run.tell(Disconnected())
    run.tell(Connected())
    before = dict(run.coverage)
    run.until(run.now + 1800.0)
    assert gateway.live == set(run.controller.subscribed)
    assert run.controller.batch_size == 3
    if count > 3:
        assert all(run.coverage[symbol] > before[symbol] for symbol in before)


# ---- weights, pins, and symbols that come and go


def wants(run: Run, wishes: dict[str, tuple[int, bool]]) -> None:
    for symbol, (weight, pinned) in wishes.items():
        run.tell(Wanted(symbol, weight, pinned))


def test_pinned_symbol_keeps_its_subscription_and_the_rest_take_turns() -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(8), gateway)
    wants(run, {"S7": (1, True), "S6": (1, True)})
    run.until(40.0)
    (of_s7,) = run.subscribed_to("S7")
    run.until(3600.0)
    assert run.subscribed_to("S7") == [of_s7], "it is never asked for anew"
    assert run.coverage["S7"] > 3500
    rest = [run.coverage[f"S{number}"] for number in range(6)]
    assert max(rest) - min(rest) <= 2 * 16
    assert gateway.refusals == 0


def test_pins_give_way_if_the_account_has_fewer_slots_than_it_should() -> None:
    gateway = ModelGateway(limit=1)
    run = Run(symbols(5), gateway)
    wants(run, {"S0": (1, True), "S1": (1, True)})
    run.until(7200.0)
    assert min(run.coverage.values()) > 0


@settings(max_examples=25)
@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=10), batch=st.integers(1, 3), pin=st.booleans())
def test_coverage_follows_the_weights_and_no_gap_is_longer_than_its_window(
    weights: list[int], batch: int, pin: bool
) -> None:
    gateway = ModelGateway(limit=batch)
    run = Run(symbols(len(weights)), gateway, RotationPlan(batch, 15.0, 15.0, 8.0, 4, 3600.0))
    wants(run, {f"S{number}": (weight, pin and number == 0) for number, weight in enumerate(weights)})
    run.until(60.0)
    run.worst_gap = dict.fromkeys(run.worst_gap, 0.0)
    run.until(60.0 + 16 * 4 * sum(weights))
    windows = run.controller.windows_secs()
    for symbol, gap in run.worst_gap.items():
        assert gap <= windows[symbol] + 2.0
    outlook = run.controller.outlook()
    assert abs(sum(each.share for each in outlook.values()) - min(batch, len(weights))) < 1e-6


def test_closed_symbol_frees_its_slot_at_once_takes_no_turn_and_comes_back_at_its_open() -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(6), gateway)
    run.until(5.0)
    run.tell(Closed("S1"))
    run.until(6.0)
    assert sorted(run.controller.subscribed.values()) == ["S0", "S2", "S3"]
    run.until(600.0)
    assert len(run.subscribed_to("S1")) == 1
    run.tell(Opened("S1"))
    run.until(640.0)
    assert len(run.subscribed_to("S1")) >= 2
    assert gateway.refusals == 0


def test_no_slot_is_asked_for_while_all_are_closed() -> None:
    gateway = ModelGateway(limit=3, unsupported=frozenset({"S0"}))
    run = Run(symbols(4), gateway)
    run.until(5.0)
    for symbol in symbols(4):
        run.tell(Closed(symbol))
    run.until(6.0)
    asked = len(run.subscribed)
    run.until(86400.0)
    assert len(run.subscribed) == asked
    assert gateway.live == set()
    gateway.unsupported = frozenset()
    for symbol in symbols(4):
        run.tell(Opened(symbol))
    run.until(86400.0 + 120.0)
    assert all(len(run.subscribed_to(symbol)) >= 2 for symbol in symbols(4))


def test_removed_symbol_leaves_after_its_turn_and_can_be_wanted_again() -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(6), gateway)
    run.until(5.0)
    run.tell(Removed("S1"))
    assert "S1" in run.controller.subscribed.values()
    run.until(20.0)
    assert "S1" not in run.controller.subscribed.values()
    run.until(300.0)
    assert len(run.subscribed_to("S1")) == 1
    run.tell(Rechecked("S1", True))
    assert "S1" not in run.controller.windows_secs(), "an answer that comes late changes nothing"
    run.tell(Wanted("S1"))
    run.tell(Rechecked("S1", True))
    run.until(400.0)
    assert len(run.subscribed_to("S1")) >= 2


def test_new_symbol_joins_without_a_break_of_the_others() -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(3), gateway)
    run.until(100.0)
    before = set(run.controller.subscribed)
    run.coverage["NEW"] = run.last_on["NEW"] = run.worst_gap["NEW"] = 0.0
    run.tell(Wanted("NEW"))
    run.tell(Rechecked("NEW", True))
    assert set(run.controller.subscribed) == before, "nothing is cancelled before its turn is over"
    run.until(200.0)
    assert run.coverage["NEW"] > 0


def test_symbol_in_focus_keeps_a_slot_for_as_long_as_it_is_in_focus() -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(9), gateway)
    run.until(20.0)
    run.tell(Focused(("S8",)))
    run.until(40.0)
    (request,) = (each for each, symbol in run.controller.subscribed.items() if symbol == "S8")
    run.until(400.0)
    assert request in run.controller.subscribed
    run.tell(Focused(()))
    run.until(440.0)
    assert request not in run.controller.subscribed


STEPS = st.sampled_from(["close", "open", "remove", "want", "focus", "lost", "1101", "316", "wait"])


@settings(max_examples=20)
@given(
    steps=st.lists(st.tuples(STEPS, st.integers(0, 6), st.floats(0.0, 40.0)), max_size=30),
    wishes=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=7, max_size=7),
)
def test_no_slot_is_leaked_and_all_open_symbols_have_turns_while_symbols_come_go_close_and_open(
    steps: list[tuple[str, int, float]], wishes: list[tuple[int, bool]]
) -> None:
    gateway = ModelGateway(limit=3)
    run = Run(symbols(7), gateway)
    wants(run, {f"S{number}": wish for number, wish in enumerate(wishes)})
    closed: set[str] = set()
    removed: set[str] = set()
    for step, number, secs in steps:
        symbol = f"S{number}"
        if step == "close" and symbol not in removed:
            closed.add(symbol)
            run.tell(Closed(symbol))
        elif step == "open" and symbol in closed:
            closed.discard(symbol)
            run.tell(Opened(symbol))
        elif step == "remove":
            removed.add(symbol)
            closed.discard(symbol)
            run.tell(Removed(symbol))
        elif step == "want" and symbol in removed:
            removed.discard(symbol)
            run.tell(Wanted(symbol, *wishes[number]))
            run.tell(Rechecked(symbol, True))
        elif step == "focus":
            run.tell(Focused((symbol,)))
        elif step == "lost":
            for request in list(run.controller.subscribed):
                run._end(request)
            gateway.live.clear()
            run.tell(Disconnected())
            run.tell(Connected())
        elif step == "1101":
            run.tell(Resumed(data_lost=True))
        elif step == "316" and run.controller.subscribed:
            run.tell(Halted(next(iter(run.controller.subscribed))))
        run.until(run.now + secs)
    run.tell(Focused(()))
    before = dict(run.coverage)
    run.until(run.now + 1800.0)
    assert gateway.live == set(run.controller.subscribed)
    there = set(run.coverage) - closed - removed
    assert set(run.controller.subscribed.values()) <= there
    assert all(run.coverage[symbol] > before[symbol] for symbol in there)
    assert all(run.coverage[symbol] == before[symbol] for symbol in closed) or len(there) < 7
