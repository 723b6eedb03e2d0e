"""One writer per stream, across all IBKR_GATEWAY_NAMEs: a key per symbol that expires, renewed as the lease is.

The lease keeps two ingests of one name apart; claims keep two names off one symbol's stream. Claims are taken in the
order of the symbols' names, and an ingest that is refused gives back what it took behind that one: of two that start
at once, one gets them all. A run of the same name takes a predecessor's claim over, as it has the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

import orjson
from redis.exceptions import ResponseError

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import StreamHeld
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, as_unavailable, text_of
from ibkr_depth_pipeline.redis_link.pipeline import ask, ask_each
from ibkr_depth_pipeline.schema.keys import claim_key, contract_claim_key
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.sink.lease import LOOK_SECS, RELEASE_LEASE, HolderWatch, describe

AT_ONCE = 250
"""Claims in one pipeline, so that those of thousands of symbols hold up nothing else."""

CONTRACT_CLAIM_SECS, CONTRACT_RENEWAL_SECS = 60.0, 15.0
"""How long a claim of a contract stands, and how often it is renewed."""

Place = tuple[int, str]
"""A con_id and a venue; of two names of one venue always the same."""

_T = TypeVar("_T")
_INTERVAL_SECS, _CLAIMS_PER_SEC = 1.0, 1000
_HELD = b"held"

_CLAIM_STREAM = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  local readable, claim = pcall(cjson.decode, holder)
  if not (readable and type(claim) == 'table' and claim.gateway == ARGV[3]) then return holder end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'held'
"""
# ARGV: the claim's text, TTL in ms, the name of the gateway. Takes a free claim or one of the same name, and names the
# holder of any other.


class HeldStream(NamedTuple):
    """The first symbol, by name, whose stream is another's, and the text of that claim."""

    symbol: str
    holder: bytes


class StreamClaims:
    """The right to write the streams of `symbols` as `name`. `acquire`, then `keep` in a task; `release` at the end."""

    def __init__(self, client: Client, name: str, run: RunIdentity, symbols: Iterable[str], ttl_secs: float) -> None:
        self._client = client
        self._name = name
        self._text = orjson.dumps({"gateway": name, **asdict(run)})
        self._symbols = sorted(set(symbols))
        self._ttl_ms = int(ttl_secs * 1000)
        self._ttl_secs = ttl_secs
        self._log = get_log()

    @property
    def _interval(self) -> float:
        return min(self._ttl_secs / 4, max(_INTERVAL_SECS, len(self._symbols) / _CLAIMS_PER_SEC))

    def choose(self, symbols: Iterable[str]) -> None:
        """Claim these, and no others, at the next `acquire`. Nothing may be claimed so far."""
        self._symbols = sorted(set(symbols))

    async def acquire(self, wait_secs: float = 0.0) -> None:
        """Claim every stream, also a dead holder's, for which it waits until that one's time is over.

        If a holder is alive, it raises StreamHeld after `wait_secs`. Raises SinkUnavailable if Redis can't be
        reached.
        """
        deadline = monotonic() + wait_secs
        with as_unavailable():
            while (refusal := await self._claim_in_order(self._symbols)) is not None:
                self._log.warning("stream_held", symbol=refusal.symbol, holder=describe_claim(refusal.holder))
                await self._stand_by(refusal, deadline)

    async def _claim_in_order(self, symbols: Sequence[str]) -> HeldStream | None:
        for batch in _batches(symbols):
            replies = await self._claim(batch)
            for at, (symbol, reply) in enumerate(zip(batch, replies, strict=True)):
                if isinstance(reply, Exception):
                    raise reply
                if reply != _HELD:
                    await self._give_back(batch[at + 1 :])
                    return HeldStream(symbol, bytes(reply))
        return None

    async def _claim(self, symbols: Sequence[str]) -> list[Any]:
        """Each reply: held, the text of another's claim, or an exception. A key of another type claims nothing."""
        replies = await ask_each(
            self._client,
            [("EVAL", _CLAIM_STREAM, 1, claim_key(each), self._text, self._ttl_ms, self._name) for each in symbols],
        )
        return [_HELD if _is_of_another_type(reply) else reply for reply in replies]

    async def _stand_by(self, refusal: HeldStream, deadline: float) -> None:
        """Until the claim is free. Meanwhile the claims that are ours, those before it, are renewed."""
        watch, key = HolderWatch(refusal.holder), claim_key(refusal.symbol)
        ours = [symbol for symbol in self._symbols if symbol < refusal.symbol]
        renewed = monotonic()
        while not watch.is_free:
            await asyncio.sleep(LOOK_SECS)
            asked = monotonic()
            holder, ttl_ms = await ask(self._client, [("GET", key), ("PTTL", key)])
            watch.saw(holder, ttl_ms, asked, monotonic())
            if watch.holder_lives and monotonic() >= deadline:
                raise self._held_by_another(refusal.symbol, watch.holder)
            if monotonic() - renewed >= self._interval:
                await self._claim_in_order(ours)
                renewed = monotonic()

    async def add(self, symbols: Iterable[str]) -> None:
        """Claim these, too, without waiting: all or none. Raises StreamHeld, or SinkUnavailable."""
        new = sorted(set(symbols) - set(self._symbols))
        with as_unavailable():
            refusal = await self._claim_in_order(new)
            if refusal is not None:
                await self._give_back([symbol for symbol in new if symbol < refusal.symbol])
                raise self._held_by_another(refusal.symbol, refusal.holder)
        self._symbols = sorted([*self._symbols, *new])

    async def drop(self, symbols: Iterable[str]) -> None:
        """Give these back: nothing more will be written to them. Raises SinkUnavailable."""
        gone = set(symbols)
        self._symbols = [symbol for symbol in self._symbols if symbol not in gone]
        with as_unavailable():
            await self._give_back(sorted(gone))

    async def keep(self) -> None:
        """Renews without end. Raises StreamHeld once a claim is another's; outages of Redis are survived."""
        while True:
            await asyncio.sleep(self._interval)
            for batch in _batches(self._symbols):
                try:
                    replies = await self._claim(batch)
                except UNREACHABLE:
                    break
                for symbol, reply in zip(batch, replies, strict=True):
                    if not isinstance(reply, Exception) and reply != _HELD:
                        raise self._held_by_another(symbol, bytes(reply))

    async def release(self) -> None:
        """Let the next one in at once. To be called when nothing more will be written; a failure is ignored."""
        try:
            await self._give_back(self._symbols)
        except UNREACHABLE as error:
            self._log.warning("claims_not_released", error=text_of(error))

    async def _give_back(self, symbols: Sequence[str]) -> None:
        for batch in _batches(symbols):
            await ask_each(self._client, [("EVAL", RELEASE_LEASE, 1, claim_key(each), self._text) for each in batch])

    def _held_by_another(self, symbol: str, holder: bytes) -> StreamHeld:
        return StreamHeld(
            f"{symbol} is recorded already, by another ingest with {describe_claim(holder)}; let one gateway record a "
            f"symbol, or give both the same IBKR_GATEWAY_NAME (here: {self._name})"
        )


