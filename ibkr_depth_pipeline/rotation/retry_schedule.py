"""When refused symbols and lost connectivity are retried, and which symbols take turns meanwhile. Pure.

A refusal proves little: gateways refuse sound symbols around restarts, after an outage and before their data farms are
up (docs/ibkr-market-depth.md, "Error codes"). So a refused symbol is retried after seconds, with exponential back-off;
the operator's longest interval is reached by refusals in good health alone. News of a farm that is well, the end of an
outage and a new connection make every symbol due at once.

An outage of IBKR (1100) whose end is never reported would never end: after a while lines are requested again on that
connection, and if no row follows, the connection is made again. IBKR's nightly reset takes seconds as a rule and many
minutes at times, so each round in vain doubles the time until the next. `now` is the controller's seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.rotation.events import Recheck, Rechecked, RotationCommand, SymbolSkipped, Wanted
from ibkr_depth_pipeline.rotation.ring import Priority, Ring

FIRST_RETRY_SECS = 5.0
UNPROVEN_RETRY_SECS = 60.0
"""The longest interval after a refusal that proves nothing."""
RECORDED_RETRY_SECS = 300.0
"""The longest interval for a symbol that has had rows in this run."""
_FACTOR_IN_HEALTH, _FACTOR_UNPROVEN = 4.0, 2.0

SETTLING_SECS = 90.0
"""How long after a connect, an outage or the trouble of a farm a refusal proves nothing."""

RECALL_PACE = Backoff(first=3.0, longest=300.0)
"""The least time between two requests for one symbol, however often a farm is reported well; it doubles with each such
recall that ends in a refusal."""

RESOLVING_SECS = 30.0
"""After so long without an answer a symbol is resolved again."""

RETRY_BURST, BURST_SECS = 5, 1.0
"""Most symbols that are retried at once, and the seconds until the next burst."""

LONE_RETRY = Backoff(first=5.0, longest=60.0)
"""While every symbol is refused, one of them is tried at these intervals."""


LONGEST_OUTAGE_SECS = 600.0
"""Most seconds between two rounds of an outage that goes on, unless the operator's number is larger."""


@dataclass(slots=True)
class _Record:
    """The refusals of one symbol."""

    interval: float = 0.0  # 0 before the first
    recalls: int = 0  # in a row, without rows
    due: float = math.inf
    asked_at: float = -math.inf
    resolvable: bool = True
    is_aside: bool = False


class Due(NamedTuple):
    """A symbol to retry: by a new request, or, if `resolve`, by resolving its contract again first."""

    symbol: str
    resolve: bool


