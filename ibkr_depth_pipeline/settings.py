"""The settings, and the only reader of the environment and of `.env`.

Each field is one environment variable, its name in capitals. Its description says what is allowed, in the words that
an operator reads when a value is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dotenv.parser import Binding, parse_stream
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.redis_link.url import MASK as MASK
from ibkr_depth_pipeline.redis_link.url import is_encrypted
from ibkr_depth_pipeline.redis_link.url import mask_url as mask_url
from ibkr_depth_pipeline.setting_types import (
    AlertUrls,
    ArchiveUrl,
    Calendar,
    CodeLocation,
    DeadmanUrl,
    File,
    Host,
    LogLevel,
    Name,
    ProbeFailed,
    RedisUrl,
    Seconds,
    SessionKind,
    StandbyRole,
    Switch,
    WebNames,
    WebToken,
    Whole,
    bounded,
    seconds,
    split_urls,
    whole,
)


class Settings(BaseSettings):
    """Everything an operator can set. Build it with `load_settings`, which turns a bad value into one clear error."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,  # so that not even pydantic's own text can show a password
    )

    ibkr_host: Host = Field("127.0.0.1", description="gateway host: a name or an address, without the port")
    ibkr_port: Whole = whole(7497, 1, 65535, "gateway port")
    ibkr_gateway_name: Name = Field(
        "default",
        description="name of this gateway's recording in Redis, one ingest each: 1 to 64 of A-Z a-z 0-9 _ . -",
    )
    ibkr_client_id: Whole = whole(777, 1, 2_000_000_000, "preferred client id")
    ibkr_client_id_max_offset: Whole = whole(5, 0, 1000, "how many further client ids to try")
    ibkr_probe_client_id: Whole = whole(787, 1, 2_000_000_000, "the probe's preferred client id")
    ibkr_facts_client_id: Whole = whole(797, 1, 2_000_000_000, "the preferred client id of ibkr_gateway_facts")
    ibkr_gateway_facts: Path = Field(
        Path("config/gateway_facts.json"),
        description="what ibkr_gateway_facts has found: the path of its JSON file, from which the probe and the "
        "rotation take their first slots and release pause if it is there and of this gateway",
    )
    ibkr_depth_rows: Whole = whole(10, 1, 50, "depth levels per side to request")
    ibkr_depth_extra_rows: Whole = whole(5, 0, 50, "levels requested beyond IBKR_DEPTH_ROWS")
    ibkr_max_concurrent_depth: Whole = whole(3, 1, 60, "most simultaneous depth subscriptions")
    ibkr_hours_refresh_secs: Seconds = seconds(
        72000, 1, 86400, "hours of an instrument's market that are older are asked for again"
    )
    ibkr_rotation_secs: Seconds = seconds(15, 0.1, 86400, "dwell of a batch")
    ibkr_first_row_secs: Seconds = seconds(15, 0.1, 3600, "longest wait for a subscription's first row")
    ibkr_stream_maxlen: Whole = whole(10000, 1, 100_000_000, "stream MAXLEN, approximate")
    ibkr_stream_recv_ns: bool = Field(
        False, description="whether snapshots bear recv_ns, the unix ns of their socket read: true or false"
    )
    ibkr_stream_rows: bool = Field(
        False, description="whether rows are streamed beside the snapshots, for increments: true or false"
    )
    ibkr_heartbeat_ttl: Whole = Field(
        30, ge=1, le=86400, description="heartbeat TTL: whole seconds, from 1 to 86400 (never less than 30 in force)"
    )
    ibkr_error309_cooldown_secs: Seconds = seconds(
        8, 0, 3600, "least pause after a 309, longer while no slot is granted"
    )
    ibkr_error309_recovery_cycles: Whole = whole(4, 1, 1000, "stable rotations before growing again")
    ibkr_unsupported_retry_secs: Seconds = seconds(
        3600, 1, 604800, "longest wait until a refused symbol is tried again"
    )
    ibkr_connect_timeout_secs: Seconds = seconds(15, 0.1, 300, "how long a gateway may take to greet a connection")
    ibkr_stall_secs: Seconds = seconds(
        10, 0.5, 3600, "without a row and without an answer for so long, the connection is given up"
    )
    ibkr_outage_secs: Seconds = seconds(
        120,
        1,
        3600,
        "after connectivity was lost (1100) and neither its end was said nor a row came for so long, every line "
        "is asked for again; as long after that, the gateway is reconnected; ever more rarely",
    )
    ibkr_silent_line_secs: Seconds = seconds(
        15,
        0.5,
        3600,
        "least silence of one line, while others tick, that makes it suspect; more if it is usually quiet",
    )
    ibkr_crossed_book_secs: Seconds = seconds(3, 0.5, 3600, "how long a book may be crossed or locked")
    ibkr_reconnect_max_secs: Seconds = seconds(
        2, 0.1, 300, "longest pause between two connects in the first half minute"
    )
    ibkr_reconnect_slow_secs: Seconds = seconds(
        60,
        0.1,
        3600,
        "longest pause between two connects after that, while connections are accepted and not answered (where "
        "nothing listens it stays at 5 s)",
    )
    ibkr_start_timeout_secs: Seconds = seconds(
        0, 0, 31_536_000, "a run that records nothing so long after its start gives up", least_means="it keeps trying"
    )
    ibkr_messages_per_second: Seconds = Field(
        20,
        ge=1,
        le=500,
        description="most messages to the gateway: a second, from 1 to 500; IBKR allows 50, or half the market data "
        "lines, to all clients of the account together",
    )
    ibkr_buffer_bytes: Whole = Field(
        67108864,
        ge=65536,
        le=17179869184,
        description="snapshots held while Redis is away: bytes, a whole number from 65536 to 17179869184",
    )
    ibkr_redis_min_replicas: Whole = whole(
        0, 0, 10, "replicas that must have a snapshot before it counts as stored", least_means="the master is enough"
    )
    ibkr_lease_ttl_secs: Seconds = seconds(5, 2, 300, "after so long without a sign of life an ingest is dead")
    ibkr_lease_wait_secs: Seconds = seconds(
        0, 0, 31_536_000, "how long a second ingest stands by before it gives up", least_means="it exits"
    )
    ibkr_standby: StandbyRole = Field(
        "off",
        description="whether a hot standby belongs to this recording: a run that finds another one recording connects, "
        "resolves and waits to take over, and a standby that is missing is alerted: on, off, or reserve (a run that "
        "gives the recording back once another one stands by)",
    )
    ibkr_standby_client_id: Whole = whole(807, 1, 2_000_000_000, "a standby's preferred client id")
    ibkr_flight_recorder_minutes: Seconds = bounded(
        "minutes,",
        5,
        0,
        240,
        "how much of the wire to the gateway is kept, and written out as a tape when something goes wrong",
        least_means="the flight recorder is off",
    )
    ibkr_flight_recorder_bytes: Whole = whole(
        67108864, 1048576, 17179869184, "most bytes that these minutes may take on disk"
    )
    ibkr_flight_recorder_dir: Path = Field(
        Path("flight_recorder"), description="where the flight recorder keeps them and its tapes: a folder"
    )
    ibkr_flight_recorder_keep: Whole = whole(20, 1, 10000, "tapes of the flight recorder that stay, the newest ones")
    ibkr_flight_recorder_keep_days: Seconds = bounded("days,", 30, 0.01, 36500, "how long they stay")
    ibkr_flight_recorder_keep_bytes: Whole = whole(
        536870912, 1048576, 1099511627776, "most bytes that they take together"
    )
    ibkr_metrics_port: Whole = whole(0, 0, 65535, "port of the Prometheus endpoint", least_means="none")
    ibkr_metrics_host: Host = Field(
        "127.0.0.1", description="address that the Prometheus endpoint listens on, without the port"
    )
    ibkr_web_host: Host = Field(
        "127.0.0.1",
        description="address that the web page listens on, without the port; elsewhere than on loopback it asks for a "
        "token",
    )
    ibkr_web_port: Whole = whole(3080, 0, 65535, "port of the web page", least_means="any that is free")
    ibkr_web_names: WebNames = Field(
        "",
        description="further host names that the web page answers to, such as a proxy's, parted by blanks or commas; "
        "empty: none",
    )
    ibkr_web_token: WebToken = Field(
        "",
        repr=False,
        description="token that the web page asks for: 16 to 256 of A-Z a-z 0-9 _ -; empty: none on loopback, "
        "elsewhere a new one at each start",
    )
    ibkr_log_level: LogLevel = Field("INFO", description="log level: one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    redis_url: RedisUrl = Field(
        "redis://localhost:6379/0",
        repr=False,
        description="Redis target: a URL redis://[user:password@]host[:port][/db], "
        "unix://[user:password@]/path/of/socket[?db=n], "
        "redis+sentinel://[user:password@]host[:port][,...]/name[/db] or "
        "redis+cluster://[user:password@]host[:port][,...]; with rediss in place of redis: TLS; "
        "/ ? # [ ] in a password are written %2F %3F %23 %5B %5D",
    )
    redis_tls_ca_file: File = Field(
        "", description="with rediss://, whose signature to trust: the path of a PEM file; empty: the system's"
    )
    redis_tls_cert_file: File = Field(
        "", description="with rediss://, the client certificate to show: the path of a PEM file; empty: none is shown"
    )
    redis_tls_key_file: File = Field(
        "", description="with rediss://, the client certificate's key: the path of a PEM file; empty: none"
    )
    archive_url: ArchiveUrl = Field(
        "archive",
        description="where the archiver keeps Parquet files: a folder, or a URL that fsspec knows, such as "
        "s3://bucket/depth, without user and password",
    )
    archive_flush_secs: Seconds = seconds(15, 0.1, 3600, "longest that a snapshot waits for its file")
    archive_flush_rows: Whole = Field(
        2500,
        ge=1,
        le=1_000_000,
        description="snapshots of a symbol that make a file: a whole number from 1 to 1000000; a quarter of "
        "IBKR_STREAM_MAXLEN or less, so that none is cut before it is kept",
    )
    archive_retention_days: Whole = whole(
        0, 0, 36500, "days that are kept before the newest data", least_means="everything is kept"
    )
    archive_rows: bool = Field(
        False,
        description="whether the archiver keeps the rows of depth as well, if the recorder stores them "
        "(IBKR_STREAM_ROWS): true or false",
    )
    ibkr_dagster_keep_days: Whole = whole(
        0, 0, 36500, "days that Dagster keeps checks and observations", least_means="it keeps all of them"
    )
    ibkr_stop_at_close: bool = Field(
        True,
        description="whether a run of Dagster's follows the markets' hours (refused outside a session, ended at its "
        "close) where its config does not say: true or false",
    )
    ibkr_observe_secs: Seconds = Field(
        240,
        ge=0.5,
        le=86400,
        description="how often a run reports its figures to Dagster: seconds, from 0.5 to 86400; Dagster plots the "
        "last 100",
    )
    ibkr_automation: Switch = Field(
        "on", description="whether Dagster's schedules and sensors run unless someone switches them: on or off"
    )
    ibkr_code_location: CodeLocation = Field(
        "all",
        description="what this code location of Dagster's holds: all, or, if hosts have one each, recording (jobs, "
        "schedules and watchdog of the gateways) or monitoring (their heartbeat checks and alerts, and the archive)",
    )
    ibkr_calendar: Calendar = Field(
        "XNYS",
        description="whose hours count if none are listed: a calendar of exchange_calendars, such as XNYS or 24/7",
    )
    ibkr_session: SessionKind = Field(
        "instruments",
        description="whose session Dagster's runs follow: that of the universe's instruments, or calendar",
    )
    ibkr_probe_lead_minutes: Whole = Field(
        45, ge=1, le=720, description="the probe runs so long before the open: minutes, a whole number from 1 to 720"
    )
    ibkr_ingest_lead_minutes: Whole = Field(
        5, ge=0, le=15, description="the ingest starts so long before the open: minutes, a whole number from 0 to 15"
    )
    ibkr_probe_failed: ProbeFailed = Field(
        "start",
        description="what the scheduled ingest does when the day's last probe found depth for no symbol: start or "
        "hold, with an alert either way",
    )
    alert_urls: AlertUrls = Field(
        "",
        repr=False,
        description="where alerts go besides the log: URLs of apprise, parted by blanks or commas, such as "
        "slack://... mailto://... json://...; a comma within one is written %2C; empty: nowhere",
    )
    deadman_url: DeadmanUrl = Field(
        "",
        repr=False,
        description="a dead man's switch, such as healthchecks.io or Uptime Kuma: an http or https URL that the "
        "heartbeat sensor asks for each minute while all is well, and with /fail behind its path (or status=down) "
        "while not; {gateway} in it stands for IBKR_GATEWAY_NAME; empty: none",
    )
    ibkr_alert_after_secs: Seconds = Field(
        30, ge=0, le=3600, description="trouble that lasts so long is alerted, and its end likewise: seconds, 0 to 3600"
    )
    ibkr_alert_grace_secs: Seconds = seconds(
        60, 0, 3600, "after the open and after a start nothing is alerted for one rotation and so long"
    )
    symbol_config_path: Path = Field(
        Path("config/ibkr_symbols.yaml"), description="universe and venue overrides: the path of a YAML file"
    )
    gateways_config_path: Path = Field(
        Path("config/gateways.yaml"),
        description="the gateways, if there are several: the path of a YAML file; without it, the one gateway that "
        "these settings name",
    )

    @property
    def redis_url_masked(self) -> str:
        """The Redis target without its password."""
        return mask_url(self.redis_url)

    @property
    def alert_targets(self) -> tuple[str, ...]:
        """Each URL of ALERT_URLS. Any part of them may be a secret."""
        return split_urls(self.alert_urls)

    @property
    def deadman_target(self) -> str:
        """DEADMAN_URL of this gateway. Its path may be a secret."""
        return self.deadman_url.replace("{gateway}", self.ibkr_gateway_name)

    @property
    def redis_target(self) -> str:
        """The URL to connect to: REDIS_URL with the TLS files. It may hold a password."""
        given = {
            "ssl_ca_certs": self.redis_tls_ca_file,
            "ssl_certfile": self.redis_tls_cert_file,
            "ssl_keyfile": self.redis_tls_key_file,
        }
        options = [f"{name}={quote(path)}" for name, path in given.items() if path]
        if not options:
            return self.redis_url
        return f"{self.redis_url}{'&' if '?' in self.redis_url else '?'}{'&'.join(options)}"


