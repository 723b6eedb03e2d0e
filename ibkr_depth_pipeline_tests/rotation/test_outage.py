"""An outage that is said and never taken back: asked again after a while, then connected anew, ever more rarely."""

from __future__ import annotations

import itertools

from ibkr_depth_pipeline.rotation.controller import RotationController
from ibkr_depth_pipeline.rotation.events import (
    Answered,
    Cancel,
    Connected,
    Deadline,
    Disconnected,
    OutageEndAssumed,
    Resumed,
    RotationCommand,
    Subscribe,
    Suspended,
)
from ibkr_depth_pipeline.rotation.retry_schedule import LONGEST_OUTAGE_SECS, Outage, OutageAction
from ibkr_depth_pipeline.rotation.slots import Reconnect
from ibkr_depth_pipeline_tests.rotation.model_gateway import PLAN, symbols


class Course:
    """Three live lines, and the time at which something happened by itself."""

    def __init__(self) -> None:
        self.controller = RotationController(symbols(3), PLAN, itertools.count(1))
        self.now = 0.0
        self.controller.handle(Connected(), self.now)
        self.answer()

    def answer(self) -> None:
        for request in self.controller.subscribed:
            self.controller.handle(Answered(request), self.now)

    def until(self, kind: type[RotationCommand], latest: float) -> list[RotationCommand]:
        """Run to the deadline that brings such a command; its commands."""
        while (deadline := self.controller.next_deadline()) is not None and deadline <= latest:
            self.now = deadline
            commands = self.controller.handle(Deadline(), deadline)
            if any(isinstance(command, kind) for command in commands):
                return commands
        return []


def kinds(commands: list[RotationCommand]) -> list[type]:
    return [type(command) for command in commands]


def test_lines_are_asked_for_again_after_an_outage_whose_end_nobody_says() -> None:
    course = Course()
    course.controller.handle(Suspended(), 10.0)
    commands = course.until(OutageEndAssumed, 1000.0)
    assert course.now == 10.0 + PLAN.outage
    assert kinds(commands)[:1] == [OutageEndAssumed]
    assert kinds(commands).count(Cancel) == kinds(commands).count(Subscribe) == 3


def test_connection_is_made_again_if_no_row_follows_the_assumed_end_of_an_outage() -> None:
    course = Course()
    course.controller.handle(Suspended(), 10.0)
    course.until(OutageEndAssumed, 1000.0)
    assert Reconnect in kinds(course.until(Reconnect, 1000.0))
    assert course.now == 10.0 + 2 * PLAN.outage
    assert course.until(Reconnect, 10_000.0) == [], "once for each outage"


def test_rows_that_come_of_it_end_the_outage() -> None:
    course = Course()
    course.controller.handle(Suspended(), 10.0)
    course.until(OutageEndAssumed, 1000.0)
    course.answer()
    assert course.until(Reconnect, 10_000.0) == []


def test_outage_whose_end_is_said_is_over() -> None:
    course = Course()
    course.controller.handle(Suspended(), 10.0)
    course.controller.handle(Resumed(data_lost=False), 20.0)
    course.answer()
    assert course.until(OutageEndAssumed, 10_000.0) == []


def test_guess_that_it_is_over_asks_again_at_once_and_connects_again_where_no_row_comes() -> None:
    course = Course()
    course.controller.handle(Suspended(), 10.0)
    assert kinds(course.controller.handle(Resumed(data_lost=True, reported=False), 12.0)).count(Subscribe) == 3
    course.until(Reconnect, 1000.0)
    assert course.now == 12.0 + PLAN.outage


def test_outage_that_goes_on_over_connections_is_tried_ever_more_rarely() -> None:
    outage, now, waits = Outage(120.0), 0.0, []
    for _ in range(6):
        outage.connected(suspended=True, now=now)
        begun = now
        steps = []
        while outage.due is not None:
            now = outage.due
            steps.append(outage.step(now))
        assert steps == [OutageAction.RESUBSCRIBE, OutageAction.RECONNECT]
        waits.append((now - begun) / 2)
    assert waits == [120.0, 240.0, 480.0, LONGEST_OUTAGE_SECS, LONGEST_OUTAGE_SECS, LONGEST_OUTAGE_SECS]
    outage.connected(suspended=False, now=now)
    outage.answered()
    outage.begins(now)
    assert outage.due == now + 120.0


def test_outage_that_is_said_again_and_again_is_not_drawn_out() -> None:
    outage = Outage(120.0)
    for now in range(0, 120, 10):
        outage.begins(float(now))
    assert outage.step(120.0) is OutageAction.RESUBSCRIBE


def test_lost_connection_takes_its_outage_along() -> None:
    course = Course()
    course.controller.handle(Suspended(), 10.0)
    course.controller.handle(Disconnected(), 11.0)
    assert course.controller.next_deadline() is None
    assert Subscribe in kinds(course.controller.handle(Connected(), 12.0))
