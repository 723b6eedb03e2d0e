"""The ingest's own status in Redis: published beside the rows and never before them, and read back as its health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError, ResponseError

from ibkr_depth_pipeline.clock import loop_time, monotonic, unix_ms
from ibkr_depth_pipeline.hours.instruments import MarketHours
from ibkr_depth_pipeline.hours.universe import UniverseHours
from ibkr_depth_pipeline.logs import RepeatedFailureLog, get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, as_unavailable, text_of
from ibkr_depth_pipeline.redis_link.pipeline import ask, ask_each
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.alerts import Alert, encode_alert
from ibkr_depth_pipeline.schema.health import (
    INGEST_HEARTBEAT_TTL_SECS,
    HealthReport,
    health_commands,
    health_of,
    standbys_of,
)
from ibkr_depth_pipeline.schema.keys import (
    alerts_stream,
    clock_key,
    hand_over_key,
    ingest_heartbeat_key,
    ingest_hours_key,
    ingest_key,
    standby_key,
)
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, StandbyFigures
from ibkr_depth_pipeline.sink.connection import open_redis, redis_at

REPORT_SECS = 2.0
"""How often an ingest publishes its figures, if nothing happens."""

LEAST_REPORT_SECS = 0.25
"""As long it waits after each publishing, also when slots or the gateway's connection change."""

_NO_KEY = -2  # as PTTL answers
HOURS_KEPT_SECS, HOURS_AGAIN_SECS = 8 * 86_400, 3 * 3_600
"""How long the hours of a universe are kept, and how often they are stored again, changed or not."""


class StatusPublisher:
    """The figures of the ingest called `name`. Call it from a task of its own: a call takes as long as Redis takes."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._key = ingest_key(name)
        self._heartbeat = ingest_heartbeat_key(name)
        self._hours_key = ingest_hours_key(name)
        self._hours: Mapping[str, MarketHours] | None = None
        self._hours_at = 0.0
        self._failures = RepeatedFailureLog("figures_not_stored", level=logging.WARNING)

    async def publish(self, figures: FeedFigures) -> None:
        """Stores `figures` and the heartbeat of their run, or, if the run has ended, removes the heartbeat.

        A failure is logged, and costs nothing else: the next figures hold everything that these held.
        """
        alive: Command = ("SET", self._heartbeat, figures.run.run_id, "EX", INGEST_HEARTBEAT_TTL_SECS)
        status: Command = ("SET", self._key, figures.to_json())
        try:
            await ask(self._client, [status, ("DEL", self._heartbeat) if figures.ended_ts else alive])
        except UNREACHABLE as error:
            self._failures.record(text_of(error), loop_time())
        else:
            self._failures.end(loop_time())

    async def publish_hours(self, hours: Mapping[str, MarketHours], symbols: Collection[str] | None = None) -> None:
        """Store these hours, and keep those that are known of the rest of `symbols`; None: of all others.

        The same object as the last time is stored again only after HOURS_AGAIN_SECS.
        """
        is_old = monotonic() - self._hours_at >= HOURS_AGAIN_SECS
        if not hours or (hours is self._hours and not is_old):
            return
        try:
            (known,) = await ask(self._client, [("GET", self._hours_key)])
            both = await asyncio.to_thread(_merged, known, hours, symbols)  # of thousands: some 50 ms
            await ask(self._client, [("SET", self._hours_key, both, "EX", HOURS_KEPT_SECS)])
        except UNREACHABLE:
            return  # the figures were not stored either, which is logged
        except ResponseError as error:
            get_log().warning("hours_not_stored", error=str(error))
        self._hours, self._hours_at = hours, monotonic()


HAND_OVER_SECS = 10
"""How long a request to hand over stands."""

_NOTE_STANDBY = """
local now, ttl, kept = tonumber(ARGV[2]), tonumber(ARGV[3]), ''
for line in string.gmatch(redis.call('GET', KEYS[1]) or '', '[^\\n]+') do
  local written, run = string.match(line, '^(%d+) (%S+) ')
  if run and run ~= ARGV[1] and now - tonumber(written) <= ttl then kept = kept .. line .. '\\n' end
