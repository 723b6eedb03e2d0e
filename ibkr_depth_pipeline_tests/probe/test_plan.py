"""The probe's plan alone: times are arguments, the gateway's answers are events, commands come out."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from ibkr_depth_pipeline.gateway import events as gateway
from ibkr_depth_pipeline.ingest.effects import RequestDepth
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Instrument, Side
from ibkr_depth_pipeline.probe.plan import ORPHANED, Commands, DetectIngest, ProbePlan
from ibkr_depth_pipeline.probe.report import Outcome
from ibkr_depth_pipeline.probe.symbol_probe import MAX_RESTARTS, ProbeLimits
from ibkr_depth_pipeline.rotation.events import Cancel
from ibkr_depth_pipeline.rotation.slots import Reconnect

CAP, QUIET, PAUSE, PATIENCE = 15.0, 0.5, 8.0, 24.0
FULL = 2


class Case:
    """A plan that began at second 0 with these symbols, and a clock that the test sets."""

    def __init__(self, *symbols: str, slots: int = 3, venues: tuple[str, ...] = ("ARCA",)) -> None:
        limits = ProbeLimits(slots, FULL + 1, FULL, CAP, QUIET, PAUSE, PATIENCE)
        self.plan = ProbePlan(limits, itertools.count(1))
        self.now = 0.0
        best, *others = venues
        found = Instrument("", 1, "STK", "USD", best, "ARCA", alternatives=tuple(others))
        instruments = [dataclasses.replace(found, symbol=each) for each in symbols]
        self.first = self.plan.begin(instruments, self.now)

    def row(self, request: int, side: Side, position: int = 0, size: float = 100.0, venue: str = "") -> Commands:
        row = DepthRow(DepthOperation.INSERT, side, position, 10.0 + position, size, venue)
        return self.plan.row(request, row, self.now)

    def book(self, request: int) -> Commands:
        """A complete book on both sides."""
        answers = [self.row(request, side, at) for side in Side for at in range(FULL)]
        return list(itertools.chain(*answers))

    def handle(self, event: gateway.GatewayEvent) -> Commands:
        return self.plan.handle(event, self.now)

    def run_to_deadline(self) -> Commands:
        deadline = self.plan.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        return self.plan.deadline(self.now)

    def outcome(self, symbol: str) -> Outcome:
        report = self.plan.report(symbol)
        assert report is not None
        return report.outcome

    def reason(self, symbol: str) -> str:
        report = self.plan.report(symbol)
        assert report is not None
        return report.reason


def subscribed(commands: Commands) -> list[tuple[int, str]]:
    return [(each.request, each.instrument.symbol) for each in commands if isinstance(each, RequestDepth)]


def cancelled(commands: Commands) -> list[int]:
    return [each.request for each in commands if isinstance(each, Cancel)]


def test_symbols_are_subscribed_up_to_the_number_of_slots() -> None:
    case = Case("A", "B", "C", "D", slots=3)
    assert subscribed(case.first) == [(1, "A"), (2, "B"), (3, "C")]


def test_full_book_ends_its_subscription_before_the_next_symbol_gets_the_slot() -> None:
    case = Case("A", "B", slots=1)
    assert case.book(1) == [Cancel(1, "A"), RequestDepth(2, Instrument("B", 1, "STK", "USD", "ARCA", "ARCA"))]
    assert case.outcome("A") is Outcome.DEPTH


def test_thin_book_is_complete_once_it_has_not_grown_for_a_while_even_if_updates_continue() -> None:
    case = Case("A")
    case.row(1, Side.BID)
    case.row(1, Side.ASK)
    case.now = 0.4
    update = DepthRow(DepthOperation.UPDATE, Side.BID, 0, 10.0, 300.0, "")
    assert case.plan.row(1, update, case.now) == []
    assert case.plan.next_deadline() == QUIET
    assert cancelled(case.run_to_deadline()) == [1]
    assert case.outcome("A") is Outcome.DEPTH
    assert case.plan.is_over


def test_silent_symbol_is_cancelled_when_the_wait_is_over_and_not_before() -> None:
    case = Case("A")
    assert case.plan.next_deadline() == CAP
    assert cancelled(case.run_to_deadline()) == [1]
    assert case.outcome("A") is Outcome.SILENT


def test_reason_of_a_silent_symbol_names_the_trouble_that_the_gateway_reported() -> None:
    case = Case("A")
    case.handle(gateway.FarmStatus(False, 10197, "No market data during competing live session"))
    case.run_to_deadline()
    assert "10197: No market data during competing live session" in case.reason("A")


def test_reason_of_a_silent_symbol_names_no_trouble_that_is_over() -> None:
    case = Case("A")
    case.handle(gateway.ConnectivityLost("lost"))
    case.handle(gateway.ConnectivityRestored(False, "restored"))
    case.run_to_deadline()
    assert case.reason("A") == "no row in 15 s"


def test_rows_of_one_side_are_reported_as_one_sided() -> None:
    case = Case("A")
    case.row(1, Side.BID)
    case.run_to_deadline()
    assert case.outcome("A") is Outcome.ONE_SIDED


def test_refused_request_is_cancelled_and_its_place_goes_to_the_next_symbol() -> None:
    case = Case("A", "B", slots=1)
    case.handle(gateway.FarmStatus(True, 2104, "OK"))
    answer = case.handle(gateway.DepthRefused(1, 354, "not subscribed"))
    assert cancelled(answer) == [1]
    case.handle(gateway.CancelRejected(1))
    assert subscribed(answer) == [(2, "B")]
    report = case.plan.report("A")
    assert report is not None
    assert (report.outcome, report.codes, report.l2) == (Outcome.REFUSED, (354,), False)


@pytest.mark.parametrize("code", [200, 354, 420, 478, 10168, 99999])
def test_refusal_of_any_code_leads_to_the_next_venue_and_the_last_one_reports_every_reason(code: int) -> None:
    case = Case("A", venues=("ISLAND", "ARCA"))
    case.handle(gateway.FarmStatus(True, 2104, "OK"))
    (_, asked) = case.handle(gateway.DepthRefused(1, code, "one"))
    assert isinstance(asked, RequestDepth)
    assert asked.instrument.exchange == "ARCA"
    case.handle(gateway.DepthRefused(2, 10092, "two"))
    assert case.outcome("A") is Outcome.REFUSED
    assert f"ISLAND {code}: one; ARCA 10092: two" in case.reason("A")


def test_venue_with_depth_is_reported_with_those_that_refused() -> None:
    case = Case("A", venues=("ISLAND", "ARCA"))
    case.handle(gateway.FarmStatus(True, 2104, "OK"))
    case.handle(gateway.DepthRefused(1, 354, "not subscribed"))
    case.book(2)
    report = case.plan.report("A")
    assert report is not None
    assert (report.outcome, report.venue_requested) == (Outcome.DEPTH, "ARCA")
    assert "ISLAND 354: not subscribed" in report.reason


def test_symbol_refused_before_a_farm_is_connected_is_requested_again_and_at_once_when_one_is() -> None:
    case = Case("A")
    assert subscribed(case.handle(gateway.DepthRefused(1, 354, "not subscribed"))) == []
    assert case.outcome("A") is Outcome.PENDING
    assert subscribed(case.run_to_deadline()) == [(2, "A")]
    case.handle(gateway.DepthRefused(2, 354, "not subscribed"))
    assert subscribed(case.handle(gateway.FarmStatus(True, 2104, "OK"))) == [(3, "A")]
    case.book(3)
    assert case.outcome("A") is Outcome.DEPTH


def test_refusal_without_a_connected_farm_is_final_when_the_time_for_a_book_is_over() -> None:
    case = Case("A")
    asked = subscribed(case.first)
    while case.outcome("A") is Outcome.PENDING:
        for request, _ in asked:
            case.handle(gateway.DepthRefused(request, 354, "not subscribed"))
        asked = subscribed(case.run_to_deadline()) if case.plan.next_deadline() is not None else []
    assert case.outcome("A") is Outcome.REFUSED
    assert CAP <= case.now < 2 * CAP


def test_error_that_may_be_advice_ends_a_request_only_if_no_row_comes() -> None:
    case = Case("A", "B")
    for request in (1, 2):
        assert case.handle(gateway.DepthRefused(request, 10089, "part")) == []
    case.book(1)
    assert case.outcome("A") is Outcome.DEPTH
    case.handle(gateway.FarmStatus(True, 2104, "OK"))
    assert cancelled(case.run_to_deadline()) == [2]
    assert case.outcome("B") is Outcome.REFUSED
    assert case.now < CAP


def test_error_about_a_subscription_with_rows_changes_nothing() -> None:
    case = Case("A")
    case.row(1, Side.BID)
    for event in (
        gateway.DepthRefused(1, 354, "late"),
        gateway.SlotRefused(1, "late"),
        gateway.DepthRefused(1, 10168, "late"),
    ):
        assert case.handle(event) == []
    case.book(1)
    assert case.outcome("A") is Outcome.DEPTH


def test_request_refused_by_309_is_not_cancelled_and_waits_for_a_slot_of_our_own() -> None:
    case = Case("A", "B", slots=2)
    assert case.handle(gateway.SlotRefused(2, "Max number (1)")) == []
    assert subscribed(case.book(1)) == [(3, "B")]
    report = case.plan.report("B")
    assert report is not None
    assert report.codes == (309,)


def test_symbols_are_subscribed_after_a_309_up_to_the_number_that_was_granted() -> None:
    case = Case("A", "B", "C", "D", slots=3)
    case.handle(gateway.SlotRefused(2, ""))
    case.handle(gateway.SlotRefused(3, ""))
    assert len(subscribed(case.book(1))) == 1


def test_request_refused_by_309_right_after_our_own_cancel_is_repeated_soon() -> None:
    case = Case("A", "B", slots=1)
    case.book(1)
    assert case.handle(gateway.SlotRefused(2, "")) == []
    assert subscribed(case.run_to_deadline()) == [(3, "B")]


def test_309_without_slots_of_our_own_detects_an_ingest_before_the_next_request() -> None:
    case = Case("A", slots=1)
    assert case.handle(gateway.SlotRefused(1, "")) == [DetectIngest()]
    assert case.plan.next_deadline() is None
    assert case.plan.ingest_detected(False, case.now) == []
    assert case.plan.next_deadline() == PAUSE
    assert subscribed(case.run_to_deadline()) == [(2, "A")]


def test_detected_ingest_ends_all_subscriptions_of_the_plan() -> None:
    case = Case("A", "B", slots=1)
    case.handle(gateway.SlotRefused(1, ""))
    assert case.plan.ingest_detected(True, case.now) == []
    assert case.plan.is_over
    assert {case.outcome("A"), case.outcome("B")} == {Outcome.VENUE_ONLY}


def test_slots_of_an_unknown_holder_end_all_subscriptions_of_the_plan() -> None:
    case = Case("A", "B", slots=1)
    case.handle(gateway.SlotRefused(1, ""))
    assert case.plan.ingest_detected(None, case.now) == []
    assert {case.outcome("A"), case.outcome("B")} == {Outcome.NO_SLOT}


def test_wait_for_slots_of_other_clients_ends_for_all_symbols_together() -> None:
    case = Case("A", "B", "C", slots=1)
    commands = case.first
    while not case.plan.is_over:
        (request, _) = subscribed(commands)[0]
        if DetectIngest() in case.handle(gateway.SlotRefused(request, "")):
            case.plan.ingest_detected(False, case.now)
            commands = case.run_to_deadline()
    assert case.now == PATIENCE
    assert {case.outcome(each) for each in "ABC"} == {Outcome.NO_SLOT}


def test_granted_slot_restarts_the_wait_for_slots_of_other_clients() -> None:
    case = Case("A", "B", slots=1)
    case.handle(gateway.SlotRefused(1, ""))
    case.plan.ingest_detected(False, case.now)
    case.run_to_deadline()
    case.book(2)
    case.now += PATIENCE
    assert case.handle(gateway.SlotRefused(3, "")) == [DetectIngest()]


def test_early_cancel_that_the_gateway_ignored_is_repeated_at_the_first_row() -> None:
    case = Case("A", "B", slots=1)
    case.run_to_deadline()
    assert cancelled(case.row(1, Side.BID)) == [1]
    assert case.row(1, Side.BID) == []


def test_slots_of_orphaned_subscriptions_are_freed_by_a_new_connection() -> None:
    case = Case("A", "B", slots=1)
    case.run_to_deadline()
    case.now += 10
    assert case.handle(gateway.SlotRefused(2, "")) == [Reconnect(ORPHANED)]
    assert case.plan.next_deadline() is None
    assert subscribed(case.plan.reconnected(case.now)) == [(3, "B")]


def test_317_empties_the_book() -> None:
    case = Case("A")
    case.row(1, Side.BID)
    case.row(1, Side.ASK)
    case.handle(gateway.BookReset(1))
    assert case.plan.next_deadline() == CAP
    case.book(1)
    report = case.plan.report("A")
    assert report is not None
    assert (len(report.bids), len(report.asks), report.codes) == (FULL, FULL, (317,))


@pytest.mark.parametrize("event", [gateway.DepthHalted(1), gateway.RequestIdRejected(1)])
def test_subscription_that_ended_is_repeated_under_a_new_id(event: gateway.GatewayEvent) -> None:
    case = Case("A")
    assert case.handle(event) == [RequestDepth(2, Instrument("A", 1, "STK", "USD", "ARCA", "ARCA"))]


def test_subscription_that_ends_too_often_is_reported_as_halted() -> None:
    case = Case("A")
    for request in range(1, MAX_RESTARTS + 2):
        case.handle(gateway.DepthHalted(request))
    assert case.outcome("A") is Outcome.HALTED
    assert case.plan.is_over


def test_1101_repeats_every_subscription() -> None:
    case = Case("A", "B", slots=2)
    assert len(subscribed(case.handle(gateway.ConnectivityRestored(True, "data lost")))) == 2


def test_row_of_a_retired_request_changes_nothing() -> None:
    case = Case("A")
    case.book(1)
    before = case.plan.report("A")
    case.row(1, Side.BID, 0, 999.0)
    case.row(77, Side.BID)
    assert case.plan.report("A") == before


def test_lost_connection_ends_every_symbol_without_an_outcome() -> None:
    case = Case("A", "B", slots=1)
    assert case.handle(gateway.ConnectionLost("broke")) == []
    assert {case.outcome("A"), case.outcome("B")} == {Outcome.NO_ANSWER}


def test_connection_lost_before_the_first_subscription_ends_every_symbol() -> None:
    plan = ProbePlan(ProbeLimits(1, 3, 2, CAP, QUIET, PAUSE, PATIENCE), itertools.count(1))
    plan.handle(gateway.ConnectionLost("broke"), 0.0)
    assert plan.begin([Instrument("A", 1, "STK", "USD", "ARCA", "ARCA")], 0.0) == []
    assert plan.is_over


def test_stop_cancels_the_live_subscriptions_alone() -> None:
    case = Case("A", "B", "C", slots=2)
    case.book(1)
    case.row(2, Side.BID)
    assert cancelled(case.plan.stop(case.now)) == [2, 3]
    assert case.plan.stop(case.now) == []
    assert (case.outcome("A"), case.outcome("B")) == (Outcome.DEPTH, Outcome.INTERRUPTED)


def test_text_of_the_gateway_is_one_line_without_control_characters_in_the_reason() -> None:
    case = Case("A")
    case.handle(gateway.FarmStatus(True, 2104, "OK"))
    case.handle(gateway.DepthRefused(1, 354, "not\nsubscribed\x1b[31m\ttoday"))
    assert case.reason("A") == "the gateway refuses depth (354): not subscribed [31m today"


def test_message_that_concerns_no_symbol_is_one_notice_and_a_connected_farm_is_none() -> None:
    case = Case("A")
    for _ in range(2):
        case.handle(gateway.Notice(None, 2152, "Exchanges - Depth: IEX"))
    case.handle(gateway.FarmStatus(True, 2104, "OK"))
    assert [notice.code for notice in case.plan.notices] == [2152]


@pytest.mark.parametrize(
    ("sizes", "text"),
    [((100.0, 200.0), "all x100"), ((100.0, 250.0), "whole"), ((1.5, 100.0), "fractional")],
)
def test_sizes_of_a_report_hint_at_their_unit(sizes: tuple[float, float], text: str) -> None:
    case = Case("A")
    case.row(1, Side.BID, 0, sizes[0])
    case.row(1, Side.ASK, 0, sizes[1])
    report = case.plan.report("A")
    assert report is not None
    assert report.sizes is not None
    assert report.sizes.text == text


def test_venue_granted_is_that_of_the_rows_or_the_one_requested() -> None:
    case = Case("A", "B")
    case.row(1, Side.BID, 0, venue="NSDQ")
    case.row(1, Side.ASK, 0, venue="GSCO")
    case.row(1, Side.ASK, 1, venue="GSCO")
    case.row(2, Side.BID)
    granted = [report.venues_granted for each in "AB" if (report := case.plan.report(each))]
    assert granted == [("GSCO", "NSDQ"), ("ARCA",)]


def _answers(request: int) -> list[gateway.GatewayEvent]:
    return [
        gateway.SlotRefused(request, "309"),
        gateway.DepthRefused(request, 354, "not subscribed"),
        gateway.DepthHalted(request),
        gateway.BookReset(request),
        gateway.RequestIdRejected(request),
        gateway.CancelRejected(request),
        gateway.ConnectivityLost("1100"),
        gateway.ConnectivityRestored(True, "1101"),
        gateway.ConnectivityRestored(False, "1102"),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_plan_ends_with_growing_deadlines_and_few_requests_for_any_answers_of_the_gateway(seed: int) -> None:
    chance = random.Random(seed)
    case = Case(*(f"S{number}" for number in range(chance.randint(1, 12))), slots=chance.randint(1, 5))
    asked, waiting = 0, list(case.first)
    while case.plan.next_deadline() is not None or waiting:
        for command in waiting:
            if isinstance(command, RequestDepth):
                asked += 1
        shell = [command for command in waiting if isinstance(command, DetectIngest | Reconnect)]
        waiting = []
        for command in shell:
            looked = isinstance(command, DetectIngest)
            waiting += case.plan.ingest_detected(False, case.now) if looked else case.plan.reconnected(case.now)
        kind = chance.choice(["answer", "row", "deadline", "wait"])
        request = chance.randint(max(1, asked - 5), asked + 1)
        if kind == "answer":
            waiting += case.handle(chance.choice(_answers(request)))
        elif kind == "row":
            waiting += case.row(request, chance.choice(list(Side)))
        elif kind == "deadline" and case.plan.next_deadline() is not None:
            waiting += case.run_to_deadline()
            after = case.plan.next_deadline()
            assert after is None or after > case.now
        case.now += chance.choice([0.0, 0.01, 0.5, 3.0])
        assert asked <= 500
    assert case.plan.is_over
