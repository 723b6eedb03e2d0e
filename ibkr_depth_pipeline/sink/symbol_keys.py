"""The small keys of a symbol beside its stream: its contract of the last day, and who wants it in focus.

What was resolved is kept for a day, so that a start needs no answer of the gateway to begin with (`ContractCache`).
`entry` is the universe's entry as text: a contract of another entry is not taken. Redis may be away: then nothing is
kept or known.

Any program may ask, by a key with a TTL, that a symbol keeps a slot for a while (`request_focus`). The ingest that has
the symbol in its universe reads the key. Its value names who asks, for log and status.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.logs import RepeatedFailureLog
from ibkr_depth_pipeline.model import ContractHours, Instrument
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, text_of
from ibkr_depth_pipeline.redis_link.pipeline import ask, ask_each
from ibkr_depth_pipeline.schema.keys import contract_key, focus_key
from ibkr_depth_pipeline.sink.connection import redis_at

KEPT_SECS = 86_400
_AT_ONCE = 250


class ContractCache:
    """`note` what was resolved, `flush` every second or so; `load` at the start."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pending: dict[str, bytes] = {}
        self._failures = RepeatedFailureLog("contracts_not_kept", level=logging.WARNING)

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
                self._failures.record(text_of(error), loop_time())
                return
            self._failures.end(loop_time())
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


# ---- focus


_LONGEST_NAME = 64


class FocusRequest(NamedTuple):
    """Who asks for the symbol, and for how many seconds from now on."""

    symbol: str
    by: str
    secs: float


async def read_focus(client: Client, symbols: Sequence[str]) -> list[FocusRequest]:
    """The requests that stand, the longest last. A key of another type, or without a TTL, asks for nothing.

    Raises what is in UNREACHABLE.
    """
    values = await ask_each(client, [("GET", focus_key(symbol)) for symbol in symbols])
    asked = [(symbol, value) for symbol, value in zip(symbols, values, strict=True) if isinstance(value, bytes)]
    if not asked:
        return []
    left = await ask_each(client, [("PTTL", focus_key(symbol)) for symbol, _ in asked])
    found = [
        FocusRequest(symbol, value.decode(errors="replace")[:_LONGEST_NAME], ttl / 1000)
        for (symbol, value), ttl in zip(asked, left, strict=True)
        if isinstance(ttl, int) and ttl > 0
    ]
    return sorted(found, key=lambda request: request.secs)


async def request_focus(url: str, symbol: str, by: str, secs: float) -> None:
    """Ask for the symbol for so long from now on, or, with 0, no longer. Raises SinkUnavailable."""
    key = focus_key(symbol)
    async with redis_at(url) as client:
        await ask(client, [("SET", key, by, "PX", int(secs * 1000)) if secs else ("DEL", key)])
