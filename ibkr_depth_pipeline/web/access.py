"""Who may read the page: the Host and the Origin of a request, and the token. Nothing of it is ever logged.

A page of another site can make a browser send requests here. It can't choose the Host or the Origin that the browser
sends with them, so both are compared with the names that this server answers to (DNS rebinding, cross-site sockets).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

COOKIE = "ibkr_depth_web"
LONGEST_PART = 512
"""Characters of a Host, an Origin or a token that are looked at."""


class Refusal(NamedTuple):
    """Why a request is refused: the status of HTTP and the words of the answer."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """What a request must have. `names`: the host names that are answered to besides the address itself.

    token: "" asks for none, which is for servers on loopback alone.
    """

    host: str
    names: frozenset[str] = frozenset()
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, host: str, names: str, token: str) -> AccessPolicy:
        """The policy of a server on `host`. `names` are parted by blanks or commas; elsewhere than on loopback a
        token is made if none is given."""
        known = frozenset(name.lower().rstrip(".") for name in names.replace(",", " ").split())
        return cls(host, known, token if token or is_loopback(host) else secrets.token_urlsafe(24))

    def refusal(self, headers: Mapping[str, str], token: str) -> Refusal | None:
        """Why a request with these headers (names in lower case) is refused; None if it is not.

        `token` is the one of its address, "" if it has none.
        """
        host = headers.get("host", "")[:LONGEST_PART]
        if not self._answers_to(host):
            allowed = "; for another name or a proxy set IBKR_WEB_NAMES" if "@" not in host else ""
            return Refusal(421, f"This server does not answer to the host of this address{allowed}.")
        origin = headers.get("origin")
        if origin is not None and not _is_same(origin[:LONGEST_PART], host):
            return Refusal(403, "Requests of other sites are refused.")
        if self.token and not self._is_known(token, headers):
            return Refusal(401, "A token is needed: open the address that ibkr_depth_web printed when it started.")
        return None

    def admits(self, token: str) -> bool:
        """Whether this is the token."""
        return bool(self.token) and hmac.compare_digest(token[:LONGEST_PART].encode(), self.token.encode())

    def _is_known(self, token: str, headers: Mapping[str, str]) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown = (token, bearer if scheme.lower() == "bearer" else "", _cookie(headers.get("cookie", "")))
        return any(self.admits(each) for each in shown if each)

    def _answers_to(self, host: str) -> bool:
        name = _name_of(host)
        if name in self.names:
            return True
        if is_loopback(self.host):
            return is_loopback(name)
        # a name can be pointed at any address, while an address in the place of a name is what the user has typed
        return name == self.host.lower() or is_loopback(name) or _is_address(name)


def is_loopback(host: str) -> bool:
    """Whether this name or address means this machine and no other."""
    return host.lower() == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """The name or address of a Host header, in lower case, without its port; "" if it is not sound."""
    try:
        parts = urlsplit(f"//{host}")
        sound = bool(host) and parts.netloc == host and "@" not in host and parts.port != 0
        return (parts.hostname or "").rstrip(".") if sound else ""
    except ValueError:
        return ""


def _is_same(origin: str, host: str) -> bool:
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest.lower() == host.lower()


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
