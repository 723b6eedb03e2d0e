"""URLs of a Redis: what they may be, what they mean, which options they set, and what of them may be shown. Pure.

    redis://[user:password@]host[:port][/db]                                one server
    unix://[user:password@]/path/of/socket[?db=n]                           one server
    redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/db]  the master `name` of these Sentinels
    redis+cluster://[user:password@]host[:port][,host[:port]...]            the cluster that these nodes belong to

With rediss in place of redis every connection is encrypted, also those to Sentinels. No text of an error that is raised
here holds a part of a URL: any part of a malformed one may be the password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK = "***"

REDIS_PORT, SENTINEL_PORT = 6379, 26379

SENTINEL_TIMEOUT_SECS = 1.0
"""How long one Sentinel may take before the next one is asked."""

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)"
_URL = re.compile(
    rf"""(?P<scheme>rediss?(?:\+(?:cluster|sentinel))?|unix)://
        (?:(?P<user>[^/?#\[\]\s]*)@)?
        (?P<hosts>{_HOST}(?::[0-9]+)?(?:,{_HOST}(?::[0-9]+)?)*)
        (?P<path>/[^?#@\s]*)?
        (?:\?(?P<query>[^#@\s]*))?""",
    re.VERBOSE,
)
_NODE = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>[0-9]+))?")
_HARMLESS_TEXT = re.compile(r"(?:[a-z+]+://)?[A-Za-z0-9._-]*(?::[0-9]{1,5})?(?:/[A-Za-z0-9_]*)*")
_SCHEME = re.compile(r"[a-z+]+://")

_SHOWN_OPTIONS = frozenset({"db", "client_name"})
_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
)
_SECRET_OPTIONS = frozenset({"username", "password"})
_SENTINEL_SECRETS = frozenset({"sentinel_username", "sentinel_password"})
_TLS_SECRETS = frozenset({"ssl_password"})
_CERT_REQS = ("none", "optional", "required")
_NOT_IN_CLUSTERS = frozenset({"ssl_ca_path", "ssl_password"})  # redis-py's client for clusters has no such options


class Kind(str, Enum):
    """What stands behind a URL."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """A URL, read. `nodes` are (host, port) of Sentinels or of nodes of a cluster, empty for one server.

    `service` is the name that Sentinels know their master by. `plain` is a URL that redis-py itself knows, with all
    that holds for a connection to any of the servers, so with the password.
    """

    kind: Kind
    plain: str
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    def __repr__(self) -> str:
        return f"RedisTarget({self.address})"

    @property
    def address(self) -> str:
        """Its hosts or path, fit for a log."""
        if self.kind is Kind.SERVER:
            match = _match(self.plain)
            nodes = _nodes(match["hosts"], REDIS_PORT) if match["hosts"] else ()
            return _shown(nodes) or unquote(match["path"] or "")
        what = "cluster of" if self.kind is Kind.CLUSTER else f"{self.service} of the Sentinels"
        return f"{what} {_shown(self.nodes)}"


def parse_redis_url(url: str) -> RedisTarget:
    """What `url` means. Raises ValueError, with the reason, for what redis-py would refuse, misread or take for granted
    only when it connects."""
    match = _match(url)
    if not _splits(url, match):
        raise ValueError("it is no such URL")
    scheme, _, how = match["scheme"].partition("+")
    kind = Kind(how or "server")
    if kind is not Kind.SERVER:
        return _several(kind, scheme, match)
    if scheme == "unix":
        _check_socket(match)
    else:
        _check_server(match)
    _check_options(match, scheme == "rediss")
    return RedisTarget(kind, url)


def connection_options(connect_timeout: float, answer_timeout: float) -> dict[str, Any]:
    """redis-py's options of every connection: bounded in time (seconds), no command of its own, replies as RESP2."""
    return {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": answer_timeout,
        "health_check_interval": 0,
        "protocol": 2,
    }


def sentinel_options(target: RedisTarget) -> dict[str, Any]:
    """redis-py's options of a connection to a Sentinel, beyond those: its user and its time-out."""
    return {
        "socket_connect_timeout": SENTINEL_TIMEOUT_SECS,
        "socket_timeout": SENTINEL_TIMEOUT_SECS,
        "username": target.sentinel_username,
        "password": target.sentinel_password,
    }


def mask_url(url: str) -> str:
    """`url` without its password, fit for a log; the same text if it can't hold one.

    A well-formed Redis URL keeps all but its secrets. Of anything else that might hold a secret only the scheme is
    left: of a malformed URL it is unknown which part of it is the password.
    """
    text = url.strip()
    match = _URL.fullmatch(text)
    if match is None or (match["scheme"] != "unix" and not match["hosts"]):
        if _HARMLESS_TEXT.fullmatch(text):
            return text
        scheme = _SCHEME.match(text)
        return f"{scheme[0]}{MASK}" if scheme else MASK
    user, query = match["user"], match["query"]
    masked = text if user is None else text.replace(f"{user}@", f"{_masked_user(user)}@", 1)
    return masked if query is None else masked.replace(f"?{query}", f"?{_masked_query(query)}", 1)


def is_encrypted(url: str) -> bool:
    """Whether its connections are."""
    return url.startswith("rediss")


def _match(url: str) -> re.Match[str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("it is no such URL")
    return match


def _several(kind: Kind, scheme: str, match: re.Match[str]) -> RedisTarget:
    nodes = _nodes(match["hosts"], SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT)
    if not all(host for host, _ in nodes):
        raise ValueError("it names no host, or an empty one")
    service, db = _service_of(match) if kind is Kind.SENTINEL else ("", _no_db(match))
    _check_options(match, scheme == "rediss", kind)
    options = dict(parse_qsl(match["query"] or ""))
    kept = "&".join(f"{name}={quote(text, safe='')}" for name, text in options.items() if name not in _SENTINEL_SECRETS)
    user = "" if match["user"] is None else f"{match['user']}@"
    plain = f"{scheme}://{user}{_shown(nodes[:1])}/{db}{'?' if kept else ''}{kept}"
    return RedisTarget(kind, plain, nodes, service, options.get("sentinel_username"), options.get("sentinel_password"))


def _nodes(hosts: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = [_NODE.fullmatch(each) for each in hosts.split(",")]
    return tuple((node["host"].strip("[]"), int(node["port"] or default_port)) for node in found if node is not None)


def _shown(nodes: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in nodes)


def _service_of(match: re.Match[str]) -> tuple[str, int]:
    path = re.fullmatch(r"/(?P<service>[A-Za-z0-9_.-]+)(?:/(?P<db>[0-9]{1,9}))?", match["path"] or "")
    if path is None:
        raise ValueError("the Sentinels are followed by /name-of-the-master and, if need be, /number-of-the-database")
    return path["service"], int(path["db"] or 0)


def _no_db(match: re.Match[str]) -> int:
    if match["path"] not in (None, "/", "/0"):
        raise ValueError("a cluster has no database but 0")
    return 0


def _splits(url: str, match: re.Match[str]) -> bool:
    try:  # each node by itself, as redis-py will see it
        before, after = url[: match.start("hosts")], url[match.end("hosts") :]
        return all(urlsplit(f"{before}{host}{after}").port != 0 for host in match["hosts"].split(","))
    except ValueError:  # its text may hold the password
        return False


def _check_socket(match: re.Match[str]) -> None:
    if match["hosts"] or len(match["path"] or "") < 2:
        raise ValueError("the path of the socket begins with a third slash")


def _check_server(match: re.Match[str]) -> None:
    if "," in match["hosts"]:
        raise ValueError("several hosts are a cluster's or Sentinels'")
    if not match["hosts"] or match["hosts"].startswith(":"):
        raise ValueError("it names no host")
    if not re.fullmatch(r"/?|/[0-9]{1,9}", match["path"] or ""):
        raise ValueError("the database is no number")


def _check_options(match: re.Match[str], encrypted: bool, kind: Kind = Kind.SERVER) -> None:
    # Anything else would reach redis-py's constructors, and change how the writer's connections behave.
    allowed = _SHOWN_OPTIONS | _SECRET_OPTIONS
    if encrypted:
        allowed |= _TLS_OPTIONS | _TLS_SECRETS
    if kind is Kind.SENTINEL:
        allowed |= _SENTINEL_SECRETS
    if kind is not Kind.SERVER:
        allowed -= {"db"}
    if kind is Kind.CLUSTER:
        allowed -= _NOT_IN_CLUSTERS
    options = parse_qsl(match["query"] or "", keep_blank_values=True)
    if not {name for name, _ in options} <= allowed:
        raise ValueError(f"options after the ? may be {', '.join(sorted(allowed))}")
    for name, value in options:
        if name == "db" and not re.fullmatch("[0-9]{1,9}", value):
            raise ValueError("the database is no number")
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            raise ValueError(f"ssl_cert_reqs is one of {', '.join(_CERT_REQS)}")


def _masked_user(user: str) -> str:
    name, colon, _ = user.partition(":")
    return f"{name}:{MASK}" if colon else MASK


def _masked_query(query: str) -> str:
    shown = _SHOWN_OPTIONS | _TLS_OPTIONS
    return "&".join(option if option.partition("=")[0] in shown else MASK for option in query.split("&"))
