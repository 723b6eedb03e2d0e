"""Viewers: the newest message of a kind and never a queue; the slow one misses frames and is told so."""

from __future__ import annotations

import orjson

from ibkr_depth_pipeline.web.viewers import FRAME, STATE, THINNED, WINDOW, Viewer, Viewers


async def test_viewer_gets_the_newest_of_each_kind() -> None:
    viewer = Viewer()
    viewer.offer(STATE, b"s1")
    viewer.offer(FRAME, b"f1")
    viewer.offer(STATE, b"s2")
    assert sorted(await viewer.take()) == [b"f1", b"s2"]


async def test_viewer_that_acknowledges_nothing_is_sent_no_more_than_the_window() -> None:
    viewer = Viewer()
    sent = 0
    for number in range(10 * WINDOW):
        viewer.offer(FRAME, b"%d" % number)
        if viewer.due:
            sent += len(await viewer.take())
    assert sent == WINDOW
    viewer.acknowledge(sent)
    assert await viewer.take() == [b"%d" % (10 * WINDOW - 1)]


async def test_slow_viewer_is_told_how_many_frames_it_missed() -> None:
    viewer = Viewer()
    for number in range(5):
        viewer.offer(FRAME, b"%d" % number)
    viewer.note_thinned()
    latest, note = await viewer.take()
    assert (latest, orjson.loads(note)) == (b"4", {"k": THINNED, "frames": 4})
    viewer.note_thinned()
    assert not viewer.due


async def test_acknowledgement_of_what_was_never_sent_opens_no_window() -> None:
    viewer = Viewer()
    viewer.acknowledge(10**9)
    viewer.acknowledge(-5)
    for number in range(10 * WINDOW):
        viewer.offer(FRAME, b"%d" % number)
        if viewer.due:
            await viewer.take()
    assert not viewer.due


async def test_frames_of_another_symbol_are_dropped_when_a_symbol_is_chosen() -> None:
    viewers = Viewers(most=2)
    viewer = viewers.join()
    assert viewer is not None
    viewer.watch("SPY")
    viewers.publish_frame("SPY", b"spy")
    viewers.publish_frame("QQQ", b"qqq")
    viewer.watch("QQQ")
    viewers.publish(STATE, b"state")
    assert await viewer.take() == [b"state"]


def test_newcomer_gets_the_state_at_once_and_one_too_many_is_refused() -> None:
    viewers = Viewers(most=1)
    viewers.publish(STATE, b"state")
    first = viewers.join()
    assert first is not None
    assert first.due
    assert viewers.join() is None
    viewers.leave(first)
    assert viewers.join() is not None
