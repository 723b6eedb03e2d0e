"""Pacing of the messages to a gateway: a token bucket that slows down after a 100, and the order of what waits. Pure.

IBKR allows 50 messages a second, all clients of an account together, and answers what is over it with error 100; such a
message is lost, and in reject mode the third one ends the connection. Whether the second slides is not public, so
messages are spread evenly. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

DEFAULT_RATE = 20.0
"""Messages a second. With the burst it is half of what IBKR allows: the other half is left to other clients."""

BURST_SECS = 0.25
"""The bucket holds the messages of so many seconds: a turn of the usual three slots begins without waiting."""

LEAST_RATE = 1.0
"""Messages a second that are left however often the gateway answers 100."""

SILENCE_SECS = 1.0
"""Nothing is sent for so long after a 100: the gateway's second is over by then, whoever filled it."""

FIRST_HOLD_SECS = 30.0
LONGEST_HOLD_SECS = 600.0
"""A lowered rate stands for so long before it recovers; twice as long each time that a recovery meets a 100."""

RECOVERY_SECS = 60.0
"""From nothing to the whole rate, added evenly."""

URGENT_IN_A_ROW = 4
"""After so many urgent messages one question is sent, if one waits: neither kind can starve the other."""

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
        self._hold = FIRST_HOLD_SECS

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
        """The gateway answered 100. Returns whether the rate is lowered: once for all the 100s of one second."""
        self._refill(now)
        if now < self._lowered_at + SILENCE_SECS:
            return False
        self._hold = FIRST_HOLD_SECS if self._rate >= self._whole else min(self._hold * 2, LONGEST_HOLD_SECS)
        self._lowered_at = now
        least = min(LEAST_RATE, self._whole)
        if self._rate <= least:
            return False  # no silence either: a gateway that never stops answering 100 would impose it for ever
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
    """What waits to be sent: urgent messages in their order, and questions, which give way to them."""

    def __init__(self) -> None:
        self._urgent: deque[T] = deque()
        self._questions: deque[T] = deque()
        self._in_a_row = 0  # urgent ones that were taken while a question waited

    def __len__(self) -> int:
        return len(self._urgent) + len(self._questions)

    @property
    def urgent(self) -> int:
        """How many urgent messages wait."""
        return len(self._urgent)

    def put(self, message: T, *, urgent: bool) -> None:
        """Add it behind all others of its kind."""
        (self._urgent if urgent else self._questions).append(message)

    def put_back(self, messages: Iterable[T]) -> None:
        """These were sent and are to be sent again: ahead of every urgent message, in this order."""
        self._urgent.extendleft(reversed(list(messages)))

    def find(self, is_meant: Callable[[T], bool]) -> T | None:
        """The first urgent message that waits and is meant; None if there is none."""
        return next(filter(is_meant, self._urgent), None)

    def withdraw(self, message: T) -> None:
        """Forget an urgent message. Raises ValueError if it does not wait."""
        self._urgent.remove(message)

    def take(self) -> T:
        """The next to be sent. Raises IndexError if none waits."""
        if self._urgent and not (self._questions and self._in_a_row >= URGENT_IN_A_ROW):
            self._in_a_row = self._in_a_row + 1 if self._questions else 0
            return self._urgent.popleft()
        self._in_a_row = 0
        return self._questions.popleft()

    def clear(self) -> None:
        """Forget all of them."""
        self._urgent.clear()
        self._questions.clear()
