"""The probe's side of Redis: whether an ingest runs, and the venue hashes. Redis may be unavailable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.hours.instruments import MarketHours
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.probe.report import DECIDED, IngestSign, Outcome, RedisUse, SymbolReport
from ibkr_depth_pipeline.redis_link.failures import as_unavailable
from ibkr_depth_pipeline.schema.encoding import venue_fields
from ibkr_depth_pipeline.schema.keys import heartbeat_key, lease_key, venue_key
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.status import StatusPublisher

_SCAN_COUNT = 1000


@dataclass(frozen=True, slots=True)
class RecordedRefusal:
    """The refusal in the venue hash of a symbol without depth; checked_ts is unix ms."""

    reason: str
    checked_ts: int


class VenueStore:
    """The venue hashes in the Redis of `url`. Methods raise SinkUnavailable, with the reason, without the password."""

    def __init__(self, url: str) -> None:
        self._client = open_redis(url)
        self._url = url

    async def heartbeats(self) -> dict[str, int]:
        """Every symbol of any universe that has a heartbeat -> unix ms of its last row."""
        prefix = heartbeat_key("")
        with as_unavailable(self._url):
            keys = [key async for key in self._client.scan_iter(match=f"{prefix}*", count=_SCAN_COUNT)]
            # One GET each: a cluster keeps the keys in different slots, and one may expire in between.
            values = {_text(key).removeprefix(prefix): await self._client.get(key) for key in keys}
        return {symbol: int(value) for symbol, value in values.items() if value is not None and value.isdigit()}

    async def is_leased(self, gateway_name: str) -> bool:
        """Whether an ingest holds the lease of that name: the only trace of one that has had no rows yet."""
        with as_unavailable(self._url):
            return bool(await self._client.exists(lease_key(gateway_name)))

    async def refusals(self, symbols: Iterable[str]) -> dict[str, RecordedRefusal]:
        """The symbols that have no depth by their venue hash."""
        with as_unavailable(self._url):
            found = {symbol: await self._refusal(symbol) for symbol in symbols}
        return {symbol: refusal for symbol, refusal in found.items() if refusal is not None}

    async def _refusal(self, symbol: str) -> RecordedRefusal | None:
        supported, reason, checked_ts = await self._client.hmget(
            venue_key(symbol), ["depth_supported", "reason", "checked_ts"]
        )
        if supported != b"0":
            return None
        return RecordedRefusal(_text(reason or b""), int(checked_ts or 0))

    async def record(self, resolution: Resolution, reason: str, checked_ts: int) -> None:
        """Stores the venue hash; an instrument with a reason has no depth."""
        with as_unavailable(self._url):
            await self._client.hset(venue_key(resolution.symbol), mapping=venue_fields(resolution, checked_ts, reason))

    async def publish_hours(self, gateway_name: str, hours: Mapping[str, MarketHours]) -> None:
        """Stores the hours of these instruments beside those of others that are known."""
        await StatusPublisher(self._client, gateway_name).publish_hours(hours)

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.aclose()


class VenueCache:
    """The probe's use of Redis. Never raises: a failure is kept in `use` and `error`, and ends the use of Redis.

    url None: without Redis. gateway_name: an ingest that uses the same slots holds the lease of that name.
    """

    def __init__(self, url: str | None, gateway_name: str) -> None:
        self._gateway_name = gateway_name
        self._store = VenueStore(url) if url is not None else None
        self._refusals: dict[str, RecordedRefusal] = {}
        self._log = get_log()
        self.use = RedisUse.OFF if url is None else RedisUse.NOT_REACHED
        self.error = ""
        self.ingest: IngestSign | None = None

    async def detect_ingest(self, symbols: Sequence[str]) -> bool | None:
        """Whether an ingest runs; None if that is unknown. Sets `ingest`."""
        if self._store is None or self.use is RedisUse.UNAVAILABLE:
            return None
        try:
            beats = await self._store.heartbeats()
            runs = bool(beats) or await self._store.is_leased(self._gateway_name)
            self._refusals = await self._store.refusals(symbols) if runs else {}
        except SinkUnavailable as error:
            self._disable(error)
            return None
        self.ingest = IngestSign(beats, unix_ms()) if runs else None
        return runs

    def beside_ingest(self, report: SymbolReport) -> SymbolReport:
        """The report of a symbol that was not subscribed to because of an ingest, with what the ingest recorded."""
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

    async def record(
        self, outcomes: Iterable[tuple[Resolution, SymbolReport]], hours: Mapping[str, MarketHours]
    ) -> None:
        """Stores each decided outcome and the markets' hours, as far as an ingest does not store them itself.

        Outcomes: nothing while an ingest runs, under any name. Hours: unless the lease of this name is held. A
        symbol's heartbeat outlives its run, so it is no sign that somebody publishes hours.
        """
        if self._store is None or self.use is RedisUse.UNAVAILABLE:
            return
        decided = [each for each in outcomes if each[1].outcome in DECIDED] if self.ingest is None else []
        try:
            for resolution, report in decided:
                reason = "" if report.outcome is Outcome.DEPTH else report.reason
                await self._store.record(resolution, reason, unix_ms())
            if not await self._store.is_leased(self._gateway_name):
                await self._store.publish_hours(self._gateway_name, hours)
            self.use = RedisUse.RECORDED if self.ingest is None else RedisUse.READ_ONLY
        except SinkUnavailable as error:
            self._disable(error)

    async def close(self) -> None:
        """Closes the connection."""
        if self._store is not None:
            await self._store.close()

    def _disable(self, error: SinkUnavailable) -> None:
        self._log.warning("redis_unavailable", error=str(error))
        self.use, self.error = RedisUse.UNAVAILABLE, str(error)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