def load_settings(**overrides: Any) -> Settings:
    """The settings from `overrides` (field names; None means not given), the environment, `.env`, and the defaults.

    The first that names a setting wins. Raises ConfigurationError, which lists every bad key at once.
    """
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # its bare text; unreadable_env_lines says more
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - set(Settings.model_fields))
    if unknown:
        raise ConfigurationError("settings", [f"{name.upper()}: there is no such setting" for name in unknown])
    try:
        return _consistent(Settings(**given))
    except ValidationError as refused:
        raise ConfigurationError("settings", [_problem(error) for error in refused.errors()]) from None
    except (OSError, UnicodeDecodeError) as unreadable:
        raise ConfigurationError(".env", [f"can't be read: {unreadable}"]) from None


def names_without_setting() -> list[str]:
    """Names in the environment and `.env` that begin as ours do but are no setting: misspelt, most likely."""
    named = {name.lower() for name in os.environ}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        named |= set(DotEnvSettingsSource(Settings).env_vars)
    return sorted(name.upper() for name in named - set(Settings.model_fields) if name.startswith("ibkr_"))


def unreadable_env_lines() -> list[str]:
    """One problem for each line of `.env` that sets nothing, with its number; no value is shown."""
    path = Path(str(Settings.model_config["env_file"]))
    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError):
        return []
    return [
        f"{path.absolute()}, line {_line_of(each)}: {_name_in(each.original.string)!r} sets nothing; write NAME=value"
        for each in bindings
        if each.error or (each.key is not None and each.value is None)
    ]


