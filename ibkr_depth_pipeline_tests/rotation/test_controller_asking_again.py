"""What the rotation asks for anew, after an outage or a rejected id: when, and how long it may take to answer."""

from __future__ import annotations

import itertools

from ibkr_depth_pipeline.rotation.controller import RESUBSCRIBE_SPACING_SECS, RESUME_SECS, RotationController
from ibkr_depth_pipeline.rotation.events import (
    Answered,
    Cancel,
    Connected,
    Deadline,
    Doubted,
    RequestIdRejected,
    Resumed,
    RotationCommand,
    Subscribe,
    Suspended,
)
from ibkr_depth_pipeline_tests.rotation.model_gateway import PLAN, ModelGateway, Run, symbols


def on(count: int) -> RotationController:
    """A rotation over so many symbols whose first batch answers at 0.1 s."""
    controller = RotationController(symbols(count), PLAN, itertools.count(1))
    controller.handle(Connected(), 0.0)
    for request in controller.subscribed:
        controller.handle(Answered(request), 0.1)
    return controller


def cancels(commands: list[RotationCommand]) -> list[int]:
    return [command.request for command in commands if isinstance(command, Cancel)]


def asked(commands: list[RotationCommand]) -> list[str]:
    return [command.symbol for command in commands if isinstance(command, Subscribe)]


def test_lines_asked_for_again_after_an_outage_longer_than_a_turn_have_their_time_to_answer() -> None:
    controller = on(6)
    controller.handle(Suspended(), 5.0)
    back = 40.0
    commands = controller.handle(Resumed(data_lost=True), back)
    assert cancels(commands) == [1, 2, 3]
    assert asked(commands) == ["S0", "S1", "S2"]
    assert controller.next_deadline() == back + PLAN.first_row_cap
    for request in controller.subscribed:
        controller.handle(Answered(request), back + 10.0)
    assert controller.next_deadline() == back + 10.0 + PLAN.dwell, "and their dwell after it"
    commands = controller.handle(Deadline(), back + 10.0 + PLAN.dwell)
    assert asked(commands) == ["S3", "S4", "S5"]


def test_lines_asked_for_again_near_the_end_of_a_turn_have_their_time_to_answer() -> None:
    controller = on(6)
    controller.handle(Suspended(), 5.0)
    back = PLAN.first_row_cap + PLAN.dwell - 1.0
    controller.handle(Resumed(data_lost=True), back)
    assert controller.next_deadline() == back + PLAN.first_row_cap


def test_gateway_that_ignores_early_cancels_leaks_nothing_after_a_long_outage() -> None:
    gateway = ModelGateway(limit=3, first_row=6.0, ignores_early_cancels=True)
    run = Run(symbols(6), gateway)
    run.until(10.0)
    run.tell(Suspended())
    run.until(60.0)
    gateway.live.clear()
    run.tell(Resumed(data_lost=True))
    run.until(180.0)
    assert gateway.refusals == 0
    assert gateway.live == set(run.controller.subscribed)


def test_doubt_from_before_an_outage_does_not_shorten_the_time_after_it() -> None:
    controller = on(3)
    controller.handle(Doubted(30.0), 1.0)
    controller.handle(Suspended(), 2.0)
    assert cancels(controller.handle(Resumed(data_lost=False), 60.0)) == []
    assert controller.next_deadline() == 60.0 + RESUME_SECS


def test_servers_that_are_said_to_be_back_again_and_again_do_not_draw_a_doubt_out() -> None:
    controller = on(3)
    for now in (2.0, 5.0):
        controller.handle(Resumed(data_lost=False), now)
    assert controller.next_deadline() == 2.0 + RESUME_SECS


def test_symbol_whose_ids_are_rejected_again_and_again_is_asked_for_once_a_second() -> None:
    controller = on(2)
    secs, commands = 10, list[RotationCommand]()
    for step in range(1, secs * 10):
        for request, symbol in controller.subscribed.items():
            if symbol == "S0":
                commands += controller.handle(RequestIdRejected(request), step / 10)
        commands += controller.handle(Deadline(), step / 10)
    assert 1 < len(asked(commands)) <= secs / RESUBSCRIBE_SPACING_SECS
    assert list(controller.subscribed.values()).count("S1") == 1