class RetrySchedule:
    """Refused symbols, and when each is due. longest_secs: the operator's longest interval between two requests."""

    def __init__(self, longest_secs: float) -> None:
        self._longest = longest_secs
        self._records: dict[str, _Record] = {}
        self._recorded: set[str] = set()
        self._settles_at = math.inf
        self._farm_heard = False
        self._troubled = False
        self._burst_at = -math.inf
        self._lone_at = -math.inf
        self._lone_pace = LONE_RETRY.first

    # ---- the health of the feed

    @property
    def feed_is_well(self) -> bool:
        """Whether a farm was reported well, or rows came, on this connection, and no trouble stands."""
        return self._farm_heard and not self._troubled

    def in_good_health(self, now: float) -> bool:
        """Whether a refusal that comes now proves something."""
        return self.feed_is_well and now >= self._settles_at

    def connected(self, now: float) -> None:
        """Make every symbol due on a new connection. Its farms may have been reported before."""
        self._settles_at = now + SETTLING_SECS
        for record in self._records.values():
            if record.is_aside:
                record.due = min(record.due, max(now, record.asked_at + RECALL_PACE.first))
        self._relax(now)

    def disconnected(self) -> None:
        """Forget the farms of a connection that is gone."""
        self._farm_heard = self._troubled = False

    def farms_well(self, now: float, *, troubled: bool) -> None:
        """Note that a data farm is well. troubled: whether another one is not."""
        self._set_trouble(troubled, now)
        self._farm_heard = True
        self.recall(now)

    def farms_troubled(self, now: float) -> None:
        """Note that a data farm is broken, or another session takes the data."""
        self._set_trouble(True, now)

    def outage_over(self, now: float) -> None:
        """Note that the gateway has found IBKR again (1101, 1102)."""
        self._settles_at = max(now + SETTLING_SECS, self._settles_at if self._settles_at < math.inf else now)
        self._farm_heard = True
        self.recall(now)

    def _set_trouble(self, troubled: bool, now: float) -> None:
        if self._troubled != troubled:
            self._settles_at = now + SETTLING_SECS
        self._troubled = troubled

    def recall(self, now: float) -> None:
        """Make every refused symbol due, at its own pace: what it was refused for may be there now."""
        for record in self._records.values():
            if record.is_aside:
                at = max(now, record.asked_at + RECALL_PACE.pause(record.recalls + 1))
                if at < record.due:
                    record.due = at
                    record.recalls += 1
        self._relax(now)

    def _relax(self, now: float) -> None:
        self._lone_pace = LONE_RETRY.first
        self._lone_at = now

    # ---- one symbol

    def __contains__(self, symbol: str) -> bool:
        """Whether the symbol stands aside."""
        record = self._records.get(symbol)
        return record is not None and record.is_aside

    def answered(self, symbol: str) -> None:
        """Forget the refusals of a symbol that has rows."""
        self._recorded.add(symbol)
        self._records.pop(symbol, None)
        self._farm_heard = True

    def resolved(self, symbol: str) -> None:
        """Take a symbol with a contract back into the rotation; its refusals stay counted until rows come."""
        record = self._records.get(symbol)
        if record is not None:
            record.is_aside, record.due = False, math.inf

    def refused(self, symbol: str, now: float, *, resolvable: bool) -> float:
        """Set a refused symbol aside. Returns the seconds until it is retried.

        resolvable: its contract is known, so that the retry is a request for depth.
        """
        record = self._records.setdefault(symbol, _Record())
        in_health = self.in_good_health(now)
        longest = self._longest if in_health else min(self._longest, UNPROVEN_RETRY_SECS)
        if symbol in self._recorded:
            longest = min(longest, RECORDED_RETRY_SECS)
        backoff = Backoff(FIRST_RETRY_SECS, longest, _FACTOR_IN_HEALTH if in_health else _FACTOR_UNPROVEN)
        record.interval = backoff.longer(record.interval)
        record.resolvable, record.is_aside = resolvable, True
        record.asked_at, record.due = now, now + record.interval
        return record.interval

    def forget(self, symbol: str) -> None:
        """Retry the symbol no more, and forget its refusals."""
        self._records.pop(symbol, None)

    def disproved(self, symbol: str, now: float) -> None:
        """Make a symbol due: rows of its refused request came."""
        record = self._records.get(symbol)
        if record is not None and record.is_aside:
            record.due = min(record.due, max(now, record.asked_at + RECALL_PACE.first))

    # ---- time

    def next_due(self, alone: bool) -> float | None:
        """When `due` has something to return; None: never. alone: no symbol is left in the rotation."""
        times = [record.due for record in self._records.values() if record.is_aside]
        if not times:
            return None
        soonest = min(times)
        if alone:
            soonest = min(soonest, self._lone_at)
        return max(soonest, self._burst_at)

    def due(self, now: float, alone: bool) -> list[Due]:
        """The symbols to retry now, those that waited longest first. alone: no symbol is left in the rotation.

        Each is returned once; one whose contract is to be resolved is returned again if no answer comes.
        """
        if now < self._burst_at:
            return []
        aside = [(record.due, record.asked_at, symbol) for symbol, record in self._records.items() if record.is_aside]
        chosen = [symbol for at, _, symbol in sorted(aside) if at <= now][:RETRY_BURST]
        if alone and aside and not chosen and now >= self._lone_at:
            chosen = [min(aside, key=lambda each: each[1])[2]]
        if alone and chosen:
            self._lone_at = now + self._lone_pace
            self._lone_pace = LONE_RETRY.longer(self._lone_pace)
        if chosen:
            self._burst_at = now + BURST_SECS
        return [self._retry(symbol, now) for symbol in chosen]

    def _retry(self, symbol: str, now: float) -> Due:
        record = self._records[symbol]
        resolve = not record.resolvable or record.interval >= self._longest
        record.asked_at = now
        if resolve:
            record.due = now + max(record.interval, RESOLVING_SECS)
        else:
            self.resolved(symbol)
        return Due(symbol, resolve)


class OutageAction(Enum):
    """What an outage without news leads to."""

    RESUBSCRIBE = "resubscribe"  # every line, on this connection
    RECONNECT = "reconnect"


