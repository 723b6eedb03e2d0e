"""When the flight recorder writes a tape by itself. Pure; `now` is the event loop's time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ibkr_depth_pipeline.backoff import Backoff

SETTLE_SECS = 2.0
"""From a trigger to its dump: what follows shows more, and one fault often has several triggers."""

_MOST_TRIGGERS = 20
"""So many different ones are named in one tape."""

_LONGEST_PAUSE_SECS = 3600.0


@dataclass(frozen=True, slots=True)
class DumpTrigger:
    """What a dump is for. reason: one word, a part of the tape's name; detail: which symbol, which message."""

    reason: str
    detail: str = ""


@dataclass(slots=True)
class DumpSchedule:
    """Gathers triggers, and decides when they are due as one dump.

    ring_secs: how far back a ring reaches. The pause behind a dump is as long, so that two have little in common, and
    grows while triggers go on: a gateway that fails all day must not fill a disk, nor push out the first tapes.
    """

    ring_secs: float
    settle: float = SETTLE_SECS
    _waiting: Counter[DumpTrigger] = field(default_factory=Counter)
    _since: float = 0.0
    _pause: float = 0.0
    _dumped_at: float = float("-inf")

    def trigger(self, trigger: DumpTrigger, now: float) -> None:
        """Note a trigger."""
        if not self._waiting:
            self._since = now
        if trigger in self._waiting or len(self._waiting) < _MOST_TRIGGERS:
            self._waiting[trigger] += 1

    @property
    def due_at(self) -> float | None:
        """When the next dump is due; None: nothing waits."""
        return max(self._since + self.settle, self._dumped_at + self._pause) if self._waiting else None

    def take(self, now: float) -> dict[DumpTrigger, int]:
        """The triggers of the dump that is due now, and how often each came; none if none is due."""
        if self.due_at is None or now < self.due_at:
            return {}
        backoff = Backoff(self.ring_secs, max(self.ring_secs, _LONGEST_PAUSE_SECS))
        is_calm = self._since >= self._dumped_at + 2 * self._pause
        self._pause = backoff.longer(0.0 if is_calm else self._pause)
        self._dumped_at = now
        taken, self._waiting = dict(self._waiting), Counter()
        return taken
