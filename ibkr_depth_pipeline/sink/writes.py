"""One flush's writes, key by key: what is sent for a key, and what its answer means for the symbol's queue.

A snapshot's commands are XADD, the hash, the heartbeat, in that order, each only after the one before was acknowledged:
each goes out a flush later than the one before. For the hash and the heartbeat only the newest snapshot counts; where
rows come without end, they are written a hundred and ten times a second.

The XADDs of one symbol go in one MULTI on its one key, a lone one by itself: Redis refuses such a block as a whole (out
of memory, read-only, loading), and so no later snapshot can get in before an earlier one. Where the answer was lost the
block is sent again: Redis refuses ids that it holds, which for a repeated snapshot means that it was stored. Hash and
heartbeat are written by scripts that refuse what is older than what is there: an unanswered command may still be
carried out, much later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import hiredis
from redis.exceptions import ExecAbortError

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.schema.encoding import LastValue
from ibkr_depth_pipeline.schema.keys import contract_changes_key, heartbeat_key, last_key, venue_key
from ibkr_depth_pipeline.sink.backlog import RETRIES, Beat, Block, ContractChange, SymbolQueue
from ibkr_depth_pipeline.sink.turns import TurnCommand
from ibkr_depth_pipeline.sink.wire import Part

FLUSH_ENTRIES = 256
"""Most snapshots of one symbol in one flush, so that a long backlog neither blocks Redis nor starves other symbols; and
so few that what Redis queues between MULTI and EXEC stays in its processor's cache."""

CHANGES_KEPT = 1000
"""Of a symbol's contract, about; one for each run and each roll."""

HASH_PAUSE_SECS = 0.01
BEAT_PAUSE_SECS = 0.1
VENUE_PAUSE_SECS = 1.0
"""Between two hashes, heartbeats or venue hashes of one symbol: rows that come meanwhile have to wait for each."""

_ALREADY_STORED = "equal or smaller than the target stream top item"
_FOREIGN_KEY = ("WRONGTYPE", "NOPERM")
_MULTI = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"

