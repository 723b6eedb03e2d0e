"""Runs `ibkr_depth_web`: the reader and the web server beside each other, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.tasks import signals_caught
from ibkr_depth_pipeline.web.access import AccessPolicy
from ibkr_depth_pipeline.web.application import application
from ibkr_depth_pipeline.web.market_feed import MarketFeed
from ibkr_depth_pipeline.web.reports import Reports
from ibkr_depth_pipeline.web.viewers import Viewers

MOST_VIEWERS = 500
LARGEST_MESSAGE = 1024
"""Bytes of a message from a browser; all of them are short."""

FAREWELL_SECS = 2
"""How long requests under way may take once the server is to end."""


class PortTaken(DepthPipelineError):
    """The page can't be served at its address."""


class _Server(uvicorn.Server):
    """uvicorn's, with signals left to us: it would raise them again afterwards and so end with their exit codes."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; `announce` gets the address. Raises PortTaken."""
    policy = AccessPolicy.of(settings.ibkr_web_host, settings.ibkr_web_names, settings.ibkr_web_token)
    listener = _listen(settings.ibkr_web_host, settings.ibkr_web_port)
    viewers = Viewers(MOST_VIEWERS)
    feed = MarketFeed(settings.redis_target, settings.ibkr_gateway_name, viewers)
    server = _Server(
        uvicorn.Config(
            application(feed, viewers, policy, Reports(settings.archive_url)),
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=LARGEST_MESSAGE,
            ws_per_message_deflate=False,  # a message is encoded once; deflating would be done for each viewer
            log_config=None,
            log_level="warning",
            access_log=False,  # addresses may hold the token
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=FAREWELL_SECS,
        )
    )
    announce(_address(listener, policy))
    with signals_caught(lambda _: setattr(server, "should_exit", True)):
        await _beside(feed, server, listener)


async def _beside(feed: MarketFeed, server: uvicorn.Server, listener: socket.socket) -> None:
    """Both until one ends; an error of either ends the other and is raised."""
    reading = asyncio.ensure_future(feed.run())
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    await asyncio.wait([reading, serving], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortTaken(
            f"can't listen on {host}, port {port}: {reason}; set IBKR_WEB_HOST and IBKR_WEB_PORT to a free one"
        ) from None


def _address(listener: socket.socket, policy: AccessPolicy) -> str:
    """The address to open, with the token if one is asked for."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname() if socket.gethostname().lower() in policy.names else "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={policy.token}" if policy.token else "")
