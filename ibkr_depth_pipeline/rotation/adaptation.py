"""What adapts: how many subscriptions at once, how long nothing is asked for after a 309, and how long a symbol that
stays silent keeps its slot. Pure."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.slots import Slot

_MOST_PATIENCE = 16  # a failed trial doubles the wait for the next one, up to this many times the operator's number


class BatchSize:
    """The size of a batch: less at each 309, one more after enough turns without one.

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

    def shrink(self, held: int) -> None:
        """A 309 beside `held` subscriptions: at once no more than those and one less than before, never below 1."""
        self.value = max(1, min(self.value - 1, held))
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


FIRST_COOLDOWN_SECS = 0.25
LONGEST_COOLDOWN_SECS = 8.0
"""After a 309 while no slot is granted, whatever the operator's cooldown: at least so long, doubled up to the other."""


class Cooldown:
    """How long nothing is asked for after slots were found taken: the operator's secs, or a back-off if that is longer.

    The back-off doubles with each 309 that nothing was granted before, so that no setting makes a storm of requests.
    """

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self._back_off = FIRST_COOLDOWN_SECS

    def granted(self) -> None:
        """A slot was had."""
        self._back_off = FIRST_COOLDOWN_SECS

    def next_secs(self) -> float:
        """A 309 came: how long nothing is to be asked for."""
        secs = max(self._secs, self._back_off)
        self._back_off = min(2 * self._back_off, LONGEST_COOLDOWN_SECS)
        return secs


HELD_AFTER_DROP_SECS = 20.0
"""For so long after a connect a gateway may count the subscriptions of a connection that broke."""

_TRIES_AFTER_DROP = (0.5, 1.0, 2.0)

GRANTED_SECS = 2.0
"""A request that was not refused for so long has its slot, whenever its first row may come."""


class ReconnectGrace:
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


class FirstRowBackoff:
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
