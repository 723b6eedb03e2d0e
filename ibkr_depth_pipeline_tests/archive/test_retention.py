"""What is past the retention goes few dates at a time, counted from the newest data and not from the clock."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from ibkr_depth_pipeline.archive.maintenance import DATES_AT_ONCE, plan_pruning
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, Desk, Mirror
from ibkr_depth_pipeline_tests.archive.test_archiver import with_settings

DATES = [DAY + timedelta(days=offset) for offset in range(40)]


def test_retention_deletes_one_date_a_day() -> None:
    assert plan_pruning(DATES, DATES[-1], 30, DATES[-1] + timedelta(days=1)).deleted == tuple(DATES[:5])
    assert plan_pruning(DATES[8:], DATES[-1], 30, DATES[-1]).deleted == (DATES[8],)


@pytest.mark.parametrize("today", [DATES[-1] + timedelta(days=400), date(2099, 1, 1), date(9999, 12, 31)])
def test_clock_far_ahead_makes_nothing_old(today: date) -> None:
    assert plan_pruning(DATES, DATES[-1], 45, today) == ((), ())


def test_data_that_bears_the_time_of_a_clock_ahead_costs_few_dates() -> None:
    pruning = plan_pruning([*DATES, date(2099, 1, 1)], date(2099, 1, 1), 30, date(2099, 1, 1))
    assert pruning.deleted == tuple(DATES[:DATES_AT_ONCE])
    assert pruning.held == tuple(DATES[DATES_AT_ONCE:])


def test_data_ahead_of_a_right_clock_makes_nothing_old() -> None:
    assert plan_pruning([*DATES, date(2099, 1, 1)], date(2099, 1, 1), 45, DATES[-1]) == ((), ())


def test_archiver_with_a_clock_far_ahead_deletes_nothing_and_goes_on(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 5), every=MS_PER_DAY)
    desk.keep()
    mirror.write("SPY", range(5, 8), start=NOON + 4 * MS_PER_DAY, every=MS_PER_DAY)
    ahead = with_settings(desk, archive_retention_days=10, now_ms=lambda: NOON + 3650 * MS_PER_DAY)
    done = ahead.keep().summary
    assert (done.pruned_days, done.snapshots) == (0, {"SPY": 3})
    assert [found.seq for found in desk.kept()["SPY"]] == list(range(1, 8))