class ContractClaims:
    """The contracts on their venues that the ingest `name` records: two ingests may have one under different names.

    `claim` new ones, `keep` all of them every second or so; `held` are those of others, in words; `release` at the end.
    """

    def __init__(self, client: Client, name: str, run: RunIdentity) -> None:
        self._client = client
        self._name = name
        self._run = asdict(run)
        self._claimed: dict[Place, tuple[str, float]] = {}  # for which symbol, and when it was renewed last
        self.held: dict[Place, str] = {}

    async def claim(self, places: Mapping[Place, str]) -> None:
        """Claim these, each recorded under that symbol, unless that was done lately. Raises SinkUnavailable."""
        now = monotonic()
        due = [place for place, symbol in places.items() if self._is_due(place, symbol, now)]
        with as_unavailable():
            for batch in _batches(due):
                self._note(batch, places, now, await self._ask(batch, places))

    async def keep(self, places: Mapping[Place, str]) -> None:
        """Claim these and give all others back. Raises SinkUnavailable."""
        self.held = {place: holder for place, holder in self.held.items() if place in places}
        await self.claim(places)
        with as_unavailable():
            await self._give_back([place for place in self._claimed if place not in places])

    def has(self, place: Place) -> bool:
        """Whether it is claimed."""
        return place in self._claimed

    async def release(self) -> None:
        """Give all back. To be called when nothing more is recorded; a failure is ignored, as they expire."""
        with contextlib.suppress(*UNREACHABLE):
            await self._give_back(list(self._claimed))

    def _text(self, symbol: str) -> bytes:
        return orjson.dumps({"gateway": self._name, "symbol": symbol, **self._run})

    def _is_due(self, place: Place, symbol: str, now: float) -> bool:
        known, renewed = self._claimed.get(place, ("", 0.0))
        return known != symbol or now - renewed >= CONTRACT_RENEWAL_SECS

    async def _ask(self, places: Sequence[Place], symbols: Mapping[Place, str]) -> list[Any]:
        ttl_ms = int(CONTRACT_CLAIM_SECS * 1000)
        claims = [(contract_claim_key(*place), self._text(symbols[place])) for place in places]
        return await ask_each(
            self._client, [("EVAL", _CLAIM_STREAM, 1, key, text, ttl_ms, self._name) for key, text in claims]
        )

    def _note(self, places: Sequence[Place], symbols: Mapping[Place, str], now: float, replies: Sequence[Any]) -> None:
        for place, reply in zip(places, replies, strict=True):
            if isinstance(reply, Exception) or reply == _HELD:  # where Redis refuses it, nobody's is known
                self._claimed[place] = symbols[place], now
                self.held.pop(place, None)
            else:
                self._claimed.pop(place, None)
                self.held[place] = _recorded_by(bytes(reply))

    async def _give_back(self, places: Sequence[Place]) -> None:
        for batch in _batches(places):
            claims = [(contract_claim_key(*place), self._text(self._claimed[place][0])) for place in batch]
            await ask_each(self._client, [("EVAL", RELEASE_LEASE, 1, key, text) for key, text in claims])
            for place in batch:
                del self._claimed[place]


def _recorded_by(holder: bytes) -> str:
    """Which symbol of which gateway holds a contract, in words."""
    try:
        claim = orjson.loads(holder)
        return f"{claim['symbol']!r} of the gateway {claim['gateway']!r}"
    except (ValueError, KeyError, TypeError):
        return f"another ingest ({holder!r})"


def describe_claim(holder: bytes) -> str:
    """A claim's text in words."""
    try:
        return f"IBKR_GATEWAY_NAME={orjson.loads(holder)['gateway']}: {describe(holder)}"
    except (ValueError, KeyError, TypeError):
        return repr(holder)


def _batches(claimed: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (claimed[start : start + AT_ONCE] for start in range(0, len(claimed), AT_ONCE))


def _is_of_another_type(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply)
