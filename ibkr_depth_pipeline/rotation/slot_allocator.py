"""The slots that the gateway lets us have: how many at once, from when on, and what a 309 says of that. Pure.

A 309 says that no slot is free, and not why. Right after slots were given back, by our cancels or with a connection
that broke, the gateway may be late in freeing them; that is waited out. Otherwise they are taken, and the batch
shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ibkr_depth_pipeline.rotation.adaptation import GRANTED_SECS, BatchSize, Cooldown, ReconnectGrace
from ibkr_depth_pipeline.rotation.release_pause import ReleasePause
from ibkr_depth_pipeline.rotation.slots import Slot


class SlotAllocator:
    """See the module. `now` is the controller's seconds.

    max_batch and recovery_turns are BatchSize's; cooldown is for how many seconds nothing is asked for once slots are
    found taken, or longer (Cooldown).
    """

    def __init__(self, max_batch: int, recovery_turns: int, cooldown: float) -> None:
        self._size = BatchSize(max_batch, recovery_turns)
        self._cooldown = Cooldown(cooldown)
        self._pause = ReleasePause()
        self._after_drop = ReconnectGrace()
        self._held = max_batch  # how many we held when we last gave one back
        self._asked: Sequence[int] = ()  # the requests that were made together last, in order
        self._refused: set[int] = set()  # those of them that met a 309
        self.quiet_until = -math.inf
        """After a 309: nothing is asked for before this, and no turn is over."""

    # ---- how many, and when

    @property
    def batch_size(self) -> int:
        """Most slots at once for now."""
        return self._size.value

    @property
    def at_once(self) -> int:
        """The same while nothing is in doubt; 1 while it is being tried whether slots are free at all."""
        return 1 if self._after_drop.trying else self._size.value

    def most_new(self, now: float) -> int:
        """Most requests that may be made together now: 1 if it tries something."""
        return 1 if self._pause.is_trying(now) or self._after_drop.trying else self._size.value

    @property
    def pause_secs(self) -> float:
        """What is left between a cancel and the next request."""
        return self._pause.secs

    @property
    def free_at(self) -> float:
        """From when on slots may be asked for."""
        return max(self.quiet_until, self._pause.free_at)

    def granted_at(self, slots: Collection[Slot]) -> float:
        """When, of the one request that tries whether slots are free, silence says that they are."""
        if not self._after_drop.trying:
            return -math.inf
        return max((slot.requested_at + GRANTED_SECS for slot in slots), default=-math.inf)

    # ---- what happens

    def connected(self, now: float) -> None:
        """A connection begins. The gateway may still count the slots of one that broke, this process's or another's."""
        self._held = self._size.value
        self._pause.connected()
        self._after_drop.connected(now)

    def asked(self, requests: Sequence[int], now: float) -> None:
        """These, at least one, were asked for together, in this order."""
        self._asked, self._refused = requests, set()
        self._pause.asked(requests[0], now)

    def answered(self, request: int) -> None:
        """The first row of a request came."""
        self._pause.granted(request)
        self._cooldown.granted()
        self._after_drop.granted()

    def was_free(self) -> None:
        """The gateway had a slot for a request that it refused for something else."""
        self._cooldown.granted()
        self._after_drop.granted()

    def stayed_silent(self, slots: Collection[Slot], now: float) -> None:
        """Of these no 309 has come by now."""
        if self._after_drop.trying and slots and now >= self.granted_at(slots):
            self._after_drop.granted()

    def giving_back(self, held: int) -> None:
        """Of so many held, some are about to be given back: so many can be had again."""
        self._held = held

    def released(self, now: float) -> None:
        """One or more were given back."""
        self._pause.released(now)

    def turn_without_refusal(self) -> None:
        """A turn went by without a 309. The batch may grow, and a shorter pause be tried."""
        self._pause.turn_without_refusal()
        self._size.turn_without_refusal()

    # ---- 309

    def secs_until_free(self, request: int, held: int, now: float) -> float | None:
        """A 309 for `request`, while `held` others are held or asked for.

        In how many seconds to ask again, where it means slots that are free again soon. None: it does not.
        """
        secs = self._pause.trial_refused(request, now)
        if secs is None and self._may_be_late(request, held):
            secs = self._secs_late(now)
        self._refused.add(request)
        return secs

    def taken(self, held: int, now: float) -> None:
        """Beside `held` slots there is none: no more than those from now on, and none is asked for in the cooldown."""
        self.quiet_until = now + self._cooldown.next_secs()
        self._size.shrink(held)

    def _may_be_late(self, request: int, held: int) -> bool:
        """Whether this 309 can mean that the gateway has not freed yet what we gave back.

        Not if we ask for more than we held; and as the gateway takes requests in order, not if one that was asked for
        before this one, together with it, was granted.
        """
        if request not in self._asked or held + 1 > self._held:
            return False
        return all(earlier in self._refused for earlier in self._asked[: self._asked.index(request)])

    def _secs_late(self, now: float) -> float | None:
        secs = self._after_drop.refused(now)
        if secs is not None:
            self.quiet_until = max(self.quiet_until, now + secs)
            return secs
        taught_just_now = self._refused and self._pause.free_at > now
        return self._pause.secs if taught_just_now or self._pause.learn(now) else None
