"""The address of a gateway, its greeting, and the texts of failed connections, one line each. Pure.

`ibkr_ingest_run check`, `run` and the probe show these texts to the operator.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ibkr_depth_pipeline.errors import ClientIdsExhausted, GatewayNotListening, GatewayUnavailable
from ibkr_depth_pipeline.gateway.events import CLIENT_ID_IN_USE

OLDEST_SERVED_VERSION = 176
"""The protocol of TWS 10.19 and the highest that this client offers: every gateway that IBKR serves speaks it.

docs/ibkr-market-depth.md, "Wire protocol": gateways below 10.30 are no longer served since 2025-03-20. One that speaks
an older protocol is older than 10.19; 10.19 to 10.29 can't be recognized, as the protocol has no program version.
"""

_ADVICE_OF_CODE = {
    501: "this client is connected already: end the other process that uses {id_setting}={client_id}",
    502: "the gateway can't serve the API: is it logged in, is its API enabled, is IBKR_PORT={port} its socket port?",
    503: "TWS or IB Gateway is too old: install a version that IBKR still serves",
    504: "the gateway is not connected to IBKR: log in there, and close any dialog that waits for an answer",
    506: "TWS or IB Gateway is too old for this client's protocol: install a version that IBKR still serves",
    507: "the gateway can't read what it gets: is IBKR_PORT={port} the API's own port, without TLS or a proxy between, "
    "and does no other client use {id_setting}={client_id}?",
    10141: "accept the paper trading disclaimer in TWS or IB Gateway once",
}
"""Error code before the greeting -> advice (docs/ibkr-market-depth.md, "Error codes")."""

REJECTION_CODES = frozenset(_ADVICE_OF_CODE)
"""Codes that refuse the connection itself if they come before the greeting."""

_NOTHING_LISTENS = (
    "nothing listens there; is TWS or IB Gateway running, and is IBKR_PORT the port of its mode (TWS 7496 live, "
    "7497 paper; IB Gateway 4001 live, 4002 paper)? In TWS the API must be enabled: Configure > API > Settings, Enable "
    "ActiveX and Socket Clients (IB Gateway 10.41 has no such box any more)"
)
_UNREACHABLE = "no way there ({reason}); check IBKR_HOST and the network"
_NOT_ANSWERED = (
    "no answer within {secs:g} s although the connection was accepted; a login or a dialog may be waiting in TWS or IB "
    "Gateway, or it is still starting (IBKR_CONNECT_TIMEOUT_SECS is how long it may take)"
)
_ID_NOT_ANSWERED = (
    "no answer within {secs:g} s to client id {client_id}; an earlier connection may hold it, or a login or a dialog "
    "may be waiting in TWS or IB Gateway: set another {id_setting}, or restart it (IBKR_CONNECT_TIMEOUT_SECS is how "
    "long it may take)"
)
_CLOSED = (
    "the gateway closed the connection before it was ready; add this machine to its Trusted IPs (Configure > API > "
    "Settings), and check that IBKR_PORT={port} is the API's own port"
)
_NO_GATEWAY = "{reason}; is IBKR_PORT={port} the port of a TWS or an IB Gateway?"


@dataclass(frozen=True, slots=True)
class Greeting:
    """The protocol version in force, and the connection's time in the gateway's own words, time zone included."""

    version: int = 0
    connection_time: str = ""

    def __str__(self) -> str:
        since = f", connected at {self.connection_time}" if self.connection_time else ""
        return f"protocol version {self.version}{since}"

    @property
    def warning(self) -> str:
        """Why the gateway is outdated, or ""."""
        if not 0 < self.version < OLDEST_SERVED_VERSION:
            return ""
        return (
            f"protocol version {self.version} is older than {OLDEST_SERVED_VERSION}, which every TWS and IB Gateway "
            "that IBKR still serves speaks (10.30 and later since 2025-03-20): install a current one"
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Host and port of a gateway, and the setting that names the client id. Its methods make the connect errors."""

    host: str
    port: int
    id_setting: str = "IBKR_CLIENT_ID"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def no_connection(self, failure: OSError) -> GatewayNotListening:
        """TCP itself failed: refused, no route, no such host."""
        refused = isinstance(failure, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(failure)
        text = _NOTHING_LISTENS if refused else _UNREACHABLE.format(reason=failure)
        return GatewayNotListening(f"{self}: {text}")

    def not_answered(self, secs: float) -> GatewayUnavailable:
        """The connection was accepted, and no protocol version came back within `secs` seconds."""
        return GatewayUnavailable(f"{self}: {_NOT_ANSWERED.format(secs=secs)}")

    def id_not_answered(self, client_id: int, secs: float) -> GatewayUnavailable:
        """The version was agreed, and no answer to the client id came within `secs` seconds."""
        text = _ID_NOT_ANSWERED.format(secs=secs, client_id=client_id, id_setting=self.id_setting)
        return GatewayUnavailable(f"{self}: {text}")

    def rejected(self, client_id: int, code: int, text: str) -> GatewayUnavailable:
        """One of REJECTION_CODES came before the greeting."""
        advice = _ADVICE_OF_CODE[code].format(port=self.port, client_id=client_id, id_setting=self.id_setting)
        return GatewayUnavailable(f"{self}: the gateway answers {code} ({' '.join(text.split())}); {advice}")

    def closed(self, reason: str) -> GatewayUnavailable:
        """The connection was closed before the greeting; `reason`: what did not fit the protocol, or empty."""
        text = _NO_GATEWAY.format(reason=reason, port=self.port) if reason else _CLOSED.format(port=self.port)
        return GatewayUnavailable(f"{self}: {text}")

    def ids_in_use(self, first: int, last: int) -> ClientIdsExhausted:
        """Every client id from `first` to `last` was answered by 326."""
        return ClientIdsExhausted(
            f"{self}: every client id from {first} to {last} is in use ({CLIENT_ID_IN_USE}); "
            f"end the other client, or set {self.id_setting} or IBKR_CLIENT_ID_MAX_OFFSET"
        )
