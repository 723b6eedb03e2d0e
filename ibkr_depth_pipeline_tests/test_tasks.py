"""The end of a run waits for its tasks, and a cancellation that gets lost does not make it wait for ever."""

from __future__ import annotations

import asyncio

import pytest

from ibkr_depth_pipeline.tasks import RunTasks, at_most, end
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


async def test_work_whose_wait_is_cancelled_before_it_began_is_cancelled_with_it() -> None:
    """As a coroutine that nobody awaits, it would be a warning, and a warning is a failure."""
    work = _wait(asyncio.Event())
    waiting = at_most(60.0, work)
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    for _ in range(5):
        await asyncio.sleep(0)
    assert work.cr_frame is None, "it has ended"


async def test_work_that_takes_too_long_is_cancelled_and_what_it_raises_before_is_raised() -> None:
    forever = asyncio.Event()
    await at_most(0.01, _wait(forever))
    with pytest.raises(ValueError, match="broken"):
        await at_most(60.0, _break())


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _break() -> None:
    raise ValueError("broken")
