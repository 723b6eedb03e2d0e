"""The connection to the gateway: made under the first client id that is free, and made anew after a loss."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings

FIRST_BACKOFF_SECS = 0.1


class GatewayConnection:
    """`connect`, then `use`; `lose` when the gateway is gone, then `reconnect` and `use` again.

    `lost` is set from a loss to the next attempt, `in_use` from `use` to a loss. on_attempt is called before each
    connection that is tried: what earlier ones have said no longer counts.
    """

    def __init__(self, gateway: TwsGateway, settings: Settings, on_attempt: Callable[[], None] = lambda: None) -> None:
        self._gateway = gateway
        self._settings = settings
        self._on_attempt = on_attempt
        self._log = get_log()
        self.lost = asyncio.Event()
        self.in_use = asyncio.Event()

    async def connect(self) -> None:
        """One attempt. Raises ClientIdsExhausted where every id is taken, GatewayUnavailable where nothing answers."""
        settings = self._settings
        ids = range(settings.ibkr_client_id, settings.ibkr_client_id + settings.ibkr_client_id_max_offset + 1)
        self.lost.clear()  # before the attempt: the new connection may be lost at once
        self._on_attempt()
        client_id = await self._gateway.connect(ids, self._id_taken)
        self._log.info(
            "connected",
            host=settings.ibkr_host,
            port=settings.ibkr_port,
            client_id=client_id,
            server_version=self._gateway.server_version,
        )

    def _id_taken(self, client_id: int) -> None:
        self._log.warning("client_id_in_use", client_id=client_id, code=326)
        self._on_attempt()

    async def reconnect(self) -> None:
        """Try again until the gateway answers, for ever: cancel it where the run is to end."""
        self._gateway.disconnect()
        began = _now()
        for attempt in itertools.count(1):
            try:
                await self.connect()
            except GatewayError as error:
                pause = pause_after(attempt, self._settings.ibkr_reconnect_max_secs)
                self._log.warning("connect_failed", error=str(error), attempt=attempt, pause_secs=round(pause, 3))
                await asyncio.sleep(pause)
            else:
                self._log.info("reconnected", attempts=attempt, away_secs=round(_now() - began, 3))
                return

    def use(self) -> bool:
        """What `connect` has made is put to use. False: it is lost again, already."""
        if self.lost.is_set():
            return False
        self.in_use.set()
        return True

    def lose(self) -> None:
        """It is gone, whoever closed it."""
        self.in_use.clear()
        self.lost.set()


def pause_after(attempt: int, longest: float) -> float:
    """Seconds to wait after the failed attempt of that number, from 1: they double up to `longest`, with jitter."""
    doubled: float = FIRST_BACKOFF_SECS * 2 ** min(attempt, 20)
    return min(longest, doubled) * random.uniform(0.5, 1.0)


def _now() -> float:
    return asyncio.get_running_loop().time()
