"""One symbol's intervals on their way into Redis: each exactly once, in order with the snapshots that it holds. Pure.

Opening and ending an interval are steps, taken one by one. Snapshots of an interval are sent once its hash is stored,
and its entry once they are; those of the next one wait for that entry. So whenever the process dies, each stored
snapshot belongs to a stored interval or to the one in the hash, which the successor closes (turn_fence.py). This costs
two round trips for each subscription and nothing for a row. While Redis refuses a step, snapshots go on without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import hiredis
from redis.exceptions import ResponseError

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval, encode_interval
from ibkr_depth_pipeline.schema.keys import StreamId, open_turn_hash, turns_stream
from ibkr_depth_pipeline.sink.wire import Part

MOST_STEPS = 20_000
"""Steps that may wait: more than a day of turns of 15 s. Past that the oldest go, counted and logged."""

REFRESH_SECS = 1.0
"""Between two writes of an open interval's hash."""

AFTER_SEQ = "after_seq"
"""A field of the hash beside the interval's own: the newest snapshot before its first one."""

_SET_OPEN = """
local held = redis.call('HMGET', KEYS[1], 'subscription', 'requested')
local number, requested = tonumber(held[1] or '') or 0, tonumber(held[2] or '') or 0
local ours = tonumber(ARGV[1])
if number > ours or (number == ours and requested > tonumber(ARGV[2])) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
"""
"""ARGV: subscription, requested, then fields and values. A predecessor's interval never replaces a later one."""

REMOVE_OPEN = """
local held = tonumber(redis.call('HGET', KEYS[1], 'subscription') or '')
if held and held <= tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""ARGV: subscription. Removes the hash if it holds that interval or an older one."""


class Step(NamedTuple):
    """An interval that begins (it is open) or ends. seq: no snapshot past it is sent before this step is done."""

    interval: SubscriptionInterval
    seq: int
    stream_id: StreamId


