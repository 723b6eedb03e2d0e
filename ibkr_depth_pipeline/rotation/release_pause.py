"""How long the gateway takes to free a slot that was given back: learnt from refusals and grants, and unlearnt. Pure.

A 309 right after our own cancel teaches a pause between a cancel and the next request. A shorter pause is tried now and
then with one request, so that a trial costs one 309 at most: granted, it is the pause from then on and the next trial
follows a turn later; refused, it is a lower bound of the lag and the next trial waits for twice as many turns. So a
gateway that was late once costs little, and one that stays late ever fewer refusals.
"""

from __future__ import annotations

import math

RELEASE_LESSONS = (0.5, 2.0)
"""Seconds to leave between a cancel and the next request, tried in turn after a 309 right after our own cancel."""

FIRST_TRIAL_TURNS = 16
LONGEST_TRIAL_TURNS = 1024
"""Turns without a refusal before a shorter pause is tried: at first, and at most."""

LEAST_PAUSE_SECS = 0.02
"""A pause shorter than this is none."""

_CLOSE = 0.25  # bounds of the lag that are so near to each other, as a share of the pause, are not narrowed further


class ReleasePause:
    """The pause between a cancel and the next request. `now` is the controller's seconds.

    `secs` is the pause in force; a trial of a shorter one counts for the one release it is made at.
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

    # ---- what can be asked

    @property
    def free_at(self) -> float:
        """When what was released last may be asked for."""
        trying = self._trial if self._trial_request is None else None
        return self._released_at + (self.secs if trying is None else trying)

    def is_trying(self, now: float) -> bool:
        """Whether a request that is made now tries a shorter pause: it is to go alone."""
        return self._trial is not None and self._trial_request is None and now < self._released_at + self.secs

    # ---- what happens

    def connected(self) -> None:
        """A connection begins: what a 309 means now is not our pause's to know."""
        self._end_trial()

    def turn_without_refusal(self) -> None:
        """A turn went by without a 309 that shrinks the batch. A trial may be due."""
        self._clean_turns += 1
        if self.secs:
            self._is_due = self._clean_turns >= self._trial_turns
        elif self._clean_turns >= LONGEST_TRIAL_TURNS:
            self._trial_turns = FIRST_TRIAL_TURNS

    def released(self, now: float) -> None:
        """A slot was given back, by a cancel or with the connection."""
        if now > self._released_at:
            self._end_trial()
            if self._is_due:
                self._is_due = False
                self._trial = self._shorter()
        self._released_at = now

    def asked(self, request: int, now: float) -> None:
        """The first request after a release was sent."""
        if self.is_trying(now):
            self._trial_request = request
        elif self._trial_request is None:
            self._trial = None  # too late to try anything

    def granted(self, request: int) -> None:
        """A subscription asked for after the pause was granted."""
        if self._trial is not None and request == self._trial_request:
            self.secs = self._trial
            self._clean_turns = self._trial_turns - 1  # the next one follows at once
            self._end_trial()
        elif self.secs > self._proven:  # it was learnt just now
            self._rarer()
        self._proven = self.secs

    def trial_refused(self, request: int, now: float) -> float | None:
        """A 309 came. If it ends the trial of a shorter pause: in how many seconds the pause in force is over."""
        if self._trial is None or request != self._trial_request:
            return None
        self._refused_after = self._trial
        self._end_trial()
        self._rarer()
        return max(0.0, self.free_at - now)

    def learn(self, now: float) -> bool:
        """A 309 came at `now`. True if it may be our own cancel's lateness, and then `secs` is longer than before.

        False means that the slot is not late but taken; what was learnt on the way is then forgotten.
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
        """The pause to try next: half-way to the longest that was refused; once that is near, it is doubted as well."""
        if self.secs - self._refused_after <= max(LEAST_PAUSE_SECS, _CLOSE * self.secs):
            self._refused_after = 0.0
        shorter = (self._refused_after + self.secs) / 2
        return shorter if shorter >= LEAST_PAUSE_SECS else 0.0

    def _rarer(self) -> None:
        self._clean_turns = 0
        self._trial_turns = min(2 * self._trial_turns, LONGEST_TRIAL_TURNS)

    def _end_trial(self) -> None:
        self._trial = self._trial_request = None
