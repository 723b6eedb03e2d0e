"""The socket as a client without a browser has it: what comes at once, what the slow one gets, what is passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from ibkr_depth_pipeline.web.viewers import WINDOW
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.web.conftest import WebServer
from ibkr_depth_pipeline_tests.web.market import SYMBOLS, RecordedMarket

SILENCE_SECS = 0.5


@contextmanager
def viewer(web: WebServer) -> Iterator[ClientConnection]:
    with connect(web.address.replace("http", "ws", 1) + "live", compression=None) as socket:
        yield socket


def receive(socket: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(socket.recv(timeout=PATIENCE_SECS))
    return found


def until(socket: ClientConnection, kind: str, **values: Any) -> dict[str, Any]:
    """The next message of a kind that has these values; all that come are acknowledged."""
    for count in range(1, 10_000):
        message = receive(socket)
        socket.send(json.dumps({"got": count}))
        if message["k"] == kind and all(message[name] == value for name, value in values.items()):
            return message
    raise AssertionError(f"no {kind} came")


def test_newcomer_gets_the_state_at_once(web: WebServer, market: RecordedMarket) -> None:
    with viewer(web) as socket:
        assert receive(socket)["k"] == "state"
        while (state := until(socket, "state"))["feed"]["counts"].get("turns") != market.figures.turns:
            pass
        while [row[0] for row in state["rows"]] != list(SYMBOLS):  # names are looked for every ten seconds only
            state = until(socket, "state")


def test_frame_holds_the_book_of_the_symbol_that_is_watched(web: WebServer, market: RecordedMarket) -> None:
    with viewer(web) as socket:
        socket.send('{"watch": "QQQ"}')
        until(socket, "frame", symbol="QQQ")
        seq = market.row("QQQ", 523.4)
        while (frame := until(socket, "frame", symbol="QQQ"))["book"][1] != seq:
            pass
        assert frame["book"][2][0] == [523.4, 107.0, "NSDQ"]
        socket.send('{"watch": ""}')
        for _ in range(3):
            last = until(socket, "state")
        assert last["k"] == "state"


def test_viewer_that_acknowledges_nothing_gets_a_window_and_then_the_newest(
    web: WebServer, market: RecordedMarket
) -> None:
    with viewer(web) as socket:
        socket.send('{"watch": "SPY"}')
        got = []
        while len(got) < WINDOW:
            market.row("SPY", 555.0)
            got.append(receive(socket))
        with pytest.raises(TimeoutError):  # the frames go on, and none of them waits in a queue for this viewer
            receive_within(socket, SILENCE_SECS)
        seq = market.row("SPY", 777.0)
        with pytest.raises(TimeoutError):
            receive_within(socket, SILENCE_SECS)
        socket.send(json.dumps({"got": WINDOW}))
        kinds = {}
        while len(kinds) < 3:
            message = receive(socket)
            kinds.setdefault(message["k"], message)
        assert kinds["frame"]["book"][1] == seq
        assert kinds["frame"]["n"] > max(each["n"] for each in got if each["k"] == "frame") + 1
        assert kinds["thinned"]["frames"] > 0


@pytest.mark.faults  # new names are looked for every ten seconds
def test_symbol_that_becomes_known_after_it_was_asked_for_is_followed(web: WebServer, market: RecordedMarket) -> None:
    """As after a restart of the server, when browsers are back before the first poll."""
    with viewer(web) as socket:
        socket.send('{"watch": "LATER"}')
        market.row("LATER", 12.5)
        names = {**market.figures.symbols, "LATER": market.figures.symbols["QQQ"]}
        market.publish(symbols=names)
        assert until(socket, "frame", symbol="LATER")["book"][2][0][0] == 12.5


def test_entry_of_another_schema_is_named_and_the_page_goes_on(web: WebServer, market: RecordedMarket) -> None:
    with viewer(web) as socket:
        market.redis.hset("raw:ibkr:depth:last:SPY", "ts", "yesterday")
        while not (state := until(socket, "state"))["problem"]:
            pass
        assert "the last-value hash of SPY" in state["problem"]
        market.row("SPY", 10.0)
        while state["problem"]:
            state = until(socket, "state")


def receive_within(socket: ClientConnection, secs: float) -> bytes | str:
    return socket.recv(timeout=secs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '{"watch": 7}',
        '{"watch": "NOPE"}',
        '{"got": "many"}',
        '{"got": -1}',
        '{"got": 1e400}',
        "[" * 900,
        b"\xff\x00",
    ],
    ids=str,
)
def test_message_that_means_nothing_is_passed_over(web: WebServer, market: RecordedMarket, text: str | bytes) -> None:
    with viewer(web) as socket:
        socket.send(text)
        until(socket, "state")
        socket.send('{"watch": "SPY"}')
        until(socket, "frame", symbol="SPY")


def test_message_that_is_too_long_ends_its_own_socket_alone(web: WebServer, market: RecordedMarket) -> None:
    with viewer(web) as socket, viewer(web) as other:
        socket.send("x" * 5_000)
        with pytest.raises(ConnectionError):
            raise_if_closed(socket)
        until(other, "state")


def raise_if_closed(socket: ClientConnection) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        for _ in range(1_000):
            socket.recv(timeout=PATIENCE_SECS)
    except ConnectionClosed as closed:
        raise ConnectionError from closed
