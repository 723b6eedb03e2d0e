"""A real client beside a simulated gateway, which may be made to fail for some symbols."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.gateway.venues import ContractAnswer, ContractQuery
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway


class OddGateway(TwsGateway):
    """The real client, except that the questions about some symbols go wrong."""

    failures: dict[str, GatewayError] = {}  # noqa: RUF012

    async def contracts(self, wanted: ContractQuery, timeout: float = 10) -> list[ContractAnswer]:
        if wanted.symbol in self.failures:
            raise self.failures[wanted.symbol]
        return await super().contracts(wanted, timeout)


@asynccontextmanager
async def connected(options: GatewayOptions, **failures: GatewayError) -> AsyncIterator[tuple[Any, OddGateway]]:
    async with SimulatedGateway(options) as simulated:
        client = OddGateway(
            simulated.host,
            simulated.port,
            request_ids=itertools.count(1),
            callbacks=GatewayCallbacks(),
            connect_timeout=5,
            messages_per_second=100,
        )
        client.failures = failures
        await client.connect([777])
        try:
            yield simulated, client
        finally:
            client.disconnect()