class Outage:
    """The gateway's outage, if any (1100). patience: seconds without news until lines are requested again."""

    def __init__(self, patience: float) -> None:
        self._backoff = Backoff(patience, max(patience, LONGEST_OUTAGE_SECS))
        self._rounds = 0  # connections given up since the last row
        self.suspended = False
        """Whether the gateway lost IBKR, and nothing has been tried since."""
        self.due: float | None = None
        """When `step` has something to do; None: never."""

    def connected(self, suspended: bool, now: float) -> None:
        """Begin with a new connection. suspended: the gateway has reported the loss on it already."""
        self.suspended, self.due = False, None
        if suspended:
            self.begins(now)

    def disconnected(self) -> None:
        """Forget the outage of a connection that is gone."""
        self.suspended, self.due = False, None

    def begins(self, now: float) -> None:
        """The gateway lost IBKR. A repeated report does not extend the outage."""
        if not self.suspended:
            self.suspended, self.due = True, now + self._backoff.pause(self._rounds + 1)

    def ends(self) -> None:
        """The gateway found IBKR, by its report or by rows."""
        self.suspended, self.due = False, None

    def may_be_over(self, now: float) -> None:
        """The outage may be over: lines are requested again, and must bring rows."""
        self.suspended, self.due = False, now + self._backoff.pause(self._rounds + 1)

    def answered(self) -> None:
        """Note rows of a line."""
        if not self.suspended:
            self.due, self._rounds = None, 0

    def step(self, now: float) -> OutageAction | None:
        """What to do at `now`; each action is returned once. None: nothing yet."""
        if self.due is None or now < self.due:
            return None
        if self.suspended:
            self.may_be_over(now)
            return OutageAction.RESUBSCRIBE
        self.due = None
        self._rounds += 1
        return OutageAction.RECONNECT


class Eligibility:
    """Moves symbols between `ring` and `retries`; a closed or removed symbol is in neither."""

    def __init__(self, ring: Ring, retries: RetrySchedule) -> None:
        self._ring = ring
        self._retries = retries
        self._closed: set[str] = set()
        self._removed: set[str] = set()

    def is_absent(self, symbol: str) -> bool:
        """Whether the symbol is to have no turn: its market is closed, or it was removed."""
        return symbol in self._closed or symbol in self._removed

    def want(self, event: Wanted) -> None:
        """Set a symbol's priority; one that was removed may join again."""
        self._removed.discard(event.symbol)
        self._ring.set_priority(event.symbol, Priority(event.weight, event.pinned))

    def open(self, symbol: str, *, resolved: bool = True) -> bool:
        """Take in a symbol whose market has opened, if its contract is resolved. Returns whether it may have turns."""
        self._closed.discard(symbol)
        if self.is_absent(symbol) or not resolved:
            return False
        if symbol not in self._ring and symbol not in self._retries:
            self._ring.take_in(symbol)
        return True

    def close(self, symbol: str) -> None:
        """Take out a symbol whose market is closed."""
        self._closed.add(symbol)
        self._ring.remove(symbol)
        self._retries.forget(symbol)

    def remove(self, symbol: str) -> None:
        """Take out a symbol for good, unless it is wanted again."""
        self._closed.discard(symbol)
        self._removed.add(symbol)
        self._ring.forget(symbol)
        self._retries.forget(symbol)

    # ---- refusals

    def set_aside(self, symbol: str, reason: str, now: float, *, resolvable: bool) -> list[RotationCommand]:
        """Take out a refused symbol until it is retried. resolvable: its contract is known."""
        if self.is_absent(symbol):
            return []
        self._ring.remove(symbol)
        return [SymbolSkipped(symbol, reason, self._retries.refused(symbol, now, resolvable=resolvable))]

    def recheck(self, event: Rechecked, now: float) -> list[RotationCommand]:
        """Take in a symbol that can be subscribed to, or set it aside."""
        if event.symbol in self._ring or self.is_absent(event.symbol):
            return []
        if not event.supported:
            return self.set_aside(event.symbol, event.reason, now, resolvable=False)
        if event.symbol in self._retries:
            self._retries.resolved(event.symbol)
            self._ring.take_back(event.symbol)
        else:
            self._ring.take_in(event.symbol)
        return []

    def retry(self, now: float) -> list[RotationCommand]:
        """Take the symbols back whose retry is due, or have their contracts resolved."""
        commands: list[RotationCommand] = []
        for symbol, resolve in self._retries.due(now, self._none_left()):
            if resolve:
                commands.append(Recheck(symbol))
            else:
                self._ring.take_back(symbol)
        return commands

    def next_retry(self) -> float | None:
        """When `retry` has something to do; None: never."""
        return self._retries.next_due(self._none_left())

    def _none_left(self) -> bool:
        return not len(self._ring)
