"""Which symbols to ask the gateway about, and when: in their order, a bounded number at once. Pure.

A question that stays unanswered is asked again, with a back-off: its symbol waits behind no other, and holds no other
up. An answer that is missing says nothing of a symbol. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

AT_ONCE = 20
"""Most questions without an answer at once, of those asked for the first time and of those asked again, each."""

FIRST_PATIENCE_SECS = 2.0
LONGEST_PATIENCE_SECS = 60.0
"""How long an answer is waited for before its question is asked again: at first, and at most after it has doubled."""

LOST_PAUSE_SECS = 0.1
"""Before a question is asked again whose connection broke."""

SPACING_SECS = 5.0
"""At least this long from an answer to the next question about the same symbol: news of farms may come in storms."""


SLOWNESS_KEPT = 0.9
"""The share of the slowest answer so far that each further answer leaves in memory."""


def patience_secs(unanswered: int, slowest: float = 0.0) -> float:
    """How long to wait for an answer after so many of the same symbol that never came; slowest is what answers take."""
    return min(LONGEST_PATIENCE_SECS, max(FIRST_PATIENCE_SECS, 2 * slowest) * 2.0 ** min(unanswered, 10))


class QuestionSchedule:
    """A symbol of `symbols` waits, is asked about, or is done.

    The caller asks what `due` returns, and says what became of it.
    """

    def __init__(self, symbols: Iterable[str], at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._rank = {symbol: rank for rank, symbol in enumerate(symbols)}
        self._waiting: dict[str, float] = dict.fromkeys(self._rank, float("-inf"))
        self._asked: dict[str, tuple[float, bool]] = {}  # since when, and whether an earlier question got no answer
        self._unanswered: dict[str, int] = {}
        self._answered_at: dict[str, float] = {}
        self._slowest = 0.0  # seconds that answers take

    @property
    def is_done(self) -> bool:
        """Whether every symbol has its answer."""
        return not self._waiting and not self._asked

    def add(self, symbol: str) -> None:
        """It is to be asked about, anew where it is done; nothing changes where it is asked about already."""
        if symbol not in self._asked:
            self._waiting[symbol] = self._answered_at.get(symbol, float("-inf")) + SPACING_SECS

    def want(self, symbol: str) -> None:
        """As `add`, and its back-off stands where it waits already."""
        if symbol not in self._waiting and symbol not in self._asked:
            self._waiting[symbol] = float("-inf")

    def hurry(self, now: float) -> list[str]:
        """The gateway's state has changed: whoever waits is asked about now.

        Returns those whose open question is old and may be lost: they wait anew.
        """
        old = [symbol for symbol, (since, _) in self._asked.items() if since < now - FIRST_PATIENCE_SECS]
        for symbol in old:
            del self._asked[symbol]
        for symbol in (*self._waiting, *old):
            self.add(symbol)
        return old

    def due(self, now: float) -> list[tuple[str, float]]:
        """The symbols to ask about now, each with the seconds to wait for its answer."""
        chosen: list[tuple[str, float]] = []
        for symbol in sorted(self._waiting, key=self._rank.__getitem__):
            again = symbol in self._unanswered
            if self._waiting[symbol] <= now and self._room(again) > 0:
                del self._waiting[symbol]
                self._asked[symbol] = (now, again)
                chosen.append((symbol, self._patience(symbol)))
        return chosen

    def next_at(self) -> float | None:
        """When to look at `due` again if no answer comes before. None: not before one comes, or never."""
        times = [at for symbol, at in self._waiting.items() if self._room(symbol in self._unanswered) > 0]
        return min(times, default=None)

    def answered(self, symbol: str, now: float, took: float = 0.0) -> None:
        """The gateway has answered, `took` seconds after it was asked, or the symbol is given up: it is done."""
        self._slowest = max(took, self._slowest * SLOWNESS_KEPT)
        for table in (self._asked, self._waiting, self._unanswered):
            table.pop(symbol, None)
        self._answered_at[symbol] = now

    def unanswered(self, symbol: str, now: float) -> int:
        """No answer came in time, or the gateway could give none. How often in a row that has happened.

        It is asked again, with more patience, no sooner than this question's patience is over.
        """
        since, _ = self._asked.pop(symbol)
        self._waiting[symbol] = max(now, since + self._patience(symbol))
        self._unanswered[symbol] = self._unanswered.get(symbol, 0) + 1
        return self._unanswered[symbol]

    def lost(self, symbol: str, now: float) -> None:
        """The connection broke, and the answer with it: it is asked again."""
        del self._asked[symbol]
        self._waiting[symbol] = now + LOST_PAUSE_SECS

    def _patience(self, symbol: str) -> float:
        return patience_secs(self._unanswered.get(symbol, 0), self._slowest)

    def _room(self, again: bool) -> int:
        return self._at_once - sum(each is again for _, each in self._asked.values())