def _line_of(binding: Binding) -> int:
    """The number of the line of a binding, which begins with the blank lines before it."""
    text = binding.original.string
    return int(binding.original.line) + text[: len(text) - len(text.lstrip())].count("\n")


def _name_in(line: str) -> str:
    """The first word of the line, without what follows a colon: that may be a secret."""
    return re.split(r"[:=\s]", line.strip(), maxsplit=1)[0][:64]


def _consistent(settings: Settings) -> Settings:
    names = ("redis_tls_ca_file", "redis_tls_cert_file", "redis_tls_key_file")
    files = {name: getattr(settings, name) for name in names}
    problems = []
    if not is_encrypted(settings.redis_url):
        problems = [
            f"{name.upper()}={path!r} is not allowed; without REDIS_URL=rediss://... nothing is encrypted"
            for name, path in files.items()
            if path
        ]
    elif bool(settings.redis_tls_cert_file) != bool(settings.redis_tls_key_file):
        problems = ["REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: set both or neither"]
    if problems:
        raise ConfigurationError("settings", problems)
    return settings


def _problem(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]).lower()
    field = Settings.model_fields[name]
    value = error["input"]
    shown = mask_url(str(value)) if name == "redis_url" or "://" in str(value) else value
    if name in ("alert_urls", "deadman_url", "ibkr_web_token"):
        shown = MASK
    reason = f" ({error['ctx']['error']})" if name == "redis_url" and "error" in error.get("ctx", {}) else ""
    return f"{name.upper()}={shown!r} is not allowed{reason}; {field.description} (default {field.default})"
