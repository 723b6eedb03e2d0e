"""When the contracts of a run are resolved again: at their roll, on a new day, after a reconnect. Pure.

`now` is unix seconds by the host's clock. A refresh is no doubt: the gateway may refuse sound contracts around its
restart, so that an answer without a contract changes nothing, unless the contract's depth was refused as well.
"""

from __future__ import annotations

from ibkr_depth_pipeline.model import Instrument, Unresolved

DAY_SECS = 86_400
RECENT_SECS = 60.0
"""A contract that was resolved so lately is not resolved again after a reconnect: connections may come in storms."""

ROLL_RETRY_SECS = 60.0
"""From a roll whose contract was not found to the next question about it."""


class ContractRefresh:
    """The contracts in force, by name, and when each is to be resolved again."""

    def __init__(self) -> None:
        self._contracts: dict[str, Instrument] = {}
        self._resolved_at: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._doubted: set[str] = set()

    def doubted(self, name: str) -> None:
        """Its depth is refused: the next answer counts in any case."""
        self._doubted.add(name)

    def keeps(self, answer: Instrument | Unresolved, now: float) -> bool:
        """Whether the contract in force stays so in spite of an answer without one."""
        name = answer.symbol
        known = self._contracts.get(name)
        if isinstance(answer, Unresolved) and known is not None and name not in self._doubted:
            return not self._has_rolled(known, now)
        return False

    def resolved(self, answer: Instrument | Unresolved, now: float) -> None:
        """Take note of an answer that counts."""
        name = answer.symbol
        self._doubted.discard(name)
        self._asked_at.pop(name, None)
        self._resolved_at[name] = now
        if isinstance(answer, Instrument):
            self._contracts[name] = answer
        else:
            self._contracts.pop(name, None)

    def forget(self, name: str) -> None:
        """It is no longer recorded."""
        for table in (self._contracts, self._resolved_at, self._asked_at):
            table.pop(name, None)
        self._doubted.discard(name)

    def due(self, now: float) -> list[str]:
        """The names to resolve again: whose roll has come, or that were resolved on an earlier day (UTC)."""
        due = [
            name for name, known in self._contracts.items() if self._has_rolled(known, now) or self._is_old(name, now)
        ]
        return self._ask(due, now)

    def reconnected(self, now: float) -> list[str]:
        """The names to resolve again after a reconnect."""
        return self._ask([name for name in self._contracts if now - self._resolved_at[name] >= RECENT_SECS], now)

    def _ask(self, names: list[str], now: float) -> list[str]:
        """Those of `names` that were not asked for lately."""
        fresh = [name for name in names if not 0 <= now - self._asked_at.get(name, float("-inf")) < ROLL_RETRY_SECS]
        self._asked_at.update(dict.fromkeys(fresh, now))
        return fresh

    @staticmethod
    def _has_rolled(contract: Instrument, now: float) -> bool:
        return contract.rolls_at is not None and contract.rolls_at <= now

    def _is_old(self, name: str, now: float) -> bool:
        return now // DAY_SECS > self._resolved_at[name] // DAY_SECS
