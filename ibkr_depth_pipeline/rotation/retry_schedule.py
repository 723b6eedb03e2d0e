"""When symbols that were refused are asked for again. Pure; `now` is the controller's seconds.

A refusal proves little: gateways refuse sound symbols around restarts, after an outage and before their data farms are
up (docs/ibkr-market-depth.md, "Error codes"). So a refused symbol is retried after seconds, with exponential back-off;
the operator's longest interval is reached by refusals in good health alone. News of a farm that is well, the end of an
outage and a new connection make every symbol due at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

FIRST_RETRY_SECS = 5.0
UNPROVEN_RETRY_SECS = 60.0
"""Longest interval for a refusal that proves nothing."""
RECORDED_RETRY_SECS = 300.0
"""Longest interval for a symbol that has had rows in this run."""
BACKOFF_IN_HEALTH, BACKOFF_UNPROVEN = 4.0, 2.0

SETTLING_SECS = 90.0
"""For so long after a connect, an outage or the trouble of a farm a refusal proves nothing."""

RECALL_PACE_SECS, LONGEST_RECALL_PACE_SECS = 3.0, 300.0
"""At least this long between two requests for one symbol, however often a farm is said to be well; it doubles with each
such recall that is answered by a refusal."""

RESOLVING_SECS = 30.0
"""A symbol whose contract is to be resolved is named again if no answer came within this."""

RETRY_BURST, BURST_SECS = 5, 1.0
"""Most symbols that are retried at once, and the seconds until the next burst."""

LONE_RETRY_SECS = 5.0
LONGEST_LONE_RETRY_SECS = 60.0
"""While every symbol is refused, one of them is tried at these intervals, doubling."""


@dataclass(slots=True)
class _Record:
    """What is known of one symbol's refusals."""

    refusals: int = 0  # in a row
    interval: float = 0.0
    recalls: int = 0  # in a row, without rows
    due: float = math.inf
    asked_at: float = -math.inf
    resolvable: bool = True
    is_aside: bool = False


class Due(NamedTuple):
    """A symbol to be retried: by a new request, or, where `resolve`, by resolving its contract anew first."""

    symbol: str
    resolve: bool


