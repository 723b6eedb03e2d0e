"""The settings, and the only reader of the environment and of `.env`.

Each field is one environment variable, its name in capitals. Its description says what is allowed, in the words that
an operator reads when a value is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ibkr_depth_pipeline.errors import ConfigurationError

REDIS_SCHEMES = ("redis", "rediss", "unix")
MASK = "***"


def mask_url(url: str) -> str:
    """`url` without its password, fit for a log. A text that is no URL is masked whole where it may hold a secret."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return MASK
    user = (parts.username or "") if parts.scheme else ""
    secret = "@" in parts.netloc
    query = MASK if "password" in parts.query else parts.query
    if not parts.scheme and "@" in url:
        return MASK
    return urlunsplit((parts.scheme, f"{user}:{MASK}@{host}" if secret else host, parts.path, query, ""))


def _check_redis_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError("unknown scheme")
    if parts.scheme != "unix":
        if not parts.hostname:
            raise ValueError("no host")
        _ = parts.port  # raises on a port that is no number
        database = parts.path.strip("/")
        if database and not database.isdigit():
            raise ValueError("the database is a number")
    return url


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


Whole = Annotated[int, Field(strict=False)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]
RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]


class Settings(BaseSettings):
    """Everything an operator can set. Build it with `load_settings`, which turns a bad value into one clear error."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    ibkr_host: str = Field("127.0.0.1", min_length=1, description="gateway host: a name or an address")
    ibkr_port: Whole = Field(7497, ge=1, le=65535, description="gateway port: a whole number from 1 to 65535")
    ibkr_client_id: Whole = Field(
        777, ge=1, le=2_000_000_000, description="preferred client id: a whole number from 1 to 2000000000"
    )
    ibkr_client_id_max_offset: Whole = Field(
        5, ge=0, le=1000, description="how many further client ids to try: a whole number from 0 to 1000"
    )
    ibkr_probe_client_id: Whole = Field(
        787, ge=1, le=2_000_000_000, description="the probe's preferred client id: a whole number from 1 to 2000000000"
    )
    ibkr_depth_rows: Whole = Field(
        10, ge=1, le=50, description="depth levels per side to request: a whole number from 1 to 50"
    )
    ibkr_depth_extra_rows: Whole = Field(
        5, ge=0, le=50, description="levels requested beyond IBKR_DEPTH_ROWS: a whole number from 0 to 50"
    )
    ibkr_max_concurrent_depth: Whole = Field(
        3, ge=1, le=60, description="most simultaneous depth subscriptions: a whole number from 1 to 60"
    )
    ibkr_rotation_secs: Seconds = Field(
        15, ge=0.1, le=86400, description="dwell of a batch: seconds, from 0.1 to 86400"
    )
    ibkr_first_row_secs: Seconds = Field(
        15, ge=0.1, le=3600, description="longest wait for a subscription's first row: seconds, from 0.1 to 3600"
    )
    ibkr_stream_maxlen: Whole = Field(
        10000, ge=1, le=100_000_000, description="stream MAXLEN, approximate: a whole number from 1 to 100000000"
    )
    ibkr_heartbeat_ttl: Whole = Field(
        30, ge=1, le=86400, description="heartbeat TTL: whole seconds, from 1 to 86400 (never less than 30 in force)"
    )
    ibkr_error309_cooldown_secs: Seconds = Field(
        8, ge=0, le=3600, description="pause after a 309: seconds, from 0 to 3600"
    )
    ibkr_error309_recovery_cycles: Whole = Field(
        4, ge=1, le=1000, description="stable rotations before growing again: a whole number from 1 to 1000"
    )
    ibkr_unsupported_retry_secs: Seconds = Field(
        3600, ge=1, le=604800, description="when a refused symbol is tried again: seconds, from 1 to 604800"
    )
    ibkr_connect_timeout_secs: Seconds = Field(
        5, ge=0.1, le=300, description="wait for the gateway's answer to a connect: seconds, from 0.1 to 300"
    )
    ibkr_reconnect_max_secs: Seconds = Field(
        2, ge=0.1, le=300, description="longest pause between two connects: seconds, from 0.1 to 300"
    )
    ibkr_buffer_bytes: Whole = Field(
        67108864,
        ge=65536,
        le=17179869184,
        description="snapshots held while Redis is away: bytes, a whole number from 65536 to 17179869184",
    )
    ibkr_log_level: LogLevel = Field("INFO", description="log level: one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    redis_url: RedisUrl = Field(
        "redis://localhost:6379/0",
        repr=False,
        description="Redis target: a URL redis://[user:password@]host[:port][/db], rediss://... or unix://...",
    )
    symbol_config_path: Path = Field(
        Path("config/ibkr_symbols.yaml"), description="universe and venue overrides: the path of a YAML file"
    )

    @property
    def redis_url_masked(self) -> str:
        """The Redis target without its password."""
        return mask_url(self.redis_url)


def load_settings(**overrides: Any) -> Settings:
    """The settings from `overrides` (field names; None means not given), the environment, `.env`, and the defaults.

    The first that names a setting wins. Raises ConfigurationError, which lists every bad key at once.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - set(Settings.model_fields))
    if unknown:
        raise ConfigurationError("settings", [f"{name.upper()}: there is no such setting" for name in unknown])
    try:
        return Settings(**given)
    except ValidationError as refused:
        raise ConfigurationError("settings", [_problem(error) for error in refused.errors()]) from None


def _problem(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]).lower()
    field = Settings.model_fields[name]
    value = error["input"]
    shown = mask_url(str(value)) if name == "redis_url" else value
    return f"{name.upper()}={shown!r} is not allowed; {field.description} (default {field.default})"
