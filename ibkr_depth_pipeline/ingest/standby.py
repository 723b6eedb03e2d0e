"""A hot standby: connected, its contracts resolved, following the universe; it holds no slot and no claim, and waits.

It writes nothing but its own status. Once the lease is free it takes it, and what is prepared is recorded at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.ingest.composition import RunStore
from ibkr_depth_pipeline.ingest.connection import GatewayConnection
from ibkr_depth_pipeline.ingest.figures import RunFigures
from ibkr_depth_pipeline.ingest.membership import Membership
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.schema.status import RunIdentity, StandbyFigures
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.lease import describe
from ibkr_depth_pipeline.sink.status import REPORT_SECS
from ibkr_depth_pipeline.tasks import end
from ibkr_depth_pipeline.universe.changes import UniverseFollower

SETTLE_SECS, SETTLED_SECS = 0.1, 0.5
"""How often it is checked whether all is prepared, until it is, and then."""

ENDS_EARLY_SECS = 2.0
"""So long before the end of its time, such as the session's close, one that waits ends: it must not take over then."""

HAND_OVER_CYCLE_SECS = 1.0
HAND_BACK_SECS = 10.0
"""How long another must have stood by, ready, before a reserve gives the recording back."""


async def hand_over_when_due(store: RunStore, stop: Callable[[], None]) -> None:
    """Call stop() once somebody asks for it (`ibkr_ingest_run handover`), and of a reserve once another one stands by.

    That one must have stood by, ready and no reserve itself, for HAND_BACK_SECS. Without a standby nothing is done.
    """
    waited = 0.0
    while store.has_standby:
        await asyncio.sleep(HAND_OVER_CYCLE_SECS)
        if by := await store.standby_status.asked_to_hand_over():
            return _hand_over(stop, by)
        if store.is_reserve:
            waited = waited + HAND_OVER_CYCLE_SECS if await store.standby_status.count(successors=True) else 0.0
            if waited >= HAND_BACK_SECS:
                return _hand_over(stop, "a reserve gives back what it took over")


def _hand_over(stop: Callable[[], None], why: str) -> None:
    get_log().warning("handing_over", why=why)
    stop()


class Standby:
    """`take_lease` before anything is written. take_into_use is called with each new connection."""

    def __init__(
        self,
        settings: Settings,
        run: RunIdentity,
        store: RunStore,
        connection: GatewayConnection,
        members: Membership,
        figures: RunFigures,
        metrics: MetricsEndpoint,
        *,
        take_into_use: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._run = run
        self._lease = store.lease
        self._status = store.standby_status
        self._connection = connection
        self._members = members
        self._figures = figures
        self._metrics = metrics
        self._take_into_use = take_into_use
        self._since_ts = 0
        self._was_ready = self._is_over = False
        self._log = get_log()

    async def take_lease(
        self,
        search: Callable[[], None],
        follower: UniverseFollower | None,
        duration: float | None,
        stop: Callable[[], None],
    ) -> None:
        """Return once the lease is ours; while another holds it, connect, resolve, and wait, without a limit.

        search() begins to resolve the universe, which `follower` follows; stop() ends the run, whose time is over in
        `duration` seconds. Raises SinkUnavailable if Redis can't be reached at first.
        """
        holder = await self._lease.take_if_free()
        if holder is None:
            return
        if duration is not None:
            asyncio.get_running_loop().call_later(duration - ENDS_EARLY_SECS, self._end, stop)
        self._connection.first_id = self._settings.ibkr_standby_client_id
        search()
        await self._wait(holder, *(() if follower is None else (follower.run(),)))
        self._is_over = True
        self._figures.begin()
        await self._status.withdraw()

    def _end(self, stop: Callable[[], None]) -> None:
        if not self._is_over:
            stop()

    async def _wait(self, holder: bytes, *beside: Coroutine[Any, Any, None]) -> None:
        """Stand by, and do what is beside it. Whatever fails is raised."""
        began, self._since_ts = loop_time(), unix_ms()
        self._log.info("standing_by", holder=describe(holder))
        winning = asyncio.ensure_future(self._lease.stand_by(holder, math.inf))
        work = (self._keep_connected(), self._report(), *beside)
        tasks = [winning, *map(asyncio.ensure_future, work)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(tasks)
        waited = round(loop_time() - began, 3)
        self._log.warning("standby_takes_over", waited_secs=waited, **self._state())

    async def _keep_connected(self) -> None:
        while True:
            await self._connection.reconnect()
            self._take_into_use()
            await self._connection.lost.wait()

    async def _report(self) -> None:
        """Publish the state without end, and log it as it becomes ready or is so no more."""
        due = 0.0
        while True:
            figures = self._current()
            changed = figures.is_ready is not self._was_ready
            if changed:
                self._was_ready = figures.is_ready
                self._log.info("standby_ready" if figures.is_ready else "standby_not_ready", **self._state())
            if changed or loop_time() >= due:
                due = loop_time() + REPORT_SECS
                self._metrics.open()
                self._metrics.publish(replace(self._figures.current(), standby=True, symbols={}))
                await self._status.publish(figures)
            await asyncio.sleep(SETTLED_SECS if figures.is_ready else SETTLE_SECS)

    def _current(self) -> StandbyFigures:
        connection, members = self._connection, self._members
        return StandbyFigures(
            run=self._run,
            since_ts=self._since_ts,
            connected=connection.in_use.is_set(),
            client_id=connection.client_id,
            resolved=members.prepared,
            symbols=len(members.universe.specs),
            reserve=self._settings.ibkr_standby == "reserve",
        )

    def _state(self) -> dict[str, object]:
        now = self._current()
        return {"connected": now.connected, "client_id": now.client_id, "resolved": now.resolved, "of": now.symbols}
