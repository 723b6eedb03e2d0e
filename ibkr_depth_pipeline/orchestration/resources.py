"""The resources of runs: gateway, Redis, the exchange's hours. A field that is left out comes from the environment,
`.env`, or the default.

Config is refused before launch. Dagster checks types against the schema, and calls the mapping of a `configured`
definition while it plans a run, before the run exists: a bad value found there is an error in the Launchpad and leaves
no run behind.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.errors import ConfigurationError, DepthPipelineError
from ibkr_depth_pipeline.gateways import gateway_named
from ibkr_depth_pipeline.hours.trading import OutsideSession, TradingHours
from ibkr_depth_pipeline.hours.universe import UniverseSessions
from ibkr_depth_pipeline.monitoring.ticks import universe_sessions
from ibkr_depth_pipeline.orchestration.gateway_assets import GatewayNames
from ibkr_depth_pipeline.settings import Settings, load_settings, mask_url
from ibkr_depth_pipeline.universe import Universe
from ibkr_depth_pipeline.universe.changes import UniverseFile

EARLY = timedelta(minutes=15)
"""How long before the open a run that follows the calendar may start: books fill before it."""


@contextmanager
def errors_as_failures() -> Iterator[None]:
    """Turns an error that explains itself into the run's failure, with its text; no step is tried again.

    If a signal had asked the run to end before the error came, the run ends as canceled instead.
    """
    try:
        yield
    except DepthPipelineError as error:
        if error.interrupted_by is not None:
            raise dg.DagsterExecutionInterruptedError(f"{error.interrupted_by}, and then: {error}") from error
        raise dg.Failure(str(error), metadata={"kind": type(error).__name__}, allow_retries=False) from error


# ---- config that is refused before launch


def refuse(error: ConfigurationError) -> dg.DagsterInvalidConfigError:
    """The exception to raise in a mapping, for the Launchpad to show. Never holds the config: it may be a secret."""
    return dg.DagsterInvalidConfigError(f"This run config is refused. {error}", [], {})  # type: ignore[no-untyped-call]


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise if one of these settings is bad. What the environment has of others is judged when the run starts."""
    try:
        load_settings(**overrides)
    except ConfigurationError as error:
        blamed = [problem for problem in error.problems if problem.partition("=")[0].lower() in overrides]
        if blamed:
            raise refuse(ConfigurationError(error.where, blamed)) from None


# ---- gateway and Redis


def about(setting: str) -> str:
    """The Launchpad's description of a field that overrides `setting`."""
    field = Settings.model_fields[setting]
    return f"{field.description}. Left out: {setting.upper()} of the environment or of .env, else {field.default}."


