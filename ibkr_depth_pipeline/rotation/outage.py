"""The gateway's own outages: it says that it lost IBKR's servers (1100), and may never say that it found them. Pure.

While it is suspended nothing is asked for, as nothing could answer. An outage whose end is never said would last for
ever, so after a while lines are asked for again on that connection all the same, and where no row comes of that, the
connection is made anew. IBKR's nightly reset takes seconds as a rule and many minutes at times: each round in vain
doubles the time until the next.
"""

from __future__ import annotations

from enum import Enum

LONGEST_OUTAGE_SECS = 600.0
"""Most seconds between two rounds of an outage that goes on, unless the operator's number is larger."""


class Step(Enum):
    """What to do now."""

    ASK_AGAIN = "ask again"  # for every line, on this connection
    RECONNECT = "reconnect"


class Outage:
    """One at a time. patience: seconds without news until lines are asked for again. `now` is in seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._rounds = 0  # connections given up since the last row
        self.suspended = False
        """Whether the gateway says that it lost IBKR, and nothing has been tried since."""
        self.due: float | None = None
        """When `step` has something to do, unless something is heard before."""

    def connected(self, suspended: bool, now: float) -> None:
        """A connection begins. suspended: it has said so already."""
        self.suspended, self.due = False, None
        if suspended:
            self.begins(now)

    def disconnected(self) -> None:
        """The connection is gone."""
        self.suspended, self.due = False, None

    def begins(self, now: float) -> None:
        """The gateway says that it lost IBKR. Saying it again draws nothing out."""
        if not self.suspended:
            self.suspended, self.due = True, now + self._secs()

    def ends(self) -> None:
        """The gateway says that it found IBKR, or rows say so."""
        self.suspended, self.due = False, None

    def is_doubted(self, now: float) -> None:
        """Something else says that it may be over: lines are asked for again, and must bring rows."""
        self.suspended, self.due = False, now + self._secs()

    def answered(self) -> None:
        """A line has brought rows."""
        if not self.suspended:
            self.due, self._rounds = None, 0

    def step(self, now: float) -> Step | None:
        """What to do at `now`; each step is named once. None: nothing yet."""
        if self.due is None or now < self.due:
            return None
        if self.suspended:
            self.is_doubted(now)
            return Step.ASK_AGAIN
        self.due = None
        self._rounds += 1
        return Step.RECONNECT

    def _secs(self) -> float:
        return max(self._patience, min(self._patience * 2.0 ** min(self._rounds, 20), LONGEST_OUTAGE_SECS))
