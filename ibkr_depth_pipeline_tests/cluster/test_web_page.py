"""The web page and the terminal's history of whatever Redis the reader can read: cluster, Sentinels, a Unix socket."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.tui.history import History
from ibkr_depth_pipeline.tui.poller import Poller
from ibkr_depth_pipeline.tui.state import Liveness, Quote
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, Servers
from ibkr_depth_pipeline_tests.web.conftest import WebServer
from ibkr_depth_pipeline_tests.web.market import SYMBOLS, RecordedMarket
from ibkr_depth_pipeline_tests.web.test_socket import receive, until, viewer

FAR_MS = 300_000


def recorded(client: Any) -> RecordedMarket:
    """Five minutes ago a turn of SPY, which ended; now another."""
    market, now = RecordedMarket(client), unix_ms()
    market.redis.delete("raw:ibkr:depth:stream:SPY")
    market.row("SPY", 111.0, ts=now - FAR_MS)
    market.turn("SPY", now - FAR_MS, now - FAR_MS + 60_000)
    market.row("SPY", 222.0)
    return market


def shows_what_it_holds(url: str, market: RecordedMarket, folder: Path) -> None:
    web = WebServer(url, folder)
    try:
        with viewer(web) as socket:
            newest: dict[str, Any] = {}
            while len(newest.get("state", {"rows": ()})["rows"]) < len(SYMBOLS) or "lanes" not in newest:
                message = receive(socket)
                newest[message["k"]] = message
            assert {row[0] for row in newest["state"]["rows"]} == set(SYMBOLS)
            assert [turn[3] for turn in newest["lanes"]["lanes"]["SPY"]] == ["turn_over"]
            socket.send('{"watch": "SPY"}')
            seq = market.row("SPY", 333.0)
            while (frame := until(socket, "frame", symbol="SPY"))["book"][1] != seq:
                pass
            assert frame["book"][2][0][0] == 333.0
        then = (unix_ms() - FAR_MS + 30_000) // 12_000
        with urllib.request.urlopen(f"{web.address}tile?symbol=SPY&step=100&number={then}") as answer:
            assert json.load(answer)["columns"][0][2][0][0] == 111.0
    finally:
        web.end()


def test_page_shows_what_a_cluster_or_a_watched_master_holds(several: Servers, tmp_path: Path) -> None:
    with several.client() as client:
        shows_what_it_holds(several.url, recorded(client), tmp_path)


def test_page_shows_what_a_redis_behind_a_unix_socket_holds(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with EmbeddedRedis(extra_args=("--unixsocket", str(path))) as server:
        market = recorded(server.url)
        shows_what_it_holds(f"unix://{path}", market, tmp_path)
        market.close()


def test_page_says_what_is_away_and_goes_on_when_a_cluster_has_a_new_master(
    cluster: ClusterOfRedis, tmp_path: Path
) -> None:
    with cluster.client() as client:
        market = recorded(client)
        web = WebServer(cluster.url, tmp_path)
        try:
            with viewer(web) as socket:
                socket.send('{"watch": "SPY"}')
                until(socket, "frame", symbol="SPY")
                dead = cluster.master_of("raw:ibkr:depth:stream:SPY")
                dead.kill()
                cluster.wait_for_another(dead, "raw:ibkr:depth:stream:SPY")
                until(socket, "state", problem="")
                with cluster.client() as survivors:
                    market.redis = survivors
                    seq = market.row("SPY", 444.0)
                while (frame := until(socket, "frame", symbol="SPY"))["book"][1] != seq:
                    pass
                assert frame["book"][2][0][0] == 444.0
        finally:
            web.end()


@pytest.fixture
def past() -> Callable[[str], Any]:
    async def read(url: str) -> tuple[Any, list[Quote | None]]:
        poller, history = Poller(url, "default"), History(url)
        try:
            now = await poller.poll()
            then = now.ts - FAR_MS + 30_000
            assert (await history.oldest("SPY") or 0) < then
            return await history.at(now, then), await history.quotes("SPY", then, 10_000, 6)
        finally:
            await history.aclose()
            await poller.aclose()

    return read


async def test_terminal_goes_back_in_whatever_redis_it_is(several: Servers, past: Callable[[str], Any]) -> None:
    with several.client() as client:
        recorded(client)
        state, quotes = await past(several.url)
    line = state.line("SPY")
    assert (line.bid, line.liveness) == (111.0, Liveness.LIVE)
    assert state.line("QQQ").book is None
    seen = [quote for quote in quotes if quote is not None]
    assert set(seen) == {Quote(111.0, 111.02)}
    assert quotes[0] is None
    assert len(quotes) == 6
