"""One ingest at a time under one name: a key that expires, and that its holder renews well before it does.

The holder may write only while its newest renewal is younger than the TTL, less a margin, by a clock that also runs
while the process or the machine sleeps. What was sent in good time and arrives late is refused by the streams
themselves: the ingest that takes over raises their last ids first (RedisWriter.take_over).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import LeaseHeld, LeaseLost
from ibkr_depth_pipeline.formatting import utc
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, as_unavailable, text_of, unavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.keys import given_back_key, lease_key
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.sink.holder_process import HolderProcess
from ibkr_depth_pipeline.tasks import first_of

LONGEST_INTERVAL_SECS = 0.5
"""A holder renews at least this often, even with a longer TTL."""

LONGEST_ANSWER_SECS = 2.0
"""How long a renewal waits for its answer at most; then it is sent again, on another connection."""

LOOK_SECS = 0.1
"""How often one who stands by looks."""

GRACE_SECS = 0.75
"""How long a lease that ran out must have been free for one who stands by: a living holder comes first.

No time is waited if the holder has given it back, or if its process is known to have ended (HolderProcess)."""

VANISHED_GRACE_SECS = 5.0
"""The same for one that vanished before its time: by FLUSHALL, an empty restart or an eviction.

A living holder takes it again within its interval, its wait for an answer, the pause before it tries again (LOOK_SECS)
and the time to connect (connection.CONNECT_TIMEOUT_SECS), together less than this, with any TTL."""

_RUN_OUT_SECS = 0.1
"""A lease that is gone so long before its time, or longer, did not run out."""

_RENEWED_SECS = 0.2
"""A lease that expires so much later than it would have has been renewed: its holder lives."""

GIVEN_BACK_SECS = 10
"""For how long it is known who gave the lease back."""

_HOLD_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 'kept'
end
if holder and holder ~= ARGV[3] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'taken'
"""
"""ARGV: the holder's text, TTL in ms, the text of a holder that is dead, or "".

Takes a free lease or the dead one's, renews one's own, and names the holder of another's."""

RELEASE_LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""ARGV: the holder's text."""


class Lease:
    """The right to write under `name`. `acquire`, then `keep` in a task, `hold` before each write, `release`.

    `regained` is set when another may have held the lease in between: it was taken again, or may have been. Then
    the streams are to be checked for what that one wrote, within `checking`.
    """

    def __init__(self, client: Client, name: str, run: RunIdentity, ttl_secs: float) -> None:
        self._client = client
        self._key = lease_key(name)
        self._given_back_key = given_back_key(name)
        self._text = orjson.dumps(run)
        self._ttl = ttl_secs
        self._good_until = 0.0
        self._held = False
        self._unsure = False
        self._lost: LeaseLost | None = None
        self._log = get_log()
        self.regained = False

    @property
    def fresh(self) -> bool:
        """Whether it is held for sure, now."""
        return self._held and self._lost is None and monotonic() < self._good_until

    async def acquire(self, wait_secs: float = 0.0) -> None:
        """Take the lease, also a dead holder's, for which it waits until that one's time is over.

        If the holder is alive, it raises LeaseHeld after `wait_secs`. It raises SinkUnavailable if Redis can't be
        reached, while it stands by only when that time is over.
        """
        holder = await self.take_if_free()
        if holder is not None:
            self._log.warning("lease_held", holder=describe(holder), wait_secs=wait_secs)
            await self.stand_by(holder, wait_secs)
        self._log.info("lease_acquired", key=self._key, ttl_secs=self._ttl)

    async def take_if_free(self) -> bytes | None:
        """Take the lease, unless another holds it: returns that one's text. Raises SinkUnavailable."""
        with as_unavailable():
            holder = await self._claim()
        if holder is None:
            self._taken()
        return holder

    def _taken(self) -> None:
        self._held, self.regained = True, False

    async def stand_by(self, holder: bytes, wait_secs: float) -> None:
        """Wait for the lease that `holder` has, as `acquire` does."""
        deadline, watch, process = monotonic() + wait_secs, HolderWatch(holder), HolderProcess()
        try:
            while True:
                process.watch(watch.holder)
                await first_of(process.ended.wait(), within=LOOK_SECS)
                try:
                    if await self._take_over(watch, process.ended.is_set()):
                        return self._taken()
                except UNREACHABLE as error:
                    watch.saw_nothing()
                    if monotonic() >= deadline:
                        raise unavailable(error) from None
                    await asyncio.sleep(LOOK_SECS)  # the end of a process is no event that is waited for again
                if watch.holder_lives and monotonic() >= deadline:
                    raise LeaseHeld(f"another ingest writes here already: {describe(watch.holder)}")
        finally:
            process.close()

    async def _take_over(self, watch: HolderWatch, ended: bool) -> bool:
        """Whether the lease is ours now; ended: the holder's process has."""
        if ended and await self._claim(watch.holder) is None:
            return True
        return await self._look(watch) and await self._claim() is None

    async def _look(self, watch: HolderWatch) -> bool:
        """Whether it may be taken, or is ours: a claim without an answer has been carried out."""
        asked = monotonic()
        looks: list[Command] = [("GET", self._key), ("PTTL", self._key), ("GET", self._given_back_key)]
        holder, ttl_ms, given_back = await ask(self._client, looks)
        if holder == self._text:
            return True
        watch.saw(holder, ttl_ms, asked, monotonic(), given_back)
        return watch.is_free

    async def _claim(self, dead: bytes = b"") -> bytes | None:
        """Takes or renews it, also if it is that dead holder's. Returns the text of the holder if it is another's."""
        asked, good_until = monotonic(), self._good_until
        try:
            reply = await self._ask_for_it(dead)
        except BaseException:
            self._unsure = True  # it may have been taken: the next answer will be that it was kept
            raise
        if reply not in (b"kept", b"taken"):
            return reply
        late = monotonic() >= good_until  # a claim given up long ago may have been carried out in between
        self.regained = self.regained or reply == b"taken" or self._unsure or late
        self._unsure = False
        self._good_until = asked + self._ttl * 0.8
        return None

    async def _ask_for_it(self, dead: bytes) -> bytes:
        claim = ("EVAL", _HOLD_LEASE, 1, self._key, self._text, int(self._ttl * 1000), dead)
        try:
            [reply] = await ask(self._client, [claim], within=min(self._ttl / 2, LONGEST_ANSWER_SECS))
        except asyncio.TimeoutError:
            raise TimeoutError("no answer to the renewal of the lease in time") from None
        return bytes(reply)

    async def keep(self) -> None:
        """Renews without end. Raises LeaseLost once another holds it; outages of Redis are survived."""
        interval = min(self._ttl / 4, LONGEST_INTERVAL_SECS)
        while True:
            await asyncio.sleep(interval)
            try:
                await self._renew()
                interval = min(self._ttl / 4, LONGEST_INTERVAL_SECS)
            except UNREACHABLE:
                interval = LOOK_SECS

    async def hold(self) -> None:
        """Make sure that this ingest may write, now. To be called before each write that is sent.

        Usually it only reads the clock. If the newest renewal is too old it renews first: raises LeaseLost if another
        holds the lease, and what is in UNREACHABLE if Redis does not answer.
        """
        if self._lost is not None:
            raise self._lost
        if monotonic() >= self._good_until:
            await self._renew()

    async def confirm(self) -> bool:
        """As hold. Returns whether it was held all the time since it was acquired or last confirmed.

        If not, another may have written: check that, within `checking`, and ask again. Raises SinkUnavailable if
        Redis does not answer.
        """
        with as_unavailable():
            await self.hold()
        regained, self.regained = self.regained, False
        return not regained

    @contextmanager
    def checking(self) -> Iterator[None]:
        """The check of what another wrote, if one held the lease in between. If it fails it is still to be done."""
        self.regained = False  # another may come during the check
        try:
            yield
        except BaseException:
            self.regained = True
            raise

    async def _renew(self) -> None:
        holder = await self._claim()
        if holder is not None:
            self.lose(f"another ingest has taken over: {describe(holder)}")

    def lose(self, reason: str) -> None:
        """Never write again. Raises LeaseLost."""
        self._lost = self._lost or LeaseLost(reason)
        raise self._lost

    async def release(self) -> None:
        """Let the next one in at once. To be called when nothing more will be written; a failure is ignored."""
        if self._held and self._lost is None:
            self._held = False
            known: Command = ("SET", self._given_back_key, self._text, "EX", GIVEN_BACK_SECS)
            try:
                await ask(self._client, [known, ("EVAL", RELEASE_LEASE, 1, self._key, self._text)])
            except UNREACHABLE as error:
                self._log.warning("lease_not_released", error=text_of(error))


