"""The probe as one blocking call: what the console script and the Dagster op wrap."""

from __future__ import annotations

import asyncio

from ibkr_depth_pipeline.probe.report import ProbeReport
from ibkr_depth_pipeline.probe.session import ProbeSession, Watch
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.signals import signals_caught
from ibkr_depth_pipeline.universe import Universe


def run_probe(
    settings: Settings,
    universe: Universe,
    *,
    record: bool = True,
    first_book_secs: float | None = None,
    watch: Watch | None = None,
) -> ProbeReport:
    """Probe every symbol of `universe`; the parameters are ProbeSession's.

    SIGINT and SIGTERM end it early, where Python lets us catch them (in the main thread): subscriptions are cancelled,
    and the report names the signal in `interrupted_by`. Raises GatewayUnavailable where the gateway can't be reached
    and ClientIdsExhausted where no client id is free; a symbol that fails, or a Redis that is away, raises nothing.
    """

    async def main() -> ProbeReport:
        session = ProbeSession(settings, universe, record=record, first_book_secs=first_book_secs, watch=watch)
        with signals_caught(session.stop):
            return await session.run()

    return asyncio.run(main())
