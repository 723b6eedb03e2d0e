"""Carries a scenario out on a running gateway: watches the journal, waits, calls."""

import asyncio
import inspect
import time
from collections.abc import Sequence

from ibkr_depth_pipeline.simulation.faults import Fault
from ibkr_depth_pipeline.simulation.journal import Entry, Journal
from ibkr_depth_pipeline.simulation.scenario import ScenarioClock, Step


class ScenarioRunner:
    """`run` until cancelled. Faults are called by name on `gateway`; each makes a journal entry of kind `fault`."""

    def __init__(self, steps: Sequence[Step], journal: Journal, gateway: object) -> None:
        self._clock = ScenarioClock(steps, time.monotonic())
        self._journal = journal
        self._gateway = gateway
        self._news = asyncio.Event()

    async def run(self) -> None:
        unlisten = self._journal.listen(self._observe)
        try:
            while True:
                for fault in self._clock.due(time.monotonic()):
                    await self._carry_out(fault)
                await self._sleep()
        finally:
            unlisten()

    async def _carry_out(self, fault: Fault) -> None:
        arguments = fault.arguments()
        self._journal.add(Entry(time.time(), 0, "fault", fault.name, arguments))
        outcome = getattr(self._gateway, fault.name)(**arguments)
        if inspect.isawaitable(outcome):
            await outcome

    async def _sleep(self) -> None:
        """Until the next deadline, or until the journal brought one nearer."""
        self._news.clear()
        deadline = self._clock.next_deadline()
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            await asyncio.wait_for(self._news.wait(), wait)
        except asyncio.TimeoutError:
            return

    def _observe(self, entry: Entry) -> None:
        amount = int(entry.detail["count"]) if entry.kind == "rows" else 1
        before = self._clock.next_deadline()
        self._clock.observe(entry.kind, entry.name, amount, time.monotonic())
        if self._clock.next_deadline() != before:
            self._news.set()