end
if ARGV[4] ~= '' then kept = kept .. ARGV[2] .. ' ' .. ARGV[1] .. ' ' .. ARGV[4] .. '\\n' end
if kept == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], kept, 'EX', ttl) end
return 1
"""
"""ARGV: a run id, unix seconds, for how many they stand, the figures of that run or "": a line a run, old ones go."""


class StandbyStatus:
    """The ingests that stand by under `name`: `publish` one's own figures, `withdraw` them, `count` those of others."""

    def __init__(self, client: Client, name: str, run: RunIdentity) -> None:
        self._client = client
        self._key = standby_key(name)
        self._hand_over = hand_over_key(name)
        self._run = run
        self._published = False

    async def publish(self, figures: StandbyFigures) -> None:
        """Store this one's figures."""
        self._published = True
        await self._note(figures.to_json())

    async def withdraw(self) -> None:
        """Remove them, if there are any: it stands by no more."""
        if self._published:
            self._published = False
            await self._note(b"")

    async def _note(self, figures: bytes) -> None:
        """A failure is ignored: figures come again, and expire."""
        words = (self._run.run_id, unix_ms() // 1000, INGEST_HEARTBEAT_TTL_SECS, figures)
        with contextlib.suppress(ResponseError, *UNREACHABLE):
            await ask(self._client, [("EVAL", _NOTE_STANDBY, 1, self._key, *words)])

    async def asked_to_hand_over(self) -> str:
        """Who asks this run to hand over, which is answered once; "" if nobody does."""
        try:
            (told,) = await ask_each(self._client, [("GET", self._hand_over)])
            run_id, _, by = (_readable(told) or b"").decode(errors="replace").partition(" ")
            if run_id != self._run.run_id:
                return ""
            await ask(self._client, [("DEL", self._hand_over)])
        except UNREACHABLE:
            return ""
        return by[:64] or "somebody"

    async def count(self, *, successors: bool = False) -> int | None:
        """How many stand by, ready to record; None if Redis can't be asked. successors: without reserves."""
        try:
            (reply,) = await ask_each(self._client, [("GET", self._key)])
        except UNREACHABLE:
            return None
        return sum(each.is_ready and not (successors and each.reserve) for each in standbys_of(_readable(reply)))


async def ask_to_hand_over(url: str, name: str, run_id: str, by: str) -> None:
    """Ask that run to give the recording to its standby. Raises SinkUnavailable."""
    async with redis_at(url) as client:
        await ask(client, [("SET", hand_over_key(name), f"{run_id} {by}", "EX", HAND_OVER_SECS)])


def _merged(known: bytes | None, hours: Mapping[str, MarketHours], symbols: Collection[str] | None) -> bytes:
    before = UniverseHours.of_json(known).by_symbol()
    kept = {symbol: each for symbol, each in before.items() if symbols is None or symbol in symbols}
    return UniverseHours.of({**kept, **hours}).to_json()


async def read_hours_of(url: str, name: str) -> UniverseHours:
    """The hours that the ingest `name` (IBKR_GATEWAY_NAME) has published, if any. Raises SinkUnavailable."""
    async with redis_at(url) as client:
        (reply,) = await ask_each(client, [("GET", ingest_hours_key(name))])
        return UniverseHours.of_json(_readable(reply))


async def hours_age_secs(url: str, name: str) -> float:
    """How long ago the ingest `name` published hours, infinite if it never did; 0 for hours that do not expire.

    Raises SinkUnavailable.
    """
    async with redis_at(url) as client:
        (left_ms,) = await ask(client, [("PTTL", ingest_hours_key(name))])
    if left_ms < 0:
        return math.inf if left_ms == _NO_KEY else 0.0
    return HOURS_KEPT_SECS - float(left_ms) / 1000


async def read_health(url: str, name: str, symbols: Sequence[str]) -> HealthReport:
    """The health of the ingest `name` (IBKR_GATEWAY_NAME) and of `symbols`, as the Redis at `url` shows it.

    Raises SinkUnavailable if Redis can't be asked: then nothing is known.
    """
    reader = HealthReader(url, name)
    try:
        return await reader.read(symbols)
    finally:
        await reader.aclose()


class HealthReader:
    """Reads health as `read_health` does, again and again, over connections that it keeps. Close it."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._client: Client | None = None

    async def read(self, symbols: Sequence[str]) -> HealthReport:
        """The health now. Raises SinkUnavailable; connections that have broken since the last reading are no reason."""
        commands = health_commands(self._name, symbols)
        with as_unavailable(self._url):
            replies = await self._ask(commands)
        return health_of(self._name, symbols, replies, unix_ms())

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        is_kept = self._client is not None
        client = self._client = self._client or open_redis(self._url)
        try:
            return [_readable(reply) for reply in await ask_each(client, commands)]
        except UNREACHABLE as error:
            await self.aclose()
            if not is_kept or not isinstance(error, ConnectionError):
                raise
        return await self._ask(commands)

    async def aclose(self) -> None:
        """Close the connections. Repeatable; the next reading opens others."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _readable(reply: Any) -> Any:
    """`reply`, or None if the key is not of the type that the schema has: that costs one symbol only."""
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def identity_of_this_process(now_ms: int, run_id: str | None = None) -> RunIdentity:
    """A new identity for a run of this process that starts now; run_id is one that its runner knows it by."""
    pid = os.getpid()
    return RunIdentity(run_id or secrets.token_hex(8), socket.gethostname(), pid, now_ms, process_mark(pid))


def process_mark(pid: int) -> str:
    """What no other process has, had or will have: boot, PID namespace, start time; "" if they can't be read.

    The start time is in ticks since the boot, so that no step of the clock changes it.
    """
    name = "self" if pid == os.getpid() else pid  # right even if /proc is that of another PID namespace
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(f"/proc/{name}/ns/pid")
        fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()  # a name may hold blanks
        return f"{boot} {namespace} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return ""


# ---- what happened, as streams beside the snapshots: steps of the host's clock, alerts


MAXLEN = 1000
"""Entries of each of these streams."""


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
        get_log().warning("clock_step_not_stored", error=text_of(error))


_APPEND_ONCE = """
for _, entry in ipairs(redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 100)) do
  if cjson.encode(entry[2]) == cjson.encode({unpack(ARGV, 2)}) then return entry[1] end
end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 2))
"""
"""ARGV: MAXLEN, then fields and values. What an unanswered try has stored is not stored again, unless the user may not
read the stream."""


async def store_alerts(url: str, name: str, alerts: Sequence[Alert]) -> None:
    """Append each to the stream of the ingest `name`, once, however often it is tried. Raises SinkUnavailable."""
    entries = ([word for field in encode_alert(alert).items() for word in field] for alert in alerts)
    async with redis_at(url) as client:
        await ask(client, [("EVAL", _APPEND_ONCE, 1, alerts_stream(name), MAXLEN, *entry) for entry in entries])
