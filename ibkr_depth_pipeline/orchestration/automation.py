"""Whether schedules and sensors run by themselves, and with which settings the code location is loaded."""

from __future__ import annotations

import dagster as dg

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.settings import Settings, load_settings


def settings_at_load() -> Settings:
    """The settings, a bad one as its default: one bad line must not unload what watches a running session.

    Never raises ConfigurationError. What runs later reads the settings anew, and says what is wrong.
    """
    try:
        return load_settings()
    except ConfigurationError as error:
        return _without(error)


def _without(error: ConfigurationError) -> Settings:
    blamed = (problem.partition("=")[0].lower() for problem in error.problems)
    defaults = {name: Settings.model_fields[name].default for name in blamed if name in Settings.model_fields}
    try:
        return load_settings(**defaults)
    except ConfigurationError:
        return Settings.model_construct()


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    """What a sensor does until somebody switches it."""
    on = settings.ibkr_automation == "on"
    return dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: Settings) -> dg.DefaultScheduleStatus:
    """What a schedule does until somebody switches it."""
    on = settings.ibkr_automation == "on"
    return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED
