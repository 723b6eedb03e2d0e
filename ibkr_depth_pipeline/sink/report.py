"""Stores an ingest's own figures and its heartbeat, beside the rows and never before them."""

from __future__ import annotations

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.redis_link.pipeline import ask
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.keys import ingest_heartbeat_key, ingest_key
from ibkr_depth_pipeline.sink.figures import FeedFigures

REPORT_SECS = 2.0
"""How often an ingest tells its figures."""

HEARTBEAT_TTL_SECS = 15


class IngestReport:
    """The figures of the ingest called `name`. Call it from a task of its own: a call takes as long as Redis takes."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._key = ingest_key(name)
        self._heartbeat = ingest_heartbeat_key(name)
        self._failing = False

    async def tell(self, figures: FeedFigures) -> None:
        """Store `figures` and say that their run is alive, or, where they say that it ended, that it is not.

        A failure is logged, once, and costs nothing else: the next figures hold everything that these held.
        """
        alive: Command = ("SET", self._heartbeat, figures.run.run_id, "EX", HEARTBEAT_TTL_SECS)
        told: Command = ("SET", self._key, figures.to_json())
        try:
            await ask(self._client, [told, ("DEL", self._heartbeat) if figures.ended_ts else alive])
        except UNREACHABLE as error:
            if not self._failing:
                get_log().warning("figures_not_stored", error=str(error) or type(error).__name__)
            self._failing = True
        else:
            self._failing = False
