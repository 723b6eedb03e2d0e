"""Who may read the page: Host, Origin, token; pure, and once over a real socket."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from ibkr_depth_pipeline.web.access import COOKIE, AccessPolicy
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.web.conftest import WebServer

LOOPBACK = AccessPolicy.of("127.0.0.1", "depth.example, other.example", "")
REMOTE = AccessPolicy.of("0.0.0.0", "depth.example", "a-token-of-24-characters")


def status(policy: AccessPolicy, token: str = "", **headers: str) -> int:
    """200, or the status of the refusal."""
    refusal = policy.refusal({name.replace("_", "-"): value for name, value in headers.items()}, token)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:3080", "localhost", "LOCALHOST:9999", "127.8.8.8", "[::1]:3080", "depth.example", "Other.Example.:80"],
)
def test_server_on_loopback_answers_to_loopback_and_its_names(host: str) -> None:
    assert status(LOOPBACK, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.7:3080", "a@127.0.0.1"),
        *("127.0.0.1/../evil", "[::1", "127.0.0.1:3080:80", "[fe80::1%25eth0]", "127.0.0.1:0x50", "é.example"),
    ],
)
def test_server_on_loopback_answers_to_no_other_host(host: str) -> None:
    assert status(LOOPBACK, host=host) == 421


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:3080", 200),
        ("https://127.0.0.1:3080", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://127.0.0.1", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://127.0.0.1:3080", 403),
    ],
)
def test_origin_must_be_the_page_itself(origin: str, expected: int) -> None:
    assert status(LOOPBACK, host="127.0.0.1:3080", origin=origin) == expected


def test_server_elsewhere_than_on_loopback_asks_for_a_token() -> None:
    assert status(REMOTE, host="192.168.0.7:3080") == 401
    assert status(REMOTE, host="192.168.0.7:3080", token="a-token-of-24-characterS") == 401
    assert status(REMOTE, host="192.168.0.7:3080", token="a-token-of-24-characters") == 200
    assert status(REMOTE, host="depth.example", authorization="Bearer a-token-of-24-characters") == 200
    assert status(REMOTE, host="depth.example", cookie=f"x=1; {COOKIE}=a-token-of-24-characters") == 200
    assert status(REMOTE, host="depth.example", cookie=f"{COOKIE}=") == 401
    assert status(REMOTE, host="evil.example", token="a-token-of-24-characters") == 421


def test_token_is_made_only_where_one_is_needed() -> None:
    assert LOOPBACK.token == ""
    made = AccessPolicy.of("192.168.0.7", "", "")
    assert len(made.token) >= 32
    assert made.token != AccessPolicy.of("192.168.0.7", "", "").token
    assert made.token not in repr(made)


class Client:
    """Requests with headers that a browser would not send."""

    def __init__(self, web: WebServer) -> None:
        self._place = urlsplit(web.address).netloc

    def get(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._place, timeout=PATIENCE_SECS)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        try:
            answer = connection.getresponse()
            if answer.status != 101:
                answer.read()
            return answer
        finally:
            connection.close()

    def upgrade(self, **headers: str) -> int:
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        return self.get("/live", **{**handshake, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers}).status


def test_every_answer_has_a_strict_policy(web: WebServer) -> None:
    client = Client(web)
    for path in ("/", "/assets/main.js", "/nothing", "/tile?symbol=SPY"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    refused = client.get("/", Host="evil.example")
    assert (refused.status, "default-src 'none'" in refused.headers["Content-Security-Policy"]) == (421, True)


def test_other_hosts_and_origins_are_refused_everywhere(web: WebServer) -> None:
    client = Client(web)
    for path in ("/", "/assets/main.js", "/tile?symbol=SPY&step=100&number=1"):
        assert client.get(path, Host="evil.example").status == 421
        assert client.get(path, Origin="http://evil.example").status == 403
    assert client.upgrade(Host="evil.example") == 421
    assert client.upgrade(Origin="http://evil.example") == 403
    assert client.upgrade(Origin=web.address.rstrip("/")) == 101
    assert client.upgrade() == 101


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_page_is_read_only(web: WebServer, method: str) -> None:
    assert Client(web).get("/", method).status == 405
    assert Client(web).get("/tile", method).status == 405


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("symbol=SPY&step=100&number=1", 200),
        ("symbol=SPY&step=7&number=1", 400),
        ("symbol=SPY&step=100&number=-1", 400),
        ("symbol=SPY&step=100&number=99999999999999999999", 400),
        ("symbol=SPY&step=100&number=1.5", 400),
        ("symbol=SPY&step=100", 400),
        ("symbol=NOPE&step=100&number=1", 404),
        ("symbol=SPY%00*&step=100&number=1", 404),
        ("step=100&number=1", 404),
    ],
)
def test_tiles_are_refused_that_can_not_be(web: WebServer, market: object, query: str, expected: int) -> None:
    assert Client(web).get(f"/tile?{query}").status == expected