class HolderWatch:
    """What one who stands by has seen of a holder. Pure: `asked`, `answered` are seconds by one clock."""

    def __init__(self, holder: bytes) -> None:
        self.holder = holder
        self.holder_lives = False
        self.is_free = False
        self._expires_by: float | None = None  # the earliest end of its time that was seen, if nobody renews it
        self._ends = math.inf  # when it ends by the newest answer, if nobody renews it
        self._free_since: float | None = None
        self._grace = VANISHED_GRACE_SECS

    def saw(
        self, holder: bytes | None, ttl_ms: int, asked: float, answered: float, given_back: bytes | None = None
    ) -> None:
        """What stood there at some time between these two: an answer that is late shows neither life nor freedom.

        given_back: the text of who gave it back last; it is free at once if that is the holder that was seen last.
        """
        if holder is None:
            self._saw_it_free(asked, answered)
            self.is_free = self.is_free or given_back == self.holder
            return
        known = self._expires_by is not None and asked + ttl_ms / 1000 > self._expires_by + _RENEWED_SECS
        self.holder_lives = self.holder_lives or known or holder != self.holder
        expires_by = answered + ttl_ms / 1000
        self._expires_by = expires_by if self._expires_by is None else min(self._expires_by, expires_by)
        self.holder, self.is_free, self._free_since = holder, False, None
        self._ends = asked + ttl_ms / 1000

    def _saw_it_free(self, asked: float, answered: float) -> None:
        self.holder_lives, self._expires_by = False, None
        if self._free_since is None:
            self._free_since = answered
            ran_out = asked >= self._ends - _RUN_OUT_SECS
            self._grace = GRACE_SECS if ran_out else VANISHED_GRACE_SECS
        self.is_free = asked - self._free_since >= self._grace

    def saw_nothing(self) -> None:
        """Redis did not answer."""
        self.is_free, self._expires_by, self._free_since, self._ends = False, None, None, math.inf


def describe(holder: bytes) -> str:
    """A holder's text in words."""
    try:
        run = orjson.loads(holder)
        since = utc(run["started_ts"])
        return f"run {run['run_id']} on {run['host']}, pid {run['pid']}, since {since}"
    except (ValueError, KeyError, TypeError):
        return repr(holder)
