"""The types of the settings: what each kind of value may be. Pure but for the files that a value names."""

from __future__ import annotations

import re
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ibkr_depth_pipeline.redis_link.url import parse_redis_url


def _check_redis_url(url: str) -> str:
    parse_redis_url(url)
    return url


def _check_host(host: str) -> str:
    # A colon is an IPv6 address, or a port that belongs into IBKR_PORT.
    if ":" in host:
        ip_address(host)
    elif not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", host):
        raise ValueError("no host name")
    return host


def _check_archive_url(url: str) -> str:
    # It is shown in logs: secrets belong into the environment or the files of the store's own library.
    if not url or "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("no place for an archive")
    return url


def _check_alert_urls(urls: str) -> str:
    # Only the form is checked; apprise knows what a URL means. No error holds a part of it: any part may be secret.
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", url) for url in split_urls(urls)):
        raise ValueError("one of them is no URL")
    return urls


def split_urls(urls: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+", urls.strip(" ,\n\t")) if part)


def _check_file(path: str) -> str:
    if path and not Path(path).is_file():
        raise ValueError("no such file")
    return path


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _number(value: object) -> object:
    # YAML's yes and Python's 1_5 would pass.
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError("no number")
    return value


Whole = Annotated[int, Field(strict=False), BeforeValidator(_number)]
Seconds = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Host = Annotated[str, AfterValidator(_check_host)]
RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]  # a part of keys
ArchiveUrl = Annotated[str, AfterValidator(_check_archive_url)]
AlertUrls = Annotated[str, AfterValidator(_check_alert_urls)]
DeadmanUrl = Annotated[str, Field(pattern=r"^(https?://[^\s/]+\S*)?$")]  # no error shows it: its path is a secret
Calendar = Annotated[str, Field(pattern=r"^[A-Za-z0-9_/-]{1,32}$")]  # exchange_calendars knows which exist
Switch = Annotated[Literal["on", "off"], BeforeValidator(_lower)]
StandbyRole = Annotated[Literal["on", "off", "reserve"], BeforeValidator(_lower)]
SessionKind = Annotated[Literal["instruments", "calendar"], BeforeValidator(_lower)]
CodeLocation = Annotated[Literal["all", "recording", "monitoring"], BeforeValidator(_lower)]
ProbeFailed = Annotated[Literal["start", "hold"], BeforeValidator(_lower)]
File = Annotated[str, AfterValidator(_check_file)]
WebNames = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:\[\]\s,-]*$", max_length=1024)]
WebToken = Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{16,256})?$")]  # no error shows it
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]


def bounded(kind: str, default: float, least: float, most: float, what: str, least_means: str = "") -> Any:
    """A field of a setting from `least` to `most`, both named in its description."""
    lowest = f"{least} ({least_means})" if least_means else least
    return Field(default, ge=least, le=most, description=f"{what}: {kind} from {lowest} to {most}")


whole = partial(bounded, "a whole number")
seconds = partial(bounded, "seconds,")
