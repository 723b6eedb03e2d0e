"""Decides how many slots may be requested, from when on, and what a 309 means for that. Pure.

A 309 does not tell why no slot is free. Right after slots were given back, by our cancels or with a connection that
broke, the gateway may be late in freeing them: the next request waits. Otherwise others hold them, and the batch
shrinks (docs/ibkr-market-depth.md, "Slots").
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ibkr_depth_pipeline.rotation.adaptation import GRANTED_SECS, BatchSize, Cooldown, ReconnectGrace, ReleasePause
from ibkr_depth_pipeline.rotation.events import BatchResized, RotationCommand
from ibkr_depth_pipeline.rotation.slots import Slot


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
        """Note a refusal that is no slot refusal: the gateway looks for a slot first, so it had one."""
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

    def turn_without_refusal(self) -> list[RotationCommand]:
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
