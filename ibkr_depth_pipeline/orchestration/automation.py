"""Whether schedules and sensors run by themselves, and with which settings, be it that some can't be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import dagster as dg

from ibkr_depth_pipeline.alerts.rounds import now_ms, session_now
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.settings import Settings, load_settings

_PLACE = frozenset(("redis_url", "redis_tls_ca_file", "redis_tls_cert_file", "redis_tls_key_file", "ibkr_gateway_name"))
_JUDGING = _PLACE | {"ibkr_lease_wait_secs"}
"""With another value of these, a run that is alive would look dead."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The settings, a bad one as its default. `problem` names each bad one and why, "" where there is none.

    `blind`: what Redis shows then says nothing of the gateway that is meant, so that no run may be judged by it.
    """

    settings: Settings
    problem: str = ""
    blind: bool = False


def settings_at_load() -> Settings:
    """The settings, a bad one as its default: one bad line must not unload what watches a running session.

    Never raises ConfigurationError. What runs later reads the settings anew, and says what is wrong.
    """
    return read_settings(load_settings).settings


def read_settings(load: Callable[..., Settings]) -> Reading:
    """What that loader of settings, which takes overrides, can read now. Never raises ConfigurationError."""
    try:
        return Reading(load())
    except ConfigurationError as error:
        return _without(load, error)


def _without(load: Callable[..., Settings], error: ConfigurationError) -> Reading:
    blamed = {problem.partition("=")[0].lower() for problem in error.problems} & set(Settings.model_fields)
    for names in (blamed, blamed | _PLACE):  # the latter where some of them don't fit together
        defaults = {name: Settings.model_fields[name].default for name in names}
        try:
            return Reading(load(**defaults), str(error), blind=bool(names & _JUDGING))
        except ConfigurationError:
            continue
    return Reading(Settings.model_construct(), str(error), blind=True)


def read_with_calendar(load: Callable[..., Settings]) -> Reading:
    """As read_settings; a calendar that is not known counts as bad, too."""
    reading = read_settings(load)
    try:
        session_now(reading.settings.ibkr_calendar, now_ms())
    except ConfigurationError as error:
        default = Settings.model_fields["ibkr_calendar"].default
        usable = reading.settings.model_copy(update={"ibkr_calendar": default})
        problem = "; ".join(filter(None, (reading.problem, f"IBKR_CALENDAR: {error}")))
        return replace(reading, settings=usable, problem=problem)
    return reading


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    """What a sensor does until somebody switches it."""
    on = settings.ibkr_automation == "on"
    return dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: Settings) -> dg.DefaultScheduleStatus:
    """What a schedule does until somebody switches it."""
    on = settings.ibkr_automation == "on"
    return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED
