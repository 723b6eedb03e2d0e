"""Decides how many slots may be requested, from when on, and what a 309 means for that. Pure.

A 309 does not show why no slot is free. Right after slots were given back, by our cancels or with a connection that
broke, the gateway may be late in freeing them: the next request waits. Otherwise others hold them, and the batch
shrinks (docs/ibkr-market-depth.md, "Slots").

`ReleasePause` is learned from refusals and grants, and unlearned: a 309 right after our own cancel teaches a pause
between a cancel and the next request. A shorter pause is tried now and then with one request, so that a trial costs one
309 at most: granted, it is the pause from then on and the next trial follows a turn later; refused, it is a lower bound
of the lag and the next trial waits for twice as many turns. So a gateway that was late once costs little, and one that
stays late ever fewer refusals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.rotation.slots import Slot

_PATIENCE = Backoff(first=1, longest=16)  # times recovery_turns between two trials of a larger batch


class BatchSize:
    """The number of subscriptions at once: fewer after each 309, one more after enough turns without one.

    maximum: the operator's limit; recovery_turns: turns without a 309 before the batch grows. A trial that meets a 309
    doubles that number for the next trial, so that a limit which stays costs ever fewer refusals.
    """

    def __init__(self, maximum: int, recovery_turns: int) -> None:
        self._maximum = maximum
        self._recovery_turns = recovery_turns
        self._patience = _PATIENCE.first
        self._stable_turns = 0
        self._on_trial = False
        self.value = maximum

    def begin_with(self, slots: int) -> None:
        """Allow no more than `slots` until the batch has grown."""
        self.value = max(1, min(self.value, slots))

    def shrink(self, held: int) -> None:
        """Allow no more than the `held` subscriptions beside which a 309 came, and one less than before; at least 1."""
        self.value = max(1, min(self.value - 1, held))
        self._stable_turns = 0
        if self._on_trial:
            self._patience = _PATIENCE.longer(self._patience)
        self._on_trial = False

    def turn_without_refusal(self) -> None:
        """Count a turn without a 309. The batch may grow by one."""
        self._stable_turns += 1
        if self._on_trial:
            self._on_trial = False
            self._patience = _PATIENCE.first
        if self.value < self._maximum and self._stable_turns >= self._recovery_turns * self._patience:
            self.value += 1
            self._stable_turns = 0
            self._on_trial = True


COOLDOWN_BACKOFF = Backoff(first=0.25, longest=8.0)
"""The shortest cooldown after the n-th 309 in a row, in seconds, for any setting."""


class Cooldown:
    """How long nothing is requested after slots were found taken: the operator's `secs`, or a longer back-off.

    The back-off grows with each 309 until a slot is granted, so that no setting makes a storm of requests.
    """

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self._refusals = 0

    def granted(self) -> None:
        """A slot was granted."""
        self._refusals = 0

    def next_secs(self) -> float:
        """The cooldown after one more 309."""
        self._refusals += 1
        return max(self._secs, COOLDOWN_BACKOFF.pause(self._refusals))


HELD_AFTER_DROP_SECS = 20.0
"""How long after a connect a gateway may count the subscriptions of a connection that broke."""

_PROBE_BACKOFF = Backoff(first=0.5, longest=2.0)

GRANTED_SECS = 2.0
"""A request that was not refused for so long has its slot, even before its first row."""


class ReconnectGrace:
    """The time after a connect in which a 309 may mean the slots of an earlier connection, this process's or another's.

    While `trying`, one request at a time finds out whether they are free.
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
        """A slot was granted."""
        self.trying = False
        self._over_at = float("-inf")

    def refused(self, now: float) -> float | None:
        """In how many seconds to try again after a 309 without a grant; None: the slots are taken for good."""
        if now > self._over_at:
            self.trying = False
            return None
        if now >= self._again_at:
            self._tries += 1
            self._again_at = now + _PROBE_BACKOFF.pause(self._tries)
        self.trying = True
        return self._again_at - now


RELEASE_LESSONS = (0.5, 2.0)
"""Seconds between a cancel and the next request, tried in turn after a 309 right after our own cancel."""

FIRST_TRIAL_TURNS = 16
LONGEST_TRIAL_TURNS = 1024
"""Turns without a refusal before a shorter pause is tried: at first, and at most."""

LEAST_PAUSE_SECS = 0.02
"""The shortest pause; a shorter one counts as 0."""

_CLOSE = 0.25  # share of the pause: bounds of the lag nearer than that are not narrowed further


