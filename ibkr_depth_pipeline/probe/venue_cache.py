"""The probe's side of Redis: whether an ingest runs, and what becomes of the venue hashes. It may be away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.probe.report import DECIDED, IngestSign, Outcome, RedisUse, SymbolReport
from ibkr_depth_pipeline.probe.store import RecordedRefusal, VenueStore


class VenueCache:
    """What Redis knows. Nothing here raises: a Redis that fails is noted once in `use` and `error`, then left alone.

    url None: without Redis. gateway_name is the one whose lease an ingest of the same slots holds.
    """

    def __init__(self, url: str | None, gateway_name: str) -> None:
        self._gateway_name = gateway_name
        self._store = VenueStore(url) if url is not None else None
        self._refusals: dict[str, RecordedRefusal] = {}
        self._log = get_log()
        self.use = RedisUse.OFF if url is None else RedisUse.NOT_REACHED
        self.error = ""
        self.ingest: IngestSign | None = None

    async def look_for_ingest(self, symbols: Sequence[str]) -> bool | None:
        """Whether an ingest runs; None where that can't be known. Sets `ingest`."""
        if self._store is None or self.use is RedisUse.UNAVAILABLE:
            return None
        try:
            beats = await self._store.heartbeats()
            runs = bool(beats) or await self._store.is_leased(self._gateway_name)
            self._refusals = await self._store.refusals(symbols) if runs else {}
        except SinkUnavailable as error:
            self._away(error)
            return None
        self.ingest = IngestSign(beats, unix_ms()) if runs else None
        return runs

    def beside_ingest(self, report: SymbolReport) -> SymbolReport:
        """A symbol that was not subscribed to for the ingest's sake, with what the ingest itself knows of it."""
        if self.ingest is None or report.outcome is not Outcome.VENUE_ONLY:
            return report
        last_row, refusal = self.ingest.heartbeats.get(report.symbol), self._refusals.get(report.symbol)
        if last_row is not None:
            age = max(0, self.ingest.seen_ts - last_row) / 1000
            return replace(report, l2=True, reason=f"the running ingest has its book (row {age:.0f} s ago)")
        if refusal is not None:
            age = max(0, self.ingest.seen_ts - refusal.checked_ts) / 1000
            reason = f"recorded {age:.0f} s ago: {refusal.reason or 'no depth'}"
            return replace(report, outcome=Outcome.REFUSED, l2=False, reason=reason)
        return report

    async def record(self, findings: Iterable[tuple[Resolution, SymbolReport]]) -> None:
        """Store what was decided. The rest stays as it is recorded, and so does everything beside a running ingest."""
        if self._store is None or self.use is RedisUse.UNAVAILABLE:
            return
        if self.ingest is not None:
            self.use = RedisUse.READ_ONLY
            return
        try:
            for resolution, report in findings:
                if report.outcome in DECIDED:
                    reason = "" if report.outcome is Outcome.DEPTH else report.reason
                    await self._store.record(resolution, reason, unix_ms())
            self.use = RedisUse.RECORDED
        except SinkUnavailable as error:
            self._away(error)

    async def close(self) -> None:
        """Give the connection back."""
        if self._store is not None:
            await self._store.close()

    def _away(self, error: SinkUnavailable) -> None:
        self._log.warning("redis_unavailable", error=str(error))
        self.use, self.error = RedisUse.UNAVAILABLE, str(error)
