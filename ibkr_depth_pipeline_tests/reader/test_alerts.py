"""Alerts read from a real Redis: in their order, each with its all-clear, what is no alert passed over."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from ibkr_depth_pipeline.reader import DepthReader
from ibkr_depth_pipeline.reader.alerts import AlertLog
from ibkr_depth_pipeline.schema.alerts import FORGOTTEN_MS, Alert, AlertKind, encode_alert, tracked_alerts
from ibkr_depth_pipeline.schema.keys import alerts_stream

NAME = "desk"
TROUBLE, RECOVERY = AlertKind.TROUBLE, AlertKind.RECOVERY


def alert(ts: int, kind: AlertKind = TROUBLE, cause: str = "gateway") -> Alert:
    return Alert(ts, kind, cause, f"IBKR depth {NAME}: at {ts}", "text")


def cleared(*alerts: Alert) -> list[int | None]:
    return [each.cleared for each in tracked_alerts(alerts)]


def test_all_clear_ends_all_that_was_alerted_of_its_incident() -> None:
    assert cleared(alert(1), alert(2, cause="symbols"), alert(5, RECOVERY, "symbols"), alert(7)) == [5, 5, None, None]


def test_missing_standby_is_apart_from_incidents() -> None:
    standby = alert(1, cause="standby_missing"), alert(2), alert(3, RECOVERY), alert(9, RECOVERY, "standby_missing")
    assert cleared(*standby) == [9, 3, None, None]


@pytest.mark.parametrize("cause", ["run_failed", "run_canceled", "probe_failed", "bad_settings", "unit_failed"])
def test_what_only_happened_is_never_open(cause: str) -> None:
    (tracked, _) = tracked_alerts([alert(1, cause=cause), alert(2, RECOVERY)])
    assert (tracked.cleared, tracked.until, tracked.is_open(1)) == (None, None, False)


def test_trouble_is_open_from_its_beginning_to_its_all_clear_and_a_day_without() -> None:
    (tracked, _) = tracked_alerts([alert(10), alert(20, RECOVERY)])
    assert [tracked.is_open(ts) for ts in (9, 10, 19, 20)] == [False, True, True, False]
    (forgotten,) = tracked_alerts([alert(10)])
    assert [forgotten.is_open(10 + FORGOTTEN_MS - 1), forgotten.is_open(10 + FORGOTTEN_MS)] == [True, False]


def test_alerts_are_in_order_of_their_time_whenever_they_were_stored() -> None:
    assert [each.alert.ts for each in tracked_alerts([alert(5, RECOVERY), alert(1)])] == [1, 5]
    assert cleared(alert(5, RECOVERY), alert(1)) == [5, None]


def test_headline_is_the_title_without_program_and_gateway() -> None:
    assert alert(7).headline == "at 7"
    assert Alert(1, TROUBLE, "x", "IBKR depth: unit has failed: badly", "").headline == "unit has failed: badly"
    assert Alert(1, TROUBLE, "x", "another: title", "").headline == "another: title"


@pytest.fixture
def store(shared_redis_url: str) -> Any:
    with redis.Redis.from_url(shared_redis_url) as client:
        yield lambda *alerts: [client.xadd(alerts_stream(NAME), encode_alert(each)) for each in alerts]


def test_reader_gives_each_alert_once_and_forgets_what_redis_lost(store: Any, shared_redis_url: str) -> None:
    log = AlertLog()
    with DepthReader(shared_redis_url) as reader, redis.Redis.from_url(shared_redis_url) as client:

        def read() -> list[int]:
            log.take(reader.alerts_since(NAME, log.cursor))
            return [each.alert.ts for each in log.tracked]

        assert read() == []
        first, *_ = store(alert(1), alert(2, RECOVERY))
        assert read() == [1, 2]
        before = log.tracked
        assert read() == [1, 2]
        assert log.tracked is before
        store(alert(3))
        assert read() == [1, 2, 3]
        client.xdel(alerts_stream(NAME), first)
        assert read() == [2, 3]
        client.delete(alerts_stream(NAME))
        assert read() == []
        client.xadd(alerts_stream(NAME), encode_alert(alert(4)), id="1-1")
        assert read() == [4]


@pytest.mark.parametrize(
    "wrong", [{"ts": "soon"}, {"kind": "shout"}, {"ts": "9" * 30}, {"ts": "-5"}, {"text": b"\xff"}]
)
def test_entry_that_is_no_alert_is_counted_and_passed_over(wrong: Any, store: Any, shared_redis_url: str) -> None:
    with DepthReader(shared_redis_url) as reader, redis.Redis.from_url(shared_redis_url) as client:
        client.xadd(alerts_stream(NAME), {**encode_alert(alert(1)), **wrong})
        store(alert(2))
        new = reader.alerts_since(NAME)
        assert ([each.ts for _, each in new.alerts], new.unreadable) == ([2], 1)
        assert reader.alerts_since(NAME, new.cursor).alerts == []
