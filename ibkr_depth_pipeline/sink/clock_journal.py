"""What happened to the host's clock, as a stream beside the snapshots: when their `ts` is not the time of the row."""

from __future__ import annotations

from typing import NamedTuple

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.redis_link.pipeline import ask
from ibkr_depth_pipeline.schema.keys import clock_key

MAXLEN = 1000


class ClockEntry(NamedTuple):
    """At unix ms `at`, by the clock as it then was, it had been set by step_ms; `ts` stands until the clock is at
    stands_until, 0 if it does not."""

    at: int
    step_ms: int
    stands_until: int


async def keep_entry(client: Client, name: str, entry: ClockEntry) -> None:
    """Append it to the stream of the ingest `name`. A failure is logged and costs nothing else."""
    fields = [word for field in entry._asdict().items() for word in field]
    try:
        await ask(client, [("XADD", clock_key(name), "MAXLEN", "~", MAXLEN, "*", *fields)])
    except UNREACHABLE as error:
        get_log().warning("clock_step_not_stored", error=str(error) or type(error).__name__)
