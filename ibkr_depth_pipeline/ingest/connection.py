"""The connection to the gateway: made under the first client id that is answered, and again after a loss.

The pace is that of gateway/connecting.py. If nothing listens, TCP alone is tried every few seconds; if connections are
accepted and not answered, each is held open until the next one is due, so that a late greeting is processed at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.errors import ClientIdsExhausted, GatewayError, GatewayNotListening
from ibkr_depth_pipeline.gateway.connecting import ConnectBackoff, ConnectRound
from ibkr_depth_pipeline.gateway.endpoint import Greeting
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings

STABLE_SECS = 10.0
"""A connection that stood for so long was a good one: the next loss begins the back-off anew."""

LOG_AGAIN_SECS = 300.0
"""A failure that stays the same is logged the first few times, then at most this often."""

_LOGGED_FIRST = 3


def ids_to_try(settings: Settings, first: int | None = None) -> range:
    """The client ids from the preferred one (IBKR_CLIENT_ID, or `first`) to the last allowed one."""
    begin = settings.ibkr_client_id if first is None else first
    return range(begin, begin + settings.ibkr_client_id_max_offset + 1)


def log_connected(settings: Settings, gateway: TwsGateway, client_id: int) -> Greeting:
    """Log that the gateway is connected to under that client id, and what is wrong with its greeting, if anything."""
    greeting, log = gateway.greeting, get_log()
    log.info(
        "connected",
        host=settings.ibkr_host,
        port=settings.ibkr_port,
        client_id=client_id,
        server_version=greeting.version,
        connection_time=greeting.connection_time,
    )
    if greeting.warning:
        log.warning("gateway_outdated", problem=greeting.warning)
    return greeting


class GatewayConnection:
    """`connect` or `reconnect`, then `use`; `lose` when the gateway is gone, then `reconnect` and `use` again.

    `lost` is set from a loss to the next attempt, `in_use` from `use` to a loss. on_attempt is called before each
    connection that is tried: what earlier ones have sent no longer counts. `greeting` is that of the newest connection
    that was made, `client_id` its id, `failure` why the newest attempt of `reconnect` came to nothing. first_id, if
    given, is preferred to IBKR_CLIENT_ID.
    """

    first_id: int | None = None
    client_id = 0

    def __init__(self, gateway: TwsGateway, settings: Settings, on_attempt: Callable[[], None] = lambda: None) -> None:
        self._gateway = gateway
        self._settings = settings
        self._on_attempt = on_attempt
        self._backoff = ConnectBackoff(settings.ibkr_reconnect_max_secs, settings.ibkr_reconnect_slow_secs)
        self._due = -math.inf
        self._connected_at = math.inf
        self._log = get_log()
        self.lost = asyncio.Event()
        self.in_use = asyncio.Event()
        self.greeting = Greeting()
        self.failure: GatewayError | None = None

    async def connect(self) -> None:
        """One round. Raises ClientIdsExhausted where every id is taken, GatewayUnavailable where nothing answers."""
        await self._round(math.inf)

    async def reconnect(self, until: float = math.inf) -> None:
        """Try until the gateway answers, with back-off and without end.

        until: the loop's time at which to raise the last error instead, as `connect` does.
        """
        self._gateway.disconnect()
        began, again, failures = loop_time(), self.lost.is_set(), FailureLog()
        self._begin(began)
        for attempt in itertools.count(1):
            await asyncio.sleep(max(0.0, min(self._due, until) - loop_time()))
            try:
                await self._round(until)
            except GatewayError as error:
                if (
                    self.failure is None or loop_time() < until
                ):  # else the attempt was cut short: the error before is more precise
                    self.failure = error
                if until <= max(loop_time(), self._due):
                    raise self.failure from None
                if failures.is_worth_a_line(attempt, str(error), loop_time()):
                    pause = max(0.0, self._due - loop_time())
                    self._log.warning("connect_failed", error=str(error), attempt=attempt, pause_secs=round(pause, 3))
            else:
                self.failure = None
                if again or attempt > 1:
                    self._log.info("reconnected", attempts=attempt, away_secs=round(loop_time() - began, 3))
                return

    def _begin(self, now: float) -> None:
        """The back-off goes on where the last connection did not last."""
        if now - self._connected_at >= STABLE_SECS or self._due == -math.inf:
            self._backoff.begin(now)
            self._due = now
        self._connected_at = math.inf

    async def _round(self, until: float) -> None:
        """One round over the client ids. Afterwards `_due` says when the next one may begin."""
        settings, began = self._settings, loop_time()
        pause = self._backoff.pause(began)
        self._due = began + pause
        self.lost.clear()  # before the attempt: the new connection may be lost at once
        self._on_attempt()
        terms = ConnectRound(self._id_taken, self._id_unanswered, patience=pause, until=until, backoff=self._backoff)
        try:
            client_id = await self._gateway.connect(self._ids_to_try(), terms=terms)
        except GatewayNotListening:
            self._due = began + self._backoff.of_refused(pause)
            raise
        except ClientIdsExhausted:  # each id was a connection: the pace is that of connections
            self._due = began + min(pause * len(self._ids_to_try()), max(pause, settings.ibkr_reconnect_slow_secs))
            self._backoff.accepted(loop_time())
            raise
        except GatewayError:
            self._backoff.accepted(loop_time())
            raise
        self._backoff.accepted(loop_time())
        self._connected(client_id)

    def _ids_to_try(self) -> range:
        return ids_to_try(self._settings, self.first_id)

    def _connected(self, client_id: int) -> None:
        self.client_id = client_id
        self.greeting = log_connected(self._settings, self._gateway, client_id)
        self._connected_at = loop_time()

    def _id_taken(self, client_id: int) -> None:
        self._log.warning("client_id_in_use", client_id=client_id, code=326)
        self._on_attempt()

    def _id_unanswered(self, client_id: int) -> None:
        self._log.warning(
            "client_id_unanswered",
            client_id=client_id,
            secs=self._settings.ibkr_connect_timeout_secs,
            hint="an earlier connection may hold this id at the gateway; see IBKR_CLIENT_ID",
        )
        self._on_attempt()

    def use(self) -> bool:
        """Take the new connection into use. False: it is lost again already."""
        if self.lost.is_set():
            return False
        self.in_use.set()
        return True

    def lose(self) -> None:
        """Note that the connection is gone, closed by either side."""
        self.in_use.clear()
        self.lost.set()


class FailureLog:
    """Which failures are worth a line: the first few, each with a new reason, then one every LOG_AGAIN_SECS. Pure."""

    def __init__(self) -> None:
        self._reason = ""
        self._logged_at = -math.inf

    def is_worth_a_line(self, attempt: int, reason: str, now: float) -> bool:
        """To be asked once for each failed attempt, numbered from 1."""
        same = reason == self._reason
        if same and attempt > _LOGGED_FIRST and now - self._logged_at < LOG_AGAIN_SECS:
            return False
        self._reason, self._logged_at = reason, now
        return True
