"""Paces the messages to a gateway: a token bucket that slows down after a 100, and the order of what waits. Pure.

docs/ibkr-market-depth.md, "Pacing": 50 messages a second over all clients of an account; a message over that is lost,
answered by error 100, and in reject mode the third such message ends the connection. Whether the second slides is not
public, so messages are spread evenly. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from ibkr_depth_pipeline.backoff import Backoff

DEFAULT_RATE = 20.0
"""Messages a second. With the burst it is half of what IBKR allows: the other half is left to other clients."""

BURST_SECS = 0.25
"""The bucket holds the messages of so many seconds: a turn of the usual three slots begins without waiting."""

LEAST_RATE = 1.0
"""Messages a second that remain after any number of 100s."""

SILENCE_SECS = 1.0
"""Nothing is sent for so long after a 100: the gateway's second is over by then."""

HOLD = Backoff(first=30.0, longest=600.0)
"""A lowered rate stands for so long before it recovers; twice as long each time that a recovery meets a 100."""

RECOVERY_SECS = 60.0
"""Time of a recovery from zero to the whole rate, in even steps."""

URGENT_IN_A_ROW = 4
"""After so many urgent messages one waiting query is sent: neither kind can starve the other."""

SUSPECT_SECS = 2.0
"""A 100 may refer to any message of the last so many seconds: the gateway's second, and the way there and back."""

OPEN_ORDERS, DETAILS, DEPTH, CANCEL, TIME, START, DEPTH_EXCHANGES = 5, 9, 10, 11, 49, 71, 82
"""Message types, by the number that begins a message."""

_QUERIES = (DETAILS, DEPTH_EXCHANGES)
_WITH_REQUEST = (DETAILS, DEPTH, CANCEL)
_ROUNDING = 1e-9

T = TypeVar("T")


class TokenBucket:
    """Allows `rate` messages a second: in no span of t seconds more than rate * (t + BURST_SECS), or one.

    A 100 halves the rate (`violated`); later it recovers by steady additions.
    """

    def __init__(self, rate: float) -> None:
        self._whole = rate
        self._rate = rate
        self._tokens = self._burst
        self._at = float("-inf")
        self._lowered_at = float("-inf")
        self._hold = HOLD.first

    @property
    def rate(self) -> float:
        """Messages a second in force."""
        return self._rate

    @property
    def _burst(self) -> float:
        return max(1.0, self._rate * BURST_SECS)

    def take(self, now: float) -> bool:
        """Whether a message may be sent now; if so, it counts as sent."""
        if self.ready_at(now) > now:
            return False
        self._tokens -= 1
        return True

    def ready_at(self, now: float) -> float:
        """When the next message may be sent; `now` if at once."""
        self._refill(now)
        missing = 1 - self._tokens
        return now if missing < _ROUNDING else now + missing / self._rate

    def violated(self, now: float) -> bool:
        """Takes a 100 of the gateway; returns whether the rate is lowered: once for all the 100s of one second."""
        self._refill(now)
        if now < self._lowered_at + SILENCE_SECS:
            return False
        self._hold = HOLD.first if self._rate >= self._whole else HOLD.longer(self._hold)
        self._lowered_at = now
        least = min(LEAST_RATE, self._whole)
        if self._rate <= least:
            return False  # and no silence, which a gateway that never stops answering 100 would make permanent
        self._rate = max(self._rate / 2, least)
        self._tokens = min(self._tokens, 1 - SILENCE_SECS * self._rate)
        return True

    def _refill(self, now: float) -> None:
        if now <= self._at:
            return
        since, self._at = self._at, now
        self._tokens = min(self._burst, self._tokens + (now - max(since, now - 3600)) * self._rate)
        recovering = now - max(since, self._lowered_at + self._hold)
        if recovering > 0 and self._rate < self._whole:
            self._rate = min(self._whole, self._rate + self._whole * recovering / RECOVERY_SECS)