_STORE_LAST = """
local stored = redis.call('HGET', KEYS[1], 'seq')
if stored and (tonumber(stored) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""
"""ARGV: seq, then the fields and values of the hash. An older snapshot never overwrites a newer one."""

_STORE_BEAT = """
local stored = redis.call('GET', KEYS[1])
if stored and (tonumber(stored) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""
"""ARGV: unix ms of the last row, TTL in seconds. An older row never renews the heartbeat of a newer one."""

EXTEND_BEAT = """
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left >= tonumber(ARGV[1]) then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
"""ARGV: TTL in ms. A heartbeat that is gone stays gone, and one that stands for longer stays as it is."""


class Write(Protocol):
    """A part of a flush. Exactly one of `settle` and `unknown` is called, once."""

    queue: SymbolQueue
    part: Part
    command: str

    def settle(self, replies: list[Any]) -> Exception | None:
        """Takes note of the replies. Returns what went wrong."""

    def unknown(self) -> None:
        """Takes note that it is unknown whether any of it was carried out."""

    def postpone(self, now: float) -> None:
        """It failed at loop time `now`: its key is left alone for a while."""


def writes_of(queue: SymbolQueue, most: int, now: float, heartbeat_ttl: int) -> list[Write]:
    """All that is to be sent for a symbol at loop time `now`; at most so many waiting snapshots are taken from it."""
    if queue.changes:
        return [_ContractWrite(queue)]
    writes: list[Write] = []
    if queue.turns.has_work and (turn := queue.turns.take(queue.oldest_waiting(), now)) is not None:
        writes.append(_TurnWrite(queue, turn))
    if queue.waiting and queue.may_send() and now >= queue.not_before:
        writes.append(StreamWrite(queue, queue.take(min(most, FLUSH_ENTRIES))))
    if queue.stored is not None and now >= queue.next_hash:
        queue.next_hash = now + HASH_PAUSE_SECS
        writes.append(_HashWrite(queue, queue.stored))
    if queue.beat is not None and now >= queue.next_beat:
        queue.next_beat = now + BEAT_PAUSE_SECS
        writes += _beat_writes(queue, queue.beat, heartbeat_ttl)
    if queue.venue is not None and now >= queue.next_venue:
        queue.next_venue = now + VENUE_PAUSE_SECS
        writes.append(_VenueWrite(queue, queue.venue))
    return writes


def _beat_writes(queue: SymbolQueue, beat: Beat, heartbeat_ttl: int) -> list[Write]:
    """The heartbeat, for what is left of its time; none if that is over: the book may be dead by now."""
    left = heartbeat_ttl - int(max(0.0, monotonic() - beat.known))
    if left > 0 and not queue.is_held:
        return [_BeatWrite(queue, beat, left)]
    queue.beat = None
    return []


class StreamWrite:
    """A block of entries for the stream."""

    command = "XADD"

    def __init__(self, queue: SymbolQueue, block: Block) -> None:
        self.queue = queue
        self.block = block
        self.is_stored = False
        self.arrived: float | None = None  # when the oldest of them did; known once it is settled
        # One entry is a block by itself. One that may be stored already is not: if it is, its lone reply would look
        # like a refusal to ReplicatedWire.
        self._is_lone = len(block.entries) == 1 and (not queue.uncertain_seq or block.newest.seq > queue.uncertain_seq)
        packed = block.entries if self._is_lone else [_MULTI, *block.entries, _EXEC]
        self.part = Part(queue.packer.key, packed, len(packed))

    def unknown(self) -> None:
        self.queue.put_back(self.block.entries)
        self.queue.doubt(self.block)

    def postpone(self, now: float) -> None:
        self.queue.postpone(now)

    def settle(self, replies: list[Any]) -> Exception | None:
        self.arrived = self.queue.arrivals.of(self.block.oldest.seq)
        if isinstance(replies[0], Exception) and not self._is_lone:  # without its MULTI each XADD went by itself
            self.queue.doubt(self.block)
        outcome = replies if self._is_lone else replies[-1]
        if isinstance(outcome, Exception):
            return self._refused(0, _cause(replies))
        for at, reply in enumerate(outcome):
            if isinstance(reply, Exception) and not self._was_held(at, reply):
                return self._refused(at, reply)
        self.queue.is_stored(self.block.entries)
        self.queue.settled(self.block)
        self.is_stored = True
        return None

    def _was_held(self, at: int, reply: Exception) -> bool:
        """Whether an entry was refused because it had been stored by a block that was never answered."""
        return is_held(reply) and self.queue.packer.position(self.block.entries[at]).seq <= self.queue.uncertain_seq

    def _refused(self, at: int, error: Exception) -> Exception:
        self.queue.is_stored(self.block.entries[:at])
        self.queue.put_back(self.block.entries[at:])
        return error


class _HashWrite:
    """The last-value hash, after its entry is in the stream."""

    command = "HSET"

    def __init__(self, queue: SymbolQueue, entry: bytes) -> None:
        key, self._value = last_key(queue.symbol), LastValue.of_entry(entry)
        self.queue = queue
        self.part = Part(key, [_packed("EVAL", _STORE_LAST, 1, key, self._value.seq, *self._value.fields)], 1)
        self._entry = entry
        self._arrived = queue.arrivals.of(self._value.seq)

    def unknown(self) -> None:
        """It stays to be written."""

    def postpone(self, now: float) -> None:
        self.queue.next_hash = now + RETRIES.longest

    def settle(self, replies: list[Any]) -> Exception | None:
        if isinstance(replies[0], Exception):
            return replies[0]
        if self.queue.stored is self._entry:
            self.queue.stored = None
        if self._value.live and self._arrived is not None and not self.queue.is_held:
            beat = Beat(self._value.ts, self._arrived)
            self.queue.beat = max(beat, self.queue.beat or beat)
        return None


class _BeatWrite:
    """The heartbeat, after the hash."""

    command = "SET"

    def __init__(self, queue: SymbolQueue, beat: Beat, ttl: int) -> None:
        key = heartbeat_key(queue.symbol)
        self.queue = queue
        self.part = Part(key, [_packed("EVAL", _STORE_BEAT, 1, key, beat.ts, ttl)], 1)
        self._beat = beat

    def unknown(self) -> None:
        """It stays to be written."""

    def postpone(self, now: float) -> None:
        self.queue.next_beat = now + RETRIES.longest

    def settle(self, replies: list[Any]) -> Exception | None:
        if isinstance(replies[0], Exception):
            return replies[0]
        if self.queue.beat == self._beat:
            self.queue.beat = None
        return None


class _VenueWrite:
    """The venue hash; sent once even if Redis refuses it, as each resolution of the venue sends it again."""

    command = "HSET"

    def __init__(self, queue: SymbolQueue, fields: dict[Any, Any]) -> None:
        key = venue_key(queue.symbol)
        self.queue = queue
        self.part = Part(key, [_packed("HSET", key, *(word for field in fields.items() for word in field))], 1)
        self._fields = fields

    def unknown(self) -> None:
        """It stays to be written."""

    def postpone(self, now: float) -> None:
        """No-op: `next_venue` already delays the retry."""

    def settle(self, replies: list[Any]) -> Exception | None:
        if self.queue.venue is self._fields:
            self.queue.venue = None
        return replies[0] if isinstance(replies[0], Exception) else None


class _ContractWrite:
    """The changes of the contract, before any snapshot after them: a reader of such a snapshot finds its contract.

    A key that is somebody else's holds up no snapshot: the changes are given up.
    """

    command = "XADD"

    def __init__(self, queue: SymbolQueue) -> None:
        key = contract_changes_key(queue.symbol)
        self.queue = queue
        self._sent = list(queue.changes)
        self.part = Part(key, [_change(key, change) for change in self._sent], len(self._sent))

    def unknown(self) -> None:
        """They stay to be written: one that stands twice changes nothing."""

    def postpone(self, now: float) -> None:
        if self.queue.changes:
            self.queue.postpone(now)

    def settle(self, replies: list[Any]) -> Exception | None:
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if failed is None or str(failed).startswith(_FOREIGN_KEY):
            self.queue.changes = [change for change in self.queue.changes if change not in self._sent]
        if failed is None:
            self.queue.pause = 0.0
        return failed


def _change(key: str, change: ContractChange) -> bytes:
    after, con_id, local_symbol, expiry = change
    fields = ("after", str(after), "con_id", con_id, "local_symbol", local_symbol, "expiry", expiry)
    return _packed("XADD", key, "MAXLEN", "~", CHANGES_KEPT, "*", *fields)


class _TurnWrite:
    """A step of the symbol's intervals."""

    def __init__(self, queue: SymbolQueue, command: TurnCommand) -> None:
        self.queue = queue
        self.command = command.name
        self.part = command.part
        self._turn = command

    def unknown(self) -> None:
        self._turn.unknown()

    def postpone(self, now: float) -> None:
        self.queue.turns.refused(now + RETRIES.longest)

    def settle(self, replies: list[Any]) -> Exception | None:
        return self._turn.settle(replies)


def is_held(reply: Exception) -> bool:
    """Whether Redis refuses an id because the stream holds it, or a later one."""
    return _ALREADY_STORED in str(reply)


def _cause(replies: Sequence[Any]) -> Exception:
    """Why a block was refused as a whole."""
    outcome: Exception = replies[-1]
    if isinstance(outcome, ExecAbortError):
        return next((reply for reply in replies if isinstance(reply, Exception)), outcome)
    return outcome


def _packed(*words: Any) -> bytes:
    packed: bytes = hiredis.pack_command(words)
    return packed
