"""What adapts: how many subscriptions at once, how long a slot that was given back takes to be free, and how long a
symbol that stays silent keeps its slot. Pure."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.slots import Slot

_MOST_PATIENCE = 16  # a failed trial doubles the wait for the next one, up to this many times the operator's number

RELEASE_LESSONS = (0.5, 2.0)
"""Seconds to leave between a cancel and the next request, tried in turn after a 309 right after our own cancel."""


class BatchSize:
    """The size of a batch: one less at each 309, one more after enough turns without one.

    maximum is the operator's; recovery_turns the number of turns without a 309 before the batch grows. A trial that
    meets a 309 doubles that number for the next trial, so that a limit which stays costs ever fewer refusals.
    """

    def __init__(self, maximum: int, recovery_turns: int) -> None:
        self._maximum = maximum
        self._recovery_turns = recovery_turns
        self._patience = 1
        self._stable_turns = 0
        self._on_trial = False
        self.value = maximum

    def shrink(self) -> None:
        """A 309: one less at once, never below 1."""
        self.value = max(1, self.value - 1)
        self._stable_turns = 0
        if self._on_trial:
            self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._on_trial = False

    def turn_without_refusal(self) -> None:
        """A turn went by without a 309. The batch may grow by one."""
        self._stable_turns += 1
        if self._on_trial:
            self._on_trial = False
            self._patience = 1
        if self.value < self._maximum and self._stable_turns >= self._recovery_turns * self._patience:
            self.value += 1
            self._stable_turns = 0
            self._on_trial = True


class ReleasePause:
    """How long the gateway takes to free a cancelled slot, learnt from refusals. `secs` is what to leave now."""

    def __init__(self) -> None:
        self.secs = 0.0
        self._proven = 0.0
        self._released_at: float | None = None

    def released(self, now: float) -> None:
        """A slot was given back, by a cancel or with the connection."""
        self._released_at = now

    @property
    def free_at(self) -> float:
        """When what was released last may be asked for."""
        return float("-inf") if self._released_at is None else self._released_at + self.secs

    def learn(self, now: float) -> bool:
        """A 309 came at `now`. True if it may be our own cancel's lateness, and then `secs` is longer than before.

        False means that the slot is not late but taken; what was learnt on the way is then forgotten.
        """
        elapsed = float("inf") if self._released_at is None else now - self._released_at
        longer = [lesson for lesson in RELEASE_LESSONS if lesson > max(elapsed, self.secs)]
        if not longer:
            self.secs = self._proven
            return False
        self.secs = longer[0]
        return True

    def proven(self) -> None:
        """A subscription asked for after the pause was granted."""
        self._proven = self.secs


HELD_AFTER_DROP_SECS = 20.0
"""For so long after a connect a gateway may count the subscriptions of a connection that broke."""

_TRIES_AFTER_DROP = (0.5, 1.0, 2.0)

GRANTED_SECS = 2.0
"""A request that was not refused for so long has its slot, whenever its first row may come."""


class AfterDrop:
    """The time after a connect in which a 309 may mean the slots of the connection before, this process's or another's.

    While `trying`, one request at a time is enough to learn whether they are free.
    """

    def __init__(self) -> None:
        self.trying = False
        self._over_at = float("-inf")
        self._again_at = float("-inf")
        self._tries = 0

    def connected(self, now: float) -> None:
        """A connection begins."""
        self.trying = False
        self._over_at = now + HELD_AFTER_DROP_SECS
        self._again_at = now
        self._tries = 0

    def granted(self) -> None:
        """A slot was had."""
        self.trying = False
        self._over_at = float("-inf")

    def refused(self, now: float) -> float | None:
        """A 309 came, and nothing was granted. In how many seconds to try again; None: the slots are taken for good."""
        if now > self._over_at:
            self.trying = False
            return None
        if now >= self._again_at:
            self._again_at = now + _TRIES_AFTER_DROP[min(self._tries, len(_TRIES_AFTER_DROP) - 1)]
            self._tries += 1
        self.trying = True
        return self._again_at - now


_LONGEST_WAIT = 4  # a symbol that stays silent is asked for again after 1, 2, and then every 4 caps


class Patience:
    """With symbols that stay silent: the longer they do, the more rarely they are asked for anew.

    first_row_cap is the wait for the first row of a symbol that answers, in seconds.
    """

    def __init__(self, first_row_cap: float) -> None:
        self._first_row_cap = first_row_cap
        self._fruitless: dict[str, int] = {}  # symbol -> how often it was asked for anew since it last answered

    def answered(self, symbol: str) -> None:
        """Rows of it came."""
        self._fruitless.pop(symbol, None)

    def runs_out(self, slot: Slot, now: float) -> bool:
        """Whether a subscription that could go on is to be made anew, since it has never answered; if so, it counts."""
        if slot.answered_at is not None:
            return False
        times = self._fruitless.get(slot.symbol, 0)
        if now < slot.requested_at + self._first_row_cap * min(2**times, _LONGEST_WAIT):
            return False
        self._fruitless[slot.symbol] = times + 1
        return True