class ReleasePause:
    """The pause between a cancel and the next request.

    `secs` is the pause in force; a trial of a shorter one counts for one release.
    """

    def __init__(self) -> None:
        self.secs = 0.0
        self._proven = 0.0  # a request after so long was granted
        self._refused_after = 0.0  # a request after so long was refused: the lag is longer
        self._released_at = -math.inf
        self._clean_turns = 0  # since the last refusal or trial
        self._trial_turns = FIRST_TRIAL_TURNS
        self._is_due = False  # at the next release, a trial begins
        self._trial: float | None = None  # the pause under trial
        self._trial_request: int | None = None  # the request that tries it, once it was sent

    def begin_with(self, secs: float) -> None:
        """Start from a pause that was measured. Shorter ones are tried as if it had been learned."""
        self.secs = self._proven = secs

    # ---- what can be asked

    @property
    def free_at(self) -> float:
        """When the slot released last may be requested."""
        trying = self._trial if self._trial_request is None else None
        return self._released_at + (self.secs if trying is None else trying)

    def is_trying(self, now: float) -> bool:
        """Whether a request made now tries a shorter pause, so that it is to go alone."""
        return self._trial is not None and self._trial_request is None and now < self._released_at + self.secs

    # ---- what happens

    def connected(self) -> None:
        """End the trial: a 309 right after a connect is not about the pause."""
        self._end_trial()

    def turn_without_refusal(self) -> None:
        """Count a turn in which the batch did not shrink. A trial may be due."""
        self._clean_turns += 1
        if self.secs:
            self._is_due = self._clean_turns >= self._trial_turns
        elif self._clean_turns >= LONGEST_TRIAL_TURNS:
            self._trial_turns = FIRST_TRIAL_TURNS

    def released(self, now: float) -> None:
        """Start the pause: a slot was given back, by a cancel or with the connection."""
        if now > self._released_at:
            self._end_trial()
            if self._is_due:
                self._is_due = False
                self._trial = self._shorter()
        self._released_at = now

    def asked(self, request: int, now: float) -> None:
        """Note the first request after a release."""
        if self.is_trying(now):
            self._trial_request = request
        elif self._trial_request is None:
            self._trial = None  # too late to try anything

    def granted(self, request: int) -> None:
        """Note a grant after the pause: the pause, or the shorter one under trial, is long enough."""
        if self._trial is not None and request == self._trial_request:
            self.secs = self._trial
            self._clean_turns = self._trial_turns - 1  # the next one follows at once
            self._end_trial()
        elif self.secs > self._proven:  # learned just now
            self._rarer()
        self._proven = self.secs

    def trial_refused(self, request: int, now: float) -> float | None:
        """In how many seconds the pause in force is over, if a 309 ends the trial of a shorter one; else None."""
        if self._trial is None or request != self._trial_request:
            return None
        self._refused_after = self._trial
        self._end_trial()
        self._rarer()
        return max(0.0, self.free_at - now)

    def learn(self, now: float) -> bool:
        """Lengthen `secs` after a 309 at `now`, if our own cancel may be late; returns whether it was.

        False: the slot is not late but taken; what was learned on the way is forgotten.
        """
        elapsed = now - self._released_at
        longer = [lesson for lesson in RELEASE_LESSONS if lesson > max(elapsed, self.secs)]
        self._clean_turns = 0
        if not longer:
            self.secs = self._proven
            return False
        self._refused_after = self.secs
        self.secs = longer[0]
        return True

    # ---- trials

    def _shorter(self) -> float:
        """The pause to try next: half-way to the longest one refused; once that is near, 0 is the bound."""
        if self.secs - self._refused_after <= max(LEAST_PAUSE_SECS, _CLOSE * self.secs):
            self._refused_after = 0.0
        shorter = (self._refused_after + self.secs) / 2
        return shorter if shorter >= LEAST_PAUSE_SECS else 0.0

    def _rarer(self) -> None:
        self._clean_turns = 0
        self._trial_turns = min(2 * self._trial_turns, LONGEST_TRIAL_TURNS)

    def _end_trial(self) -> None:
        self._trial = self._trial_request = None


@dataclass(frozen=True, slots=True)
class BatchResized:
    """For the log, and for heartbeats: from now on at most `size` subscriptions at once."""

    size: int
    previous: int
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class SlotReleasedLate:
    """For the log: a slot was refused right after slots were given back; the next request follows in pause_secs."""

    symbol: str
    pause_secs: float


