"""Contracts of the last day: what was resolved is kept in Redis, so that a start needs no answer to begin with.

A key per symbol that expires after a day. `entry` is the universe's entry as text: a contract of another entry is not
taken. Redis may be away: then nothing is kept or known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import ContractHours, Instrument
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.redis_link.pipeline import ask_each
from ibkr_depth_pipeline.schema.keys import contract_key

KEPT_SECS = 86_400
_AT_ONCE = 250


class ContractCache:
    """`note` what was resolved, `flush` every second or so; `load` at the start."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pending: dict[str, bytes] = {}

    def note(self, instrument: Instrument, entry: str) -> None:
        """Keep this contract for a day."""
        self._pending[instrument.symbol] = orjson.dumps({"entry": entry, "instrument": instrument})

    async def flush(self) -> None:
        """Store what was noted; a failure is logged, and tried again."""
        while self._pending:
            batch = dict(list(self._pending.items())[:_AT_ONCE])
            try:
                await ask_each(
                    self._client,
                    [("SET", contract_key(symbol), text, "EX", KEPT_SECS) for symbol, text in batch.items()],
                )
            except UNREACHABLE as error:
                get_log().warning("contracts_not_kept", error=str(error) or type(error).__name__)
                return
            for symbol, text in batch.items():
                if self._pending.get(symbol) == text:
                    del self._pending[symbol]

    async def load(self, entries: Mapping[str, str], now_ms: int) -> list[Instrument]:
        """The contracts that are known of these symbols, in their order; of futures, those that have not rolled."""
        try:
            texts = await ask_each(self._client, [("GET", contract_key(symbol)) for symbol in entries])
        except UNREACHABLE:
            return []
        found = [_instrument(text, entry) for text, entry in zip(texts, entries.values(), strict=True)]
        return [each for each in found if each is not None and not (each.rolls_at and each.rolls_at * 1000 <= now_ms)]


def _instrument(text: Any, entry: str) -> Instrument | None:
    """None for what is not there, of another entry, or of another version of this program."""
    if not isinstance(text, bytes):
        return None
    try:
        kept = orjson.loads(text)
        if kept["entry"] != entry:
            return None
        fields = kept["instrument"]
        lists = {name: tuple(fields[name]) for name in ("valid_exchanges", "alternatives")}
        return Instrument(**{**fields, **lists, "hours": ContractHours(**fields["hours"])})
    except (ValueError, KeyError, TypeError):
        return None