class SymbolTurns:
    """What is still to be stored of one symbol's intervals. maxlen: the approximate length of its stream of turns.

    on_work is called when there is something to do. Times are loop times.
    """

    def __init__(self, symbol: str, maxlen: int, on_work: Callable[[], None]) -> None:
        self._symbol = symbol
        self._maxlen = maxlen
        self._on_work = on_work
        self._steps: deque[Step] = deque()
        self._newest = StreamId()
        self._refreshed: SubscriptionInterval | None = None
        self._after_seq = 0
        self._removed = 0  # the hash up to this subscription is to go
        self._lost = 0
        self.uncertain = False
        """Whether the first step may be done already."""
        self.failing = False
        """Whether Redis refused the last step: snapshots do not wait for it."""
        self._not_before = self._next_refresh = 0.0

    # ---- what is to be stored

    def begin(self, interval: SubscriptionInterval, after_seq: int) -> None:
        """The interval begins; its snapshots are those past after_seq."""
        self._removed, self._refreshed, self._after_seq = 0, None, after_seq
        self._add(Step(interval, after_seq, self._newest))

    def update(self, interval: SubscriptionInterval) -> None:
        """What is known of the open interval by now; the newest counts."""
        self._refreshed = interval
        self._on_work()

    def end(self, interval: SubscriptionInterval, last_seq: int) -> None:
        """The interval ended; none of its snapshots is past last_seq."""
        self._refreshed = None
        moment = max(self._newest.ts, interval.requested, interval.until or 0)
        self._newest = StreamId(moment, interval.subscription)
        self._add(Step(interval, last_seq, self._newest))

    def _add(self, step: Step) -> None:
        if len(self._steps) >= MOST_STEPS:
            del self._steps[1]  # the first one may be on its way
            self._lost += 1
            if self._lost & (self._lost - 1) == 0:
                get_log().error("turns_lost", symbol=self._symbol, steps=self._lost)
        self._steps.append(step)
        self._on_work()

    # ---- what is sent

    @property
    def has_work(self) -> bool:
        """Whether anything is still to be stored, now or later."""
        return bool(self._steps) or self._refreshed is not None or self._removed > 0

    @property
    def limit(self) -> int | None:
        """The newest snapshot that may be sent now; None: any."""
        return self._steps[0].seq if self._steps and not self.failing else None

    def due_at(self, oldest_unstored: int | None) -> float | None:
        """When there is something to do; None: nothing. oldest_unstored: the seq of the oldest snapshot that waits."""
        if self._steps:
            return self._not_before if self._is_ready(oldest_unstored) else None
        if self._removed:
            return self._not_before
        return None if self._refreshed is None else max(self._not_before, self._next_refresh)

    def _is_ready(self, oldest_unstored: int | None) -> bool:
        step = self._steps[0]
        return step.interval.open or oldest_unstored is None or oldest_unstored > step.seq

    def take(self, oldest_unstored: int | None, now: float) -> TurnCommand | None:
        """The next command to send, if one is due at `now`."""
        due_at = self.due_at(oldest_unstored)
        if due_at is None or due_at > now:
            return None
        if self._steps:
            return self._command_of(self._steps[0])
        if self._refreshed is None:
            return self._remove_open()
        self._next_refresh = now + REFRESH_SECS
        return self._set_open(self._refreshed, self._after_seq)

    def _command_of(self, step: Step) -> TurnCommand:
        if step.interval.open:
            return self._set_open(step.interval, step.seq)
        words = [word for field in encode_interval(step.interval).items() for word in field]
        key = turns_stream(self._symbol)
        bound = ("MAXLEN", "~", self._maxlen)
        return TurnCommand(self, key, ("XADD", key, *bound, str(step.stream_id), *words), step.interval)

    def _set_open(self, interval: SubscriptionInterval, after_seq: int) -> TurnCommand:
        fields = {**encode_interval(interval), AFTER_SEQ: after_seq}
        words = [word for field in fields.items() for word in field]
        key = open_turn_hash(self._symbol)
        return TurnCommand(
            self, key, ("EVAL", _SET_OPEN, 1, key, interval.subscription, interval.requested, *words), interval
        )

    def _remove_open(self) -> TurnCommand:
        key = open_turn_hash(self._symbol)
        return TurnCommand(self, key, ("EVAL", REMOVE_OPEN, 1, key, self._removed), None)

    # ---- answers

    def done(self, interval: SubscriptionInterval | None) -> None:
        """This was stored; None: the hash was removed."""
        self.failing = self.uncertain = False
        if interval is None:
            self._removed = 0
        elif self._steps and self._steps[0].interval is interval:
            self._steps.popleft()
            if not interval.open and not self._steps:
                self._removed = interval.subscription
        elif self._refreshed is interval:
            self._refreshed = None

    def unknown(self, interval: SubscriptionInterval | None) -> None:
        """Whether this was stored is unknown."""
        self.uncertain |= bool(self._steps) and self._steps[0].interval is interval

    def refused(self, until: float) -> None:
        """Redis refused a command: none is sent before `until`."""
        self.failing, self._not_before = True, until

    def hurry(self) -> None:
        """Let nothing wait for its pause."""
        self._next_refresh = 0.0


class TurnCommand:
    """One command on its way, in a MULTI of its own: Redis refuses an id that it holds without refusing the block."""

    def __init__(
        self, turns: SymbolTurns, key: str, words: tuple[Any, ...], interval: SubscriptionInterval | None
    ) -> None:
        self.name = str(words[0])
        self._turns = turns
        self._interval = interval
        self.part = Part(key, [b"*1\r\n$5\r\nMULTI\r\n", hiredis.pack_command(words), b"*1\r\n$4\r\nEXEC\r\n"], 3)

    def unknown(self) -> None:
        """It may have been carried out."""
        self._turns.unknown(self._interval)

    def settle(self, replies: list[Any]) -> Exception | None:
        """Takes the replies. Returns what went wrong."""
        outcome = replies[-1]
        if isinstance(outcome, Exception):
            return next((reply for reply in replies if isinstance(reply, Exception)), outcome)
        refused: Any = outcome[0]
        if not isinstance(refused, Exception):
            self._turns.done(self._interval)
            return None
        if not _is_held(refused):
            return refused
        was_uncertain = self._turns.uncertain
        self._turns.done(self._interval)  # it is there, or another program's; its place will never be free
        return None if was_uncertain else refused


def _is_held(reply: Exception) -> bool:
    return isinstance(reply, ResponseError) and "equal or smaller than the target stream top item" in str(reply)