class SlotAllocator:
    """Allocates the slots of the account. `now` is the controller's seconds.

    max_batch, recovery_turns: see BatchSize; cooldown: least seconds without a request after slots were found taken.
    """

    def __init__(self, max_batch: int, recovery_turns: int, cooldown: float) -> None:
        self._size = BatchSize(max_batch, recovery_turns)
        self._cooldown = Cooldown(cooldown)
        self._pause = ReleasePause()
        self._grace = ReconnectGrace()
        self._held = max_batch  # when a slot was last given back
        self._asked: Sequence[int] = ()  # the requests that were made together last, in order
        self._refused: set[int] = set()  # those of them that met a 309
        self.quiet_until = -math.inf
        """Nothing is requested before this time after a 309, and no turn is over."""

    # ---- how many, and when

    @property
    def batch_size(self) -> int:
        """Most slots at once for now."""
        return self._size.value

    @property
    def at_once(self) -> int:
        """`batch_size`, or 1 while a request finds out whether slots are free at all."""
        return 1 if self._grace.trying else self._size.value

    def most_new(self, now: float) -> int:
        """Most requests that may be made together now: 1 if the request is a trial."""
        return 1 if self._pause.is_trying(now) or self._grace.trying else self._size.value

    @property
    def pause_secs(self) -> float:
        """The pause between a cancel and the next request."""
        return self._pause.secs

    @property
    def free_at(self) -> float:
        """From when on slots may be requested."""
        return max(self.quiet_until, self._pause.free_at)

    def granted_at(self, slots: Collection[Slot]) -> float:
        """When silence after the one request on trial means that slots are free; -inf without a trial."""
        if not self._grace.trying:
            return -math.inf
        return max((slot.requested_at + GRANTED_SECS for slot in slots), default=-math.inf)

    # ---- what happens

    def begin_with(self, slots: int | None, release_pause: float | None) -> None:
        """Start from what is known of the account; None: nothing."""
        if slots is not None:
            self._size.begin_with(slots)
        if release_pause is not None:
            self._pause.begin_with(release_pause)

    def connected(self, now: float) -> None:
        """Begin with a new connection. The gateway may still count the slots of an earlier one."""
        self._held = self.batch_size
        self._pause.connected()
        self._grace.connected(now)

    def asked(self, requests: Sequence[int], now: float) -> None:
        """Note requests, at least one, that were sent together, in this order."""
        self._asked, self._refused = requests, set()
        self._pause.asked(requests[0], now)

    def answered(self, request: int) -> None:
        """Note a request's first row: its slot was granted."""
        self._pause.granted(request)
        self._cooldown.granted()
        self._grace.granted()

    def was_free(self) -> None:
        """Note a refusal that is no slot refusal: the gateway checks for a slot first, so it had one."""
        self._cooldown.granted()
        self._grace.granted()

    def stayed_silent(self, slots: Collection[Slot], now: float) -> None:
        """Note that no 309 has come for these by now."""
        if self._grace.trying and slots and now >= self.granted_at(slots):
            self._grace.granted()

    def giving_back(self, held: int) -> None:
        """Some of the `held` slots are about to be given back, so that as many can be had again."""
        self._held = held

    def released(self, now: float) -> None:
        """One or more slots were given back."""
        self._pause.released(now)

    def turn_without_refusal(self) -> list[BatchResized]:
        """Count a turn without a 309. The batch may grow, and a shorter pause be tried."""
        previous = self.batch_size
        self._pause.turn_without_refusal()
        self._size.turn_without_refusal()
        return [BatchResized(self.batch_size, previous)] if self.batch_size != previous else []

    # ---- 309

    def secs_until_free(self, request: int, held: int, now: float) -> float | None:
        """In how many seconds to repeat `request` after its 309, if slots are only late; None: they are taken.

        held: how many other requests hold a slot or wait for their first row.
        """
        secs = self._pause.trial_refused(request, now)
        if secs is None and self._may_be_late(request, held):
            secs = self._secs_late(now)
        self._refused.add(request)
        return secs

    def taken(self, held: int, now: float, symbol: str = "") -> BatchResized:
        """Beside `held` slots there is none for `symbol`: shrink the batch and start the cooldown."""
        previous = self.batch_size
        self.quiet_until = now + self._cooldown.next_secs()
        self._size.shrink(held)
        return BatchResized(self.batch_size, previous, symbol)

    def _may_be_late(self, request: int, held: int) -> bool:
        """Whether this 309 can mean that the gateway has not yet freed what was given back.

        Not if more is requested than was held; and as the gateway takes requests in order, not if an earlier request of
        the same batch was granted.
        """
        if request not in self._asked or held + 1 > self._held:
            return False
        return all(earlier in self._refused for earlier in self._asked[: self._asked.index(request)])

    def _secs_late(self, now: float) -> float | None:
        secs = self._grace.refused(now)
        if secs is not None:
            self.quiet_until = max(self.quiet_until, now + secs)
            return secs
        taught_just_now = self._refused and self._pause.free_at > now
        return self._pause.secs if taught_just_now or self._pause.learn(now) else None
