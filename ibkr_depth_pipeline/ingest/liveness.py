"""Whether subscriptions can be trusted to be alive: what puts them in doubt, and which rows prove them. Pure.

A dead line looks like a quiet one. So news of trouble puts every subscription in doubt, and the news of its end does so
anew: lines stay dead after troubles that are over. Only a row that came after the news proves its line. `now` is
monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

AILING_SECS = 30.0
"""How long a subscription may stay silent after news of a broken farm or a competing session, if no news of its end
comes, before it is asked for anew. A blip of three seconds has killed feeds for hours elsewhere."""

CURED_SECS = 5.0
"""The same, once the farm is said to be well."""

IN_FLIGHT_SECS = 2.0
"""Rows that come so soon after bad news may have been on their way before it; they prove nothing."""

_AILMENTS = frozenset({2103, 2108, 2110, 10197})
"""Feed health codes that speak of live market data; the others are about historical data."""

_CURED_BY = {2104: frozenset({2103, 2108, 2110})}


class LivenessTracker:
    """Those about the subscriptions of one gateway, each a request. It begins without any.

    `awaited` are the requests whose next row is waited for, as they are new or in doubt. It is the same set for ever:
    whoever takes rows may keep it, to look up each row's request.
    """

    def __init__(self) -> None:
        self.awaited: set[int] = set()
        self.suspended = False
        """Whether the gateway has said that it lost IBKR."""
        self._ailments: set[int] = set()
        self._proof_from = 0.0

    @property
    def ailments(self) -> tuple[int, ...]:
        """The codes of the troubles with live market data that still stand."""
        return tuple(sorted(self._ailments))

    # ---- the connection

    def connecting(self) -> None:
        """A connection is tried: what was said on those before no longer counts, what is said from now on does."""
        self._well_again()
        self._proof_from = 0.0

    def disconnected(self) -> None:
        """The connection is gone, and every request with it."""
        self.awaited.clear()

    # ---- one request

    def wait_for(self, request: int) -> None:
        """It is new: its first row is waited for."""
        self.awaited.add(request)

    def forget(self, request: int) -> None:
        """Its next row is waited for no longer; that proves nothing."""
        self.awaited.discard(request)

    def is_proof(self, now: float) -> bool:
        """Whether a row that comes now proves that its line is alive."""
        return now >= self._proof_from

    def dispel(self, request: int) -> None:
        """A row has proven it. Where it was the last in doubt, no trouble stands any longer."""
        self.awaited.discard(request)
        if not self.awaited:
            self._ailments.clear()

    # ---- news that puts all `requests` there are in doubt

    def connectivity_lost(self, requests: Iterable[int], now: float) -> None:
        """The gateway lost IBKR (1100)."""
        self.suspended = True
        self._doubt(requests, now + IN_FLIGHT_SECS)

    def connectivity_restored(self, requests: Iterable[int], now: float) -> None:
        """It found IBKR again (1101, 1102)."""
        self._well_again()
        self._doubt(requests, now)

    def outage_doubted(self) -> None:
        """Nothing says that it found IBKR again, but lines are asked for again: their first rows are waited for."""
        self._well_again()

    def feed_health(self, code: int, requests: Iterable[int], now: float) -> float | None:
        """News of a farm or of a competing session (21xx, 10197).

        Returns within how many seconds each request must have been proven, or else be asked for anew. None: nothing is
        in doubt, as the news is not of live market data, or of the end of no trouble that was known.
        """
        cured = self._ailments & _CURED_BY.get(code, frozenset())
        if cured:
            self._ailments -= cured
            self._doubt(requests, now)
            return CURED_SECS
        if code in _AILMENTS:
            self._ailments.add(code)
            self._doubt(requests, now + IN_FLIGHT_SECS)
            return AILING_SECS
        return None

    def _well_again(self) -> None:
        self.suspended = False
        self._ailments.clear()

    def _doubt(self, requests: Iterable[int], proof_from: float) -> None:
        self.awaited.update(requests)
        self._proof_from = proof_from
