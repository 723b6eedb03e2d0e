"""What can be said about one run of the ingest, and the settings and the universe that come of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.gateways import gateway_named
from ibkr_depth_pipeline.orchestration.launch_checks import check_overrides, refuse
from ibkr_depth_pipeline.orchestration.lineage import Names
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore, about
from ibkr_depth_pipeline.orchestration.trading_day import ExchangeHours
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.trading_hours import OutsideSession
from ibkr_depth_pipeline.universe import Universe, load_universe

LEAST_DURATION_SECS = 0.1


class IngestConfig(dg.Config):
    """Record the whole universe until the close, or Terminate; everything here is optional."""

    symbols: list[str] = Field(
        default=[], description="Record only these symbols, such as [AAPL, SPY]. Empty: the universe."
    )
    duration: float | None = Field(
        default=None, description="Stop by itself after so many seconds. Left out: at the close, or on Terminate."
    )
    rotation_secs: float | None = Field(default=None, description=about("ibkr_rotation_secs"))
    max_concurrent_depth: int | None = Field(
        default=None, description=f"{about('ibkr_max_concurrent_depth')} Wins over the resource's."
    )

    stop_at_close: bool | None = Field(
        default=None,
        description="Follow the exchange's calendar: refuse to start outside a session, and stop at its close, early "
        "closes included. False: record at any time. Left out: IBKR_STOP_AT_CLOSE of the environment or of .env, else "
        "True.",
    )

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are given."""
        fields = {"ibkr_rotation_secs": self.rotation_secs, "ibkr_max_concurrent_depth": self.max_concurrent_depth}
        return {name: value for name, value in fields.items() if value is not None}

    def check(self) -> None:
        """Raise DagsterInvalidConfigError for what needs no look at the environment to be wrong."""
        if self.duration is not None and not self.duration >= LEAST_DURATION_SECS:
            wrong = f"{self.duration!r} is not allowed; seconds, {LEAST_DURATION_SECS} or more, or left out"
            raise refuse(ConfigurationError("run config", [f"duration={wrong}"]))
        try:
            Universe(()).subset(self.symbols)
        except ConfigurationError as error:
            raise refuse(error) from None
        check_overrides(self.overrides())

    def resolve(self, names: Names, ibkr: IbkrGateway, redis: RedisStore) -> tuple[Settings, Universe]:
        """What is in force for this run. Raises ConfigurationError."""
        return settings_and_universe(names, self.symbols, ibkr, redis, **self.overrides())

    def seconds_to_record(self, hours: ExchangeHours, now: datetime, *, by_default: bool = True) -> float | None:
        """How long to record from `now` on; None: until Terminate. Raises OutsideSession where the calendar forbids.

        by_default says whether the calendar counts where this config says nothing of it.
        """
        follows = by_default if self.stop_at_close is None else self.stop_at_close
        if not follows:
            return self.duration
        try:
            left = hours.seconds_to_close(now)
        except OutsideSession as closed:
            raise OutsideSession(f"{closed}. {_WAY_OUT}") from None
        return left if self.duration is None else min(left, self.duration)


_WAY_OUT = "With stop_at_close: false in the run config, or IBKR_STOP_AT_CLOSE=false, a run records at any time"


def settings_and_universe(
    names: Names, symbols: Sequence[str], ibkr: IbkrGateway, redis: RedisStore, **overrides: Any
) -> tuple[Settings, Universe]:
    """What is in force for a run of that gateway, read anew.

    `overrides` win over the resources, those over the list of gateways, that over the environment and `.env`. No
    symbols means all of the universe. Raises ConfigurationError.
    """
    settings = gateway_named(names.gateway).settings(**{**ibkr.overrides(), **redis.overrides(), **overrides})
    universe = load_universe(settings.symbol_config_path)
    return settings, universe.subset(symbols) if symbols else universe