class IbkrGateway(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The address of the IBKR gateway, and what is asked of it. Each field overrides the setting IBKR_<FIELD>."""

    host: str | None = Field(default=None, description=about("ibkr_host"))
    port: int | None = Field(default=None, description=about("ibkr_port"))
    client_id: int | None = Field(default=None, description=about("ibkr_client_id"))
    client_id_max_offset: int | None = Field(default=None, description=about("ibkr_client_id_max_offset"))
    depth_rows: int | None = Field(default=None, description=about("ibkr_depth_rows"))
    max_concurrent_depth: int | None = Field(default=None, description=about("ibkr_max_concurrent_depth"))
    connect_timeout_secs: float | None = Field(default=None, description=about("ibkr_connect_timeout_secs"))

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are given."""
        return {f"ibkr_{name}": value for name, value in self.model_dump().items() if value is not None}


class RedisStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the books go. The URL in force is never shown."""

    url: str | None = Field(
        default=None,
        description=f"{about('redis_url')} No password may stand here, where everybody can read it: set REDIS_URL, or "
        "name another environment variable, {env: NAME}.",
        json_schema_extra={"dagster__is_secret": True},
    )

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are given."""
        return {} if self.url is None else {"redis_url": self.url}


def ibkr_resource(gateway: IbkrGateway) -> dg.ResourceDefinition:
    """`gateway` as a resource whose run config is checked before launch."""

    @dg.configured(gateway.get_resource_definition(), config_schema=IbkrGateway.to_fields_dict())
    def checked(config: dict[str, Any]) -> dict[str, Any]:
        given = _given(config)
        check_overrides({f"ibkr_{name}": value for name, value in given.items()})
        return given

    return checked


_ENV = dg.Selector({"env": str})  # type: ignore[no-untyped-call]
_URL = dg.ScalarUnion(scalar_type=str, non_scalar_schema=_ENV, _key="RedisUrl")
"""Like Dagster's own type of a text or {env: NAME}, but the name arrives unresolved, so that a text is told apart."""


def redis_resource(store: RedisStore) -> dg.ResourceDefinition:
    """`store` as a resource whose run config is checked before launch, and refused with a password in it."""
    url = dg.Field(dg.Noneable(_URL), is_required=False, description=RedisStore.model_fields["url"].description)

    @dg.configured(store.get_resource_definition(), config_schema={"url": url})
    def checked(config: dict[str, Any]) -> dict[str, Any]:
        given = _given(config)
        written = given.get("url")
        if isinstance(written, str):
            _refuse_secrets(written)
            check_overrides({"redis_url": written})
        return given

    return checked


def _refuse_secrets(url: str) -> None:
    if mask_url(url) != url:
        remedy = "set REDIS_URL, or name another environment variable: {env: NAME}"
        problem = f"url is not allowed; it names a user or a password; {remedy}"
        raise refuse(ConfigurationError("resource redis", [problem]))


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


# ---- the exchange's hours


class ExchangeHours(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The calendar whose trading hours a run follows, if it follows any."""

    calendar: str | None = Field(
        default=None,
        description="A calendar of exchange_calendars, such as XNYS, XNAS or 24/7. Left out: the hours of the "
        "universe's instruments, and IBKR_CALENDAR as long as those are not known.",
    )

    def seconds_to_close(self, now: datetime) -> float:
        """Seconds from `now` to the close of the open or coming session, and of those that follow it without a break.

        Raises OutsideSession, naming the next open, and ConfigurationError for an unknown calendar.
        """
        calendar = self.calendar or load_settings().ibkr_calendar
        hours = TradingHours(calendar, now)
        session = hours.unbroken(hours.session_to_record(now, EARLY))
        return (session.close - now).total_seconds()


class UniverseClock:
    """The session of the universe's instruments, in the place of an exchange's."""

    def __init__(self, sessions: UniverseSessions) -> None:
        self._sessions = sessions

    def seconds_to_close(self, now: datetime) -> float:
        """Seconds from `now` to the last close of the session that is open, or about to open. Raises OutsideSession."""
        now_ms = int(now.timestamp() * 1000)
        session = self._sessions.at(now_ms, int(EARLY.total_seconds() * 1000))
        if session is not None:
            return (session.close - now_ms) / 1000
        raise OutsideSession(self._sessions.why_closed(now_ms))


def session_clock(
    settings: Settings, universe: Universe, exchange: ExchangeHours, now: datetime
) -> ExchangeHours | UniverseClock:
    """Whose session a run follows: the calendar's if its config names one, or if no instrument's hours are known."""
    if exchange.calendar is not None:
        return exchange
    sessions = universe_sessions(settings, int(now.timestamp() * 1000), universe.symbols)
    return exchange if sessions is None else UniverseClock(sessions)


def settings_and_universe(
    names: GatewayNames, symbols: Sequence[str], ibkr: IbkrGateway, redis: RedisStore, **overrides: Any
) -> tuple[Settings, Universe]:
    """The settings and the universe of a run of that gateway, as the files are now.

    `overrides` win over the resources, those over the list of gateways, that over the environment and `.env`. No
    symbols means all of the universe. Raises ConfigurationError.
    """
    settings = gateway_named(names.gateway).settings(**{**ibkr.overrides(), **redis.overrides(), **overrides})
    return settings, universe_file(settings, symbols).load()


def universe_file(settings: Settings, symbols: Sequence[str]) -> UniverseFile:
    """Where a run with these settings has its universe from; no symbols means all of it."""
    return UniverseFile(settings.symbol_config_path, tuple(symbols), settings.ibkr_max_concurrent_depth)
