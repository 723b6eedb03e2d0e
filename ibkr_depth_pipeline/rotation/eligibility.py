"""Which symbols of the universe take turns: in the ring, set aside after a refusal, closed, or removed. Pure."""

from __future__ import annotations

from ibkr_depth_pipeline.rotation.events import Recheck, Rechecked, RotationCommand, SymbolSkipped, Wanted
from ibkr_depth_pipeline.rotation.retry_schedule import RetrySchedule
from ibkr_depth_pipeline.rotation.ring import Priority, Ring


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