class SendQueue(Generic[T]):
    """Messages that wait to be sent: urgent ones in their order, and queries, which give way to them."""

    def __init__(self) -> None:
        self._urgent: deque[T] = deque()
        self._queries: deque[T] = deque()
        self._in_a_row = 0  # urgent messages taken while a query waited

    def __len__(self) -> int:
        return len(self._urgent) + len(self._queries)

    @property
    def urgent(self) -> int:
        """Number of urgent messages that wait."""
        return len(self._urgent)

    def put(self, message: T, *, urgent: bool) -> None:
        """Adds a message behind all others of its kind."""
        (self._urgent if urgent else self._queries).append(message)

    def put_back(self, messages: Iterable[T]) -> None:
        """Adds messages that are to be sent again ahead of every urgent one, in this order."""
        self._urgent.extendleft(reversed(list(messages)))

    def find(self, matches: Callable[[T], bool]) -> T | None:
        """The first urgent message that waits and matches; None if there is none."""
        return next(filter(matches, self._urgent), None)

    def withdraw(self, message: T) -> None:
        """Removes an urgent message. Raises ValueError if it does not wait."""
        self._urgent.remove(message)

    def take(self) -> T:
        """Removes and returns the next message. Raises IndexError if none waits."""
        if self._urgent and not (self._queries and self._in_a_row >= URGENT_IN_A_ROW):
            self._in_a_row = self._in_a_row + 1 if self._queries else 0
            return self._urgent.popleft()
        self._in_a_row = 0
        return self._queries.popleft()

    def clear(self) -> None:
        """Removes all messages."""
        self._urgent.clear()
        self._queries.clear()


class Outgoing(NamedTuple):
    """A message as ib_insync wrote it; `kind` is its type's number, `request` its id, or 0 if it has none."""

    text: str
    kind: int
    request: int
    again: bool = False
    """Whether it is sent once more, as the first one may be lost."""

    @classmethod
    def of_text(cls, text: str) -> Outgoing:
        """Parses type and request id, which are among the first three fields."""
        fields = text.split("\0", 3)
        kind = int(fields[0])
        return cls(text, kind, int(fields[2]) if kind in _WITH_REQUEST else 0)


class SendSchedule:
    """Decides when each message is sent: urgent ones first, each kind in its order, at the pace of `bucket`.

    A 100 names no message, so all that were sent within SUSPECT_SECS before it may be lost. Each is sent once more if
    is_needed(message) holds: a cancel that was processed is answered by 310, a depth request that was accepted by 322,
    and neither changes anything. Several schedules may share one bucket: the limit is the account's.
    """

    def __init__(self, bucket: TokenBucket, is_needed: Callable[[Outgoing], bool]) -> None:
        self._bucket = bucket
        self._is_needed = is_needed
        self._queue: SendQueue[Outgoing] = SendQueue()
        self._sent: deque[tuple[float, Outgoing]] = deque()

    @property
    def urgent(self) -> int:
        """Number of urgent messages that wait."""
        return self._queue.urgent

    def put(self, message: Outgoing) -> None:
        """Queues a message, which `due` yields when its turn comes, unless one that waits makes it needless.

        A cancel withdraws its depth request if that was not sent yet, and one query for the time serves all callers. At
        a low rate the queue would otherwise only grow, and each request would be cancelled before it is sent.
        """
        if message.kind == CANCEL and self._withdraw_request(message.request):
            return
        if message.kind == TIME and self._queue.find(lambda waiting: waiting.kind == TIME) is not None:
            return
        self._queue.put(message, urgent=message.kind not in _QUERIES)

    def _withdraw_request(self, request: int) -> bool:
        """Removes a depth request that was never sent; returns whether there was one."""
        unsent = self._queue.find(lambda each: (each.kind, each.request, each.again) == (DEPTH, request, False))
        if unsent is not None:
            self._queue.withdraw(unsent)
        return unsent is not None

    def due(self, now: float) -> Iterator[Outgoing]:
        """Yields the messages to write now; each counts as sent."""
        while self._queue and self._bucket.ready_at(now) <= now:
            message = self._queue.take()
            if message.again and not self._is_needed(message):
                continue
            self._bucket.take(now)
            while self._sent and self._sent[0][0] < now - SUSPECT_SECS:
                self._sent.popleft()
            self._sent.append((now, message))
            yield message

    def next_at(self, now: float) -> float | None:
        """When `due` is to be called again; None while nothing waits."""
        return self._bucket.ready_at(now) if self._queue else None

    def violated(self, now: float) -> bool:
        """Takes a 100: lowers the rate and queues again what may be lost. Returns whether the rate was lowered.

        Contract details are left out: their caller asks again under another id.
        """
        lowered = self._bucket.violated(now)
        suspects = [message for at, message in self._sent if at >= now - SUSPECT_SECS and message.kind != DETAILS]
        self._sent.clear()
        self._queue.put_back(message._replace(again=True) for message in suspects)
        return lowered

    @property
    def rate(self) -> float:
        """Messages a second in force."""
        return self._bucket.rate

    def clear(self) -> None:
        """Forgets all messages: the connection is gone."""
        self._queue.clear()
        self._sent.clear()
