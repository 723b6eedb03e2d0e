"""The calendars of exchanges, read by a process of its own, and what the code location does not import."""

import subprocess
import sys
from datetime import date

import pytest

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.hours.exchange_days import read_days, unknown

FIRST, LAST = date(2026, 11, 20), date(2026, 12, 31)
HEAVY = ("pandas", "numpy", "pyarrow", "exchange_calendars", "ib_insync", "duckdb")


def output_of(program: str) -> str:
    """What a process of its own prints."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
def test_days_read_by_another_process_are_those_of_exchange_calendars(calendar: str) -> None:
    program = (
        "from ibkr_depth_pipeline.hours.exchange_days import *; import sys, datetime;"
        f"print(repr(exchange_days({calendar!r}, {FIRST!r}, {LAST!r})));"
        "assert 'pandas' not in sys.modules"
    )
    assert output_of(program) == repr(read_days(calendar, FIRST, LAST))


def test_thanksgiving_is_named_and_the_day_after_closes_early() -> None:
    days = read_days("XNYS", FIRST, LAST)
    assert days.holidays[date(2026, 11, 26)] == "Thanksgiving"
    early = next(session for session in days.sessions if session.day == date(2026, 11, 27))
    assert (early.close - early.open).total_seconds() == 3.5 * 3600


def test_unknown_calendar_is_refused_in_both_ways() -> None:
    with pytest.raises(ConfigurationError, match="'NOPE' is not allowed"):
        read_days("NOPE", FIRST, LAST)
    program = (
        "import datetime; from ibkr_depth_pipeline.hours.exchange_days import exchange_days\n"
        f"try: exchange_days('NOPE', {FIRST!r}, {LAST!r})\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert output_of(program) == f"ConfigurationError {unknown('NOPE')}"


def test_code_location_imports_nothing_that_only_a_run_needs() -> None:
    program = f"import sys, ibkr_depth_pipeline.definitions; print([each for each in {HEAVY!r} if each in sys.modules])"
    assert output_of(program) == "[]"