class RetrySchedule:
    """See the module. longest_secs is the operator's longest interval between two requests for a refused symbol."""

    def __init__(self, longest_secs: float) -> None:
        self._longest = longest_secs
        self._records: dict[str, _Record] = {}
        self._recorded: set[str] = set()
        self._settles_at = math.inf
        self._farm_heard = False
        self._troubled = False
        self._burst_at = -math.inf
        self._lone_at = -math.inf
        self._lone_pace = LONE_RETRY_SECS

    # ---- the health of the feed

    @property
    def feed_is_well(self) -> bool:
        """Whether a farm was said to be well, or rows came, on this connection, and no trouble stands."""
        return self._farm_heard and not self._troubled

    def in_good_health(self, now: float) -> bool:
        """Whether a refusal that comes now is to be believed."""
        return self.feed_is_well and now >= self._settles_at

    def connected(self, now: float) -> None:
        """A new connection is in use: every refusal is open again. Its farms may have been reported before."""
        self._settles_at = now + SETTLING_SECS
        for record in self._records.values():
            if record.is_aside:
                record.due = min(record.due, max(now, record.asked_at + RECALL_PACE_SECS))
        self._relax(now)

    def disconnected(self) -> None:
        """The connection is gone; nothing is known of the farms of the next one."""
        self._farm_heard = self._troubled = False

    def farms_well(self, now: float, *, troubled: bool) -> None:
        """A data farm is well; `troubled` says whether another one is not."""
        self._set_trouble(troubled, now)
        self._farm_heard = True
        self.recall(now)

    def farms_troubled(self, now: float) -> None:
        """A data farm is broken, or another session takes the data."""
        self._set_trouble(True, now)

    def outage_over(self, now: float) -> None:
        """The gateway has found IBKR again (1101, 1102)."""
        self._settles_at = max(now + SETTLING_SECS, self._settles_at if self._settles_at < math.inf else now)
        self._farm_heard = True
        self.recall(now)

    def _set_trouble(self, troubled: bool, now: float) -> None:
        if self._troubled != troubled:
            self._settles_at = now + SETTLING_SECS
        self._troubled = troubled

    def recall(self, now: float) -> None:
        """What refused symbols may have missed is there: each is due, at its own pace."""
        for record in self._records.values():
            if record.is_aside:
                pace = min(RECALL_PACE_SECS * 2.0**record.recalls, LONGEST_RECALL_PACE_SECS)
                at = max(now, record.asked_at + pace)
                if at < record.due:
                    record.due = at
                    record.recalls = min(record.recalls + 1, 10)
        self._relax(now)

    def _relax(self, now: float) -> None:
        self._lone_pace = LONE_RETRY_SECS
        self._lone_at = now

    # ---- one symbol

    def __contains__(self, symbol: str) -> bool:
        """Whether it stands aside."""
        record = self._records.get(symbol)
        return record is not None and record.is_aside

    def answered(self, symbol: str) -> None:
        """Rows of it came: whatever was refused before is over."""
        self._recorded.add(symbol)
        self._records.pop(symbol, None)
        self._farm_heard = True

    def resolved(self, symbol: str) -> None:
        """It has a contract and a venue, and is back in the rotation; its refusals stay counted until rows come."""
        record = self._records.get(symbol)
        if record is not None:
            record.is_aside, record.due = False, math.inf

    def refused(self, symbol: str, now: float, *, resolvable: bool) -> float:
        """It was refused: it stands aside. Returns the seconds until it is retried.

        resolvable: its contract is known, so that a request for depth is the retry.
        """
        record = self._records.setdefault(symbol, _Record())
        in_health = self.in_good_health(now)
        longest = self._longest if in_health else min(self._longest, UNPROVEN_RETRY_SECS)
        if symbol in self._recorded:
            longest = min(longest, RECORDED_RETRY_SECS)
        backoff = BACKOFF_IN_HEALTH if in_health else BACKOFF_UNPROVEN
        wanted = record.interval * backoff if record.refusals else FIRST_RETRY_SECS
        record.interval = min(wanted, longest)
        record.refusals += 1
        record.resolvable, record.is_aside = resolvable, True
        record.asked_at, record.due = now, now + record.interval
        return record.interval

    def forget(self, symbol: str) -> None:
        """It is not to be retried, and its refusals count no more."""
        self._records.pop(symbol, None)

    def disproved(self, symbol: str, now: float) -> None:
        """Rows came of a request that was refused: the symbol is due."""
        record = self._records.get(symbol)
        if record is not None and record.is_aside:
            record.due = min(record.due, max(now, record.asked_at + RECALL_PACE_SECS))

    # ---- time

    def next_due(self, alone: bool) -> float | None:
        """When `due` has something to return; `alone`: no symbol is left in the rotation. None: never."""
        times = [record.due for record in self._records.values() if record.is_aside]
        if not times:
            return None
        soonest = min(times)
        if alone:
            soonest = min(soonest, self._lone_at)
        return max(soonest, self._burst_at)

    def due(self, now: float, alone: bool) -> list[Due]:
        """The symbols to be retried now, those that waited longest first; `alone`: no symbol is left in the rotation.

        Each is named once; one whose contract is to be resolved is named again if no answer comes.
        """
        if now < self._burst_at:
            return []
        aside = [(record.due, record.asked_at, symbol) for symbol, record in self._records.items() if record.is_aside]
        chosen = [symbol for at, _, symbol in sorted(aside) if at <= now][:RETRY_BURST]
        if alone and aside and not chosen and now >= self._lone_at:
            chosen = [min(aside, key=lambda each: each[1])[2]]
        if alone and chosen:
            self._lone_at = now + self._lone_pace
            self._lone_pace = min(self._lone_pace * 2, LONGEST_LONE_RETRY_SECS)
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
