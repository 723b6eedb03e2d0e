"""The probe's few dealings with Redis: who is alive, what was recorded, and the venue hash. Everything may be away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.schema.encoding import venue_fields
from ibkr_depth_pipeline.schema.keys import heartbeat_key, lease_key, venue_key
from ibkr_depth_pipeline.settings import mask_url
from ibkr_depth_pipeline.sink.connection import open_redis

_SCAN_COUNT = 1000


@dataclass(frozen=True, slots=True)
class RecordedRefusal:
    """What a venue hash says of a symbol without depth; checked_ts is unix ms."""

    reason: str
    checked_ts: int


class VenueStore:
    """The Redis of `url`. Every method raises SinkUnavailable, with the reason and without the password."""

    def __init__(self, url: str) -> None:
        self._client = open_redis(url)
        self._where = f"Redis at {mask_url(url)}"

    async def heartbeats(self) -> dict[str, int]:
        """Every symbol with a live heartbeat, whoever's universe it is of, and the unix ms of its last row."""
        prefix = heartbeat_key("")
        try:
            keys = [key async for key in self._client.scan_iter(match=f"{prefix}*", count=_SCAN_COUNT)]
            # One GET each: a cluster keeps the keys in different slots, and one may expire in between.
            values = {_text(key).removeprefix(prefix): await self._client.get(key) for key in keys}
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        return {symbol: int(value) for symbol, value in values.items() if value is not None and value.isdigit()}

    async def is_leased(self, gateway_name: str) -> bool:
        """Whether an ingest holds the lease of that name. One whose lines have had no row yet shows nothing else."""
        try:
            return bool(await self._client.exists(lease_key(gateway_name)))
        except UNREACHABLE as error:
            raise self._unavailable(error) from None

    async def refusals(self, symbols: Iterable[str]) -> dict[str, RecordedRefusal]:
        """The symbols whose venue hash says that they have no depth."""
        try:
            found = {symbol: await self._refusal(symbol) for symbol in symbols}
        except UNREACHABLE as error:
            raise self._unavailable(error) from None
        return {symbol: refusal for symbol, refusal in found.items() if refusal is not None}

    async def _refusal(self, symbol: str) -> RecordedRefusal | None:
        supported, reason, checked_ts = await self._client.hmget(
            venue_key(symbol), ["depth_supported", "reason", "checked_ts"]
        )
        if supported != b"0":
            return None
        return RecordedRefusal(_text(reason or b""), int(checked_ts or 0))

    async def record(self, resolution: Resolution, reason: str, checked_ts: int) -> None:
        """Store the venue hash; an instrument with a reason is one that has no depth."""
        try:
            await self._client.hset(venue_key(resolution.symbol), mapping=venue_fields(resolution, checked_ts, reason))
        except UNREACHABLE as error:
            raise self._unavailable(error) from None

    async def close(self) -> None:
        """Give the connection back."""
        await self._client.aclose()

    def _unavailable(self, error: Exception) -> SinkUnavailable:
        return SinkUnavailable(f"{self._where}: {str(error) or type(error).__name__}")


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
