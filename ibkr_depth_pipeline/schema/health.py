"""Whether the recording can be trusted, judged from what Redis holds: for a person, a monitor or a sensor. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ibkr_depth_pipeline.formatting import utc
from ibkr_depth_pipeline.schema.keys import (
    heartbeat_key,
    ingest_heartbeat_key,
    ingest_key,
    last_key,
    standby_key,
    venue_key,
)
from ibkr_depth_pipeline.schema.status import FeedFigures, StandbyFigures, SymbolFigures

INGEST_HEARTBEAT_TTL_SECS = 15
"""The TTL of an ingest's heartbeat, which is written with its figures."""


class SymbolState(str, Enum):
    """FRESH: its heartbeat stands. STALE: it has none, but was recorded once. MISSING: never recorded.

    UNSUPPORTED: no heartbeat, and the gateway gives no depth for it, so none is to be expected.
    CLOSED: its market is closed, by the hours of its contract, and opens at `figures.closed_until`.
    NOT_YET: the running ingest does not record it: it is not, or not yet, in the universe that is in force there.
    """

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    UNSUPPORTED = "unsupported"
    NOT_YET = "not yet"
    CLOSED = "closed"

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong with a symbol in this state."""
        return self not in (SymbolState.STALE, SymbolState.MISSING)


@dataclass(frozen=True, slots=True)
class SymbolHealth:
    """One symbol. Ages and TTLs are seconds, None if there is none; `last_row_ts` unix ms, 0 for never.

    `reason` says why it is unsupported; `figures` are empty if no ingest has published any. `trouble` is what a running
    ingest knows to be wrong with its line ("silent, others are not", "book out of step: ..."), else "". is_awaited: it
    has joined, or its market has opened, and its first turn since may still be to come.
    """

    symbol: str
    state: SymbolState
    last_row_ts: int
    age_secs: float | None
    heartbeat_ttl_secs: float | None
    venue: str
    reason: str
    figures: SymbolFigures
    trouble: str = ""
    is_awaited: bool = False

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong with its state nor, as far as a running ingest knows, with its line."""
        return self.state.is_well and not self.trouble


