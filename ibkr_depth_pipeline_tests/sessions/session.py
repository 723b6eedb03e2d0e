"""A whole session in virtual time: `play` a `Plan`, and what must hold is checked.

The same plan gives the same session, to the last byte, in any process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline_tests.sessions.hostile import acts_of
from ibkr_depth_pipeline_tests.sessions.model_redis import PORT
from ibkr_depth_pipeline_tests.sessions.virtual_time import VirtualClock, VirtualLoop
from ibkr_depth_pipeline_tests.sessions.watch import Watch
from ibkr_depth_pipeline_tests.sessions.world import ROLLS_AT, Plan, Recorder, Seen, World

RECOVERY_SECS = 120.0
"""Within so long of the end of the last fault every symbol has new rows. If every line is dead by then, nothing tells
that from a quiet market, in which lines are asked for again but rarely: connections are dropped, and it counts anew."""

MUTE_SECS = 60.0
EVERY_LINE_DEAD = "every line dead"


def play(plan: Plan) -> Seen:
    """Carry the plan out. Never raises for what goes wrong in it: `problems` says it."""
    virtual = VirtualClock()
    state = random.getstate()
    random.seed(plan.seed)
    with virtual.everywhere(), structlog.testing.capture_logs() as logged:
        loop = VirtualLoop(virtual)
        asyncio.set_event_loop(loop)
        try:
            world = World(plan, virtual, loop)
            world.logged = world.seen.logged = logged
            try:
                loop.run_until_complete(_course(world))
            except Exception as error:
                world.seen.problems.append(f"{error!r}")
        finally:
            _end(loop)
            random.setstate(state)
    return world.seen


async def _course(world: World) -> None:
    """From the first connection to the last check."""
    world.listen(world.redis.accept, PORT)
    watch = Watch(world)
    async with world.gateway:
        world.recorders = [Recorder(world, name) for name in ("a", "b")[: 1 + world.plan.standby]]
        watching = asyncio.ensure_future(watch.run())
        await _carry_out(world)
        await _recover(world, watch)
        for recorder in reversed(world.recorders):
            await recorder.end()
        watching.cancel()
    watch.at_end()


async def _carry_out(world: World) -> None:
    began = world.clock.now
    acts: list[tuple[float, int, Callable[[], object]]] = []
    for fault in world.plan.faults:
        for delay, act in acts_of(world, fault):
            acts.append((began + fault.at + delay, len(acts), act))
    for at, _, act in sorted(acts, key=lambda each: each[:2]):
        await asyncio.sleep(max(0.0, at - world.clock.now))
        result = act()
        if asyncio.iscoroutine(result):
            await result
    if world.plan.rolls:
        await asyncio.sleep(max(0.0, began + ROLLS_AT.second + 5.0 - world.clock.now))


async def _recover(world: World, watch: Watch) -> None:
    """Wait until every symbol has new rows."""

    def counts() -> dict[str, int]:
        return {symbol: len(world.redis.entries(stream_key(symbol))) for symbol in world.symbols}

    before, deadline = counts(), world.clock.now + RECOVERY_SECS
    while late := [symbol for symbol, count in counts().items() if count < before[symbol] + 3]:
        if world.clock.now >= deadline and watch.mute_secs() > MUTE_SECS and not world.seen.states[EVERY_LINE_DEAD]:
            world.seen.states[EVERY_LINE_DEAD] += 1
            world.gateway.drop_connections(reset=True)
            deadline += RECOVERY_SECS
        elif world.clock.now >= deadline:
            world.seen.problems.append(f"no new rows of {late} within {RECOVERY_SECS:g} s of the last fault")
            return
        await asyncio.sleep(0.25)


def _end(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(Exception):
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    asyncio.set_event_loop(None)
    loop.close()
