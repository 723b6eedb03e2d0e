"""Alerts in the archive: each once, of every ingest, on the date on which Redis took them, and found by when they were
raised."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest

from ibkr_depth_pipeline.archive.alerts import alerts_of
from ibkr_depth_pipeline.archive.audit import audit_alerts
from ibkr_depth_pipeline.archive.layout import ALERTS
from ibkr_depth_pipeline.archive.maintenance import compact_day, prune_expired
from ibkr_depth_pipeline.archive.sql import query
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind, encode_alert
from ibkr_depth_pipeline.schema.keys import alerts_stream
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, Desk, Mirror, compacted_of, parts_of

MINUTE = 60_000
LATER = NOON + 10 * MS_PER_DAY


def raised(at: int, title: str = "feed stale", kind: AlertKind = AlertKind.TROUBLE) -> Alert:
    return Alert(at, kind, "gateway", title, 'The gateway does not answer.\nSince 12:00, it\'s 5 % "late".')


def titles(desk: Desk, day: date = DAY) -> list[tuple[str, str]]:
    return [(each.ingest, each.alert.title) for each in alerts_of(desk.store, day)]


def test_alerts_of_every_ingest_are_kept_once_also_by_a_second_archiver(mirror: Mirror, desk: Desk) -> None:
    one = mirror.write_alert(raised(NOON))
    mirror.write_alert(raised(NOON, "of another"), "paper.2")
    assert desk.keep().summary.alerts == {"default": 1, "paper.2": 1}
    mirror.write_alert(raised(NOON + MINUTE, "recovered", AlertKind.RECOVERY))
    assert desk.keep(symbols=("SPY",)).summary.alerts == {"default": 1}, "alerts are of no symbol"
    desk.keep()
    assert titles(desk) == [("default", "feed stale"), ("paper.2", "of another"), ("default", "recovered")]
    assert alerts_of(desk.store, DAY)[0].alert == one


def test_alert_that_redis_took_late_is_found_on_the_date_on_which_it_was_raised(mirror: Mirror, desk: Desk) -> None:
    mirror.write_alert(raised(NOON + 12 * 3_600_000 - 1, "before midnight"), stored=NOON + 13 * 3_600_000)
    mirror.write_alert(raised(NOON + 12 * 3_600_000, "at midnight"), stored=NOON + 13 * 3_600_000)
    desk.keep()
    assert [place.day for place in parts_of(desk.store, ALERTS)] == [DAY + timedelta(days=1)]
    assert titles(desk) == [("default", "before midnight")]
    assert titles(desk, DAY + timedelta(days=1)) == [("default", "at midnight")]


def test_entry_that_is_no_alert_is_passed_over(mirror: Mirror, desk: Desk) -> None:
    for fields in ({"ts": "soon"}, {**encode_alert(raised(NOON)), "kind": "party"}, {"ts": "1" * 40}):
        mirror.redis.xadd(alerts_stream("default"), fields, id=f"{NOON}-*")
    mirror.redis.set(alerts_stream("other"), "somebody else's")
    mirror.redis.xadd(alerts_stream("no/name"), {"ts": 1})
    mirror.write_alert(raised(NOON + 1))
    assert desk.keep().summary.unreadable == {"default": 3}
    assert titles(desk) == [("default", "feed stale")]


def test_compacted_date_has_the_same_alerts_and_goes_with_its_date(mirror: Mirror, desk: Desk) -> None:
    for minute in range(3):
        mirror.write_alert(raised(NOON + minute * MINUTE, str(minute)))
        desk.keep()
    before = alerts_of(desk.store, DAY)
    assert len(parts_of(desk.store, ALERTS)) == len(before) == 3
    compact_day(desk.store, DAY)
    assert (len(parts_of(desk.store, ALERTS)), len(compacted_of(desk.store, ALERTS))) == (0, 1)
    assert alerts_of(desk.store, DAY) == before
    mirror.write_alert(raised(LATER))
    desk.keep()
    assert prune_expired(desk.store, 5, date(2026, 2, 1)).deleted == (DAY,)
    assert titles(desk) == []


def test_sql_has_alerts_and_none_where_none_are_kept(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1])
    desk.keep()
    count = "SELECT ingest, kind, title, date FROM alerts ORDER BY ts"
    assert query(desk.store, count)[1] == []
    mirror.write_alert(raised(NOON), "2026")
    desk.keep()
    assert query(desk.store, count)[1] == [("2026", "trouble", "feed stale", DAY)]
    compact_day(desk.store, DAY)
    assert query(desk.store, count)[1] == [("2026", "trouble", "feed stale", DAY)]


def test_alert_that_is_in_redis_and_not_in_the_archive_fails_the_check(mirror: Mirror, desk: Desk) -> None:
    mirror.write_alert(raised(NOON))
    desk.keep()
    mirror.write_alert(raised(NOON + MINUTE))

    def check(now: int) -> tuple[bool, Any]:
        (audit,) = audit_alerts(desk.settings, DAY, desk.store, now)
        return audit.passed, audit.results[0].figures

    assert check(NOON + 2 * MINUTE) == (True, {"kept": 1, "in_redis": 2, "waiting": 1})
    assert check(NOON + 60 * MINUTE) == (False, {"kept": 1, "in_redis": 2, "waiting": 0})
    assert audit_alerts(desk.settings, DAY + timedelta(days=1), desk.store, LATER) == []


@pytest.mark.parametrize("compacted", [False, True])
def test_operator_sees_the_alerts(mirror: Mirror, desk: Desk, compacted: bool) -> None:
    mirror.write_alert(raised(NOON))
    mirror.write_alert(raised(NOON + MINUTE, "recovered", AlertKind.RECOVERY))
    desk.keep()
    if compacted:
        compact_day(desk.store, DAY)
    assert desk.runs("alerts", str(DAY)).stdout.splitlines() == [
        "2026-01-05T12:00:00.000+00:00 default trouble (gateway): feed stale",
        "2026-01-05T12:01:00.000+00:00 default recovery (gateway): recovered",
    ]
    assert desk.runs("alerts", "--all").stdout == desk.runs("alerts", str(DAY)).stdout
    assert desk.runs("list").stdout.splitlines()[1:] == ["2026-01-05  default: 2 alerts, 1 of trouble"]
    counted = [{"date": "2026-01-05", "ingest": "default", "alerts": 2, "trouble": 1}]
    assert json.loads(desk.runs("list", "--json").stdout)["alerts"] == counted
    assert "ok   default alerts_kept: kept 2, in_redis 2, waiting 0" in desk.runs("check", str(DAY)).stdout