@dataclass(frozen=True, slots=True)
class IngestHealth:
    """An ingest. `running`: its heartbeat stands. `problem` is empty if all is well with it.

    `figures` are the newest that any run has left, also one that is over. `standbys` are those that wait to take over.
    """

    name: str
    running: bool
    heartbeat_ttl_secs: float | None
    problem: str
    figures: FeedFigures | None
    standbys: tuple[StandbyFigures, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of things at `ts` (unix ms, this machine's clock)."""

    ts: int
    feed: IngestHealth
    symbols: tuple[SymbolHealth, ...]

    @property
    def is_well(self) -> bool:
        """Whether an ingest runs, has its gateway, and every symbol that can be recorded is fresh."""
        return not self.feed.problem and all(each.is_well for each in self.symbols)


def health_of(name: str, symbols: Sequence[str], replies: Sequence[Any], now_ms: int) -> HealthReport:
    """The health of the ingest `name` and of `symbols` at unix ms `now_ms`, from the replies to `health_commands`.

    A reply is None for a key of another type than the schema has.
    """
    told, ttl, *rest = replies
    figures = FeedFigures.of_json(told)
    known = figures.symbols if figures is not None else {}
    four = [rest[start : start + 4] for start in range(0, 4 * len(symbols), 4)]
    elapsed_ms = INGEST_HEARTBEAT_TTL_SECS * 1000 - ttl if ttl > 0 else None  # since the figures, by Redis' clock
    found = tuple(
        _symbol(symbol, values, known, now_ms, elapsed_ms) for symbol, values in zip(symbols, four, strict=True)
    )
    standbys = standbys_of(rest[-1]) if len(rest) > 4 * len(symbols) else ()
    return HealthReport(now_ms, _feed(name, ttl, figures, standbys), found)


def health_commands(name: str, symbols: Sequence[str]) -> list[tuple[Any, ...]]:
    """What to ask of Redis for `health_of`: one key each."""
    commands: list[tuple[Any, ...]] = [("GET", ingest_key(name)), ("PTTL", ingest_heartbeat_key(name))]
    for symbol in symbols:
        commands += [
            ("PTTL", heartbeat_key(symbol)),
            ("GET", heartbeat_key(symbol)),
            ("HMGET", last_key(symbol), "ts", "venue"),
            ("HMGET", venue_key(symbol), "exchange", "depth_supported", "reason"),
        ]
    return [*commands, ("GET", standby_key(name))]


def standbys_of(text: bytes | None) -> tuple[StandbyFigures, ...]:
    """The ingests that stand by, from the text of their key, oldest first.

    One without a sign of life for the TTL, counted from the newest sign of life of any, is dead.
    """
    lines = [line.split(b" ", 2) for line in (text or b"").splitlines()]
    signs = [(_number(words[0]), StandbyFigures.of_json(words[2])) for words in lines if len(words) == 3]
    newest = max((at for at, _ in signs), default=0)
    alive = [each for at, each in signs if each is not None and newest - at <= INGEST_HEARTBEAT_TTL_SECS]
    return tuple(sorted(alive, key=lambda each: (each.since_ts, each.run.run_id)))


def _feed(name: str, ttl: int, figures: FeedFigures | None, standbys: tuple[StandbyFigures, ...]) -> IngestHealth:
    running = ttl > 0
    return IngestHealth(name, running, _seconds(ttl), _problem(running, figures), figures, standbys)


def _problem(running: bool, figures: FeedFigures | None) -> str:
    if not running:
        return _absence(figures)
    if figures is None:
        return "the ingest has told no figures yet"
    if not figures.connected:
        return "not connected to the gateway"
    if figures.suspended:
        return "the gateway has lost its connection to IBKR"
    if figures.ailments:
        return f"market data is troubled: {', '.join(map(str, figures.ailments))}"
    return ""


def _absence(figures: FeedFigures | None) -> str:
    if figures is None:
        return "no ingest runs, and none has left figures"
    who = f"run {figures.run.run_id} on {figures.run.host}, pid {figures.run.pid},"
    return f"no ingest runs; {who} {'ended' if figures.ended_ts else 'was last heard of'} {utc(figures.written_ts)}"


def _symbol(
    symbol: str, replies: list[Any], known: Mapping[str, SymbolFigures], now_ms: int, elapsed_ms: int | None
) -> SymbolHealth:
    ttl, beat, last, resolution = replies
    last_ts, last_venue = last or (None, None)
    exchange, supported, reason = resolution or (None, None, None)
    figures = known.get(symbol, SymbolFigures())
    last_row = max(_number(beat), _number(last_ts), figures.last_row_ts)
    venue = _text(last_venue) or _text(exchange) or figures.venue
    age = max(0, now_ms - last_row) / 1000 if last_row else None
    if figures.row_age_ms is not None and elapsed_ms is not None:  # no clock is asked that may be wrong, or was set
        age = (figures.row_age_ms + max(0, elapsed_ms)) / 1000
    state = _state(ttl > 0, supported == b"0", last_row)
    if not state.is_well and elapsed_ms is not None and known and symbol not in known:
        state = SymbolState.NOT_YET
    if figures.closed_until > now_ms:
        state = SymbolState.CLOSED
    trouble = figures.trouble if elapsed_ms is not None else ""
    awaited = elapsed_ms is not None and figures.first_due_ts > now_ms
    return SymbolHealth(symbol, state, last_row, age, _seconds(ttl), venue, _text(reason), figures, trouble, awaited)


def _state(beats: bool, unsupported: bool, last_row: int) -> SymbolState:
    if beats:
        return SymbolState.FRESH
    if unsupported:
        return SymbolState.UNSUPPORTED
    return SymbolState.STALE if last_row else SymbolState.MISSING


def _seconds(pttl: int) -> float | None:
    return pttl / 1000 if pttl > 0 else None


def _number(value: bytes | None) -> int:
    """0 also for what is no number, and so no sign of a row."""
    return int(value) if value is not None and value.isdigit() else 0


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
