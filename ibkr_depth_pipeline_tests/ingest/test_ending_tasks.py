"""The end of a run waits for its tasks, and a cancellation that gets lost does not make it wait for ever."""

from __future__ import annotations

import asyncio

from ibkr_depth_pipeline.ingest.tasks import end


async def test_a_task_that_lost_its_cancellation_is_cancelled_again() -> None:
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
