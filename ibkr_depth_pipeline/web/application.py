"""The application: the page and its assets, the socket that frames are pushed through, the tiles. All read-only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ibkr_depth_pipeline import drawing
from ibkr_depth_pipeline.errors import SchemaMismatch, SinkUnavailable
from ibkr_depth_pipeline.tui.observed import TileSpan
from ibkr_depth_pipeline.web.access import COOKIE, AccessPolicy
from ibkr_depth_pipeline.web.market_feed import MarketFeed
from ibkr_depth_pipeline.web.reports import Reports
from ibkr_depth_pipeline.web.tiles import COLUMNS, STEPS_MS
from ibkr_depth_pipeline.web.viewers import Viewer, Viewers

ASSETS = Path(__file__).parent / "assets"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""On every answer that has none of its own. `no-cache` lets a browser keep the assets, and ask whether they are still
these."""

TOO_MANY = 1013
"""The code with which the socket of one viewer too many is closed: try again later."""

SILENT_SECS = 30.0
"""A viewer that acknowledges nothing for so long is let go; its page connects again when it wakes."""


def application(feed: MarketFeed, viewers: Viewers, policy: AccessPolicy, reports: Reports) -> ASGIApp:
    """The page of what `feed` reads and publishes to `viewers`, and the reports of days."""
    page = _Page(viewers, feed)
    routes = [
        Route("/", page.page, methods=["GET"]),
        Route("/tile", page.tile, methods=["GET"]),
        Route("/reports/{day}", reports.page, methods=["GET"]),
        WebSocketRoute("/live", page.live),
        Mount("/assets/drawing", StaticFiles(directory=drawing.FOLDER)),
        Mount("/assets", StaticFiles(directory=ASSETS)),
    ]
    return Guarded(Starlette(routes=routes), policy)


class _Page:
    def __init__(self, viewers: Viewers, feed: MarketFeed) -> None:
        self._viewers = viewers
        self._feed = feed

    async def page(self, _: Request) -> Response:
        return FileResponse(ASSETS / "page.html")

    async def tile(self, request: Request) -> Response:
        """`?symbol=SPY&step=100&number=14166666666`: columns of the heat map, see tile_message."""
        symbol = request.query_params.get("symbol", "")
        step, number = (_whole(request.query_params.get(each, "")) for each in ("step", "number"))
        if step not in STEPS_MS or number is None:
            allowed = ", ".join(map(str, STEPS_MS))
            return PlainTextResponse(f"step must be one of {allowed}, number a whole number from 0\n", 400)
        if not self._feed.knows(symbol):
            return PlainTextResponse("no such symbol is recorded\n", 404)
        try:
            message = await self._feed.tiles.tile(symbol, TileSpan(step, number, COLUMNS))
        except (SinkUnavailable, SchemaMismatch) as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(message, media_type="application/json")

    async def live(self, socket: WebSocket) -> None:
        await socket.accept()
        viewer = self._viewers.join()
        if viewer is None:
            await socket.close(TOO_MANY, "too many viewers")
            return
        sending = asyncio.ensure_future(_send(socket, viewer))
        try:
            while True:
                # `receive_bytes` would raise at a text; nothing that a browser sends may cost more than its own socket
                message = await asyncio.wait_for(socket.receive(), SILENT_SECS)
                if message["type"] == "websocket.disconnect":
                    break
                self._heed(viewer, message.get("text") or message.get("bytes") or b"")
        except (asyncio.TimeoutError, TimeoutError):
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(TOO_MANY, "nothing acknowledged")
        finally:
            self._viewers.leave(viewer)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def _heed(self, viewer: Viewer, text: str | bytes) -> None:
        """What a viewer may ask: `{"watch": "SPY"}` and `{"got": 12}`. All else is passed over."""
        try:
            asked = orjson.loads(text)
        except orjson.JSONDecodeError:
            return
        match asked:
            case {"watch": str(symbol)}:
                self._feed.watch(viewer, symbol)
            case {"got": int(count)}:
                viewer.acknowledge(count)


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            for message in await viewer.take():
                await socket.send_bytes(message)


def _whole(text: str) -> int | None:
    """A whole number from 0 to 2^53, as JavaScript has them."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 17 else None


# ---- what every request passes


class Guarded:
    """`app` behind the access policy; every answer bears HEADERS."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, socket, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        token = connection.query_params.get("token", "")
        refusal = self._policy.refusal(connection.headers, token)
        if refusal is not None:
            answer: ASGIApp = PlainTextResponse(f"{refusal.reason}\n", refusal.status)
        elif scope["type"] == "http" and token and self._policy.admits(token):
            answer = self._signed_in(scope)
        else:
            answer = self._app
        await answer(scope, receive, _with_headers(send, HEADERS))

    def _signed_in(self, scope: Scope) -> Response:
        """The address without its token, which from now on is in a cookie: it must not stand in the history."""
        response = RedirectResponse(scope["path"], 303)
        response.set_cookie(
            COOKIE, self._policy.token, httponly=True, samesite="strict", secure=scope["scheme"] == "https"
        )
        return response


def _with_headers(send: Send, headers: dict[str, str]) -> Callable[[Message], Awaitable[Any]]:
    more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            own = message.get("headers", [])
            names = {name for name, _ in own}
            message["headers"] = [*own, *(header for header in more if header[0] not in names)]
        await send(message)

    return sending
