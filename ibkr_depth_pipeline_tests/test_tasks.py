"""The end of a run waits for its tasks, and a cancellation that gets lost does not make it wait for ever."""

from __future__ import annotations

import asyncio

from ibkr_depth_pipeline.tasks import RunTasks, end
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS


async def test_task_that_lost_its_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def forgetful() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 2:
                    raise

    async def failing() -> None:
        raise RuntimeError("said elsewhere")

    tasks = [asyncio.ensure_future(forgetful()), asyncio.ensure_future(failing())]
    await asyncio.sleep(0)
    await end(tasks)
    assert all(task.done() for task in tasks)
    assert lost == 2
    await end([])


async def test_task_that_is_cancelled_before_the_end_has_failed() -> None:
    async def cut_short() -> None:
        raise asyncio.CancelledError

    stop = asyncio.Event()
    tasks = RunTasks(stop)
    tasks.start(cut_short())
    await asyncio.wait_for(stop.wait(), PATIENCE_SECS)
    assert "cut_short" in str(tasks.failure)


async def test_end_cancels_every_task_and_none_has_failed() -> None:
    tasks = RunTasks(asyncio.Event())
    tasks.start(asyncio.sleep(60))
    await tasks.end()
    await asyncio.sleep(0)
    assert tasks.failure is None
