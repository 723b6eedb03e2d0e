"""Which entry of the universe records which contract on which venue: none is recorded under two names. Pure."""

from __future__ import annotations

from dataclasses import replace

from ibkr_depth_pipeline.gateway.contracts import TWINS
from ibkr_depth_pipeline.model import Instrument, Unresolved

Place = tuple[int, str]
"""A con_id and a venue, ISLAND and NASDAQ being one."""


def place_of(con_id: int, venue: str) -> Place:
    """The place of a contract on a venue."""
    return con_id, min(venue, TWINS.get(venue, venue))


class ContractOwners:
    """Registers instruments as they are resolved. The first entry of a contract and venue keeps it."""

    def __init__(self) -> None:
        self._instruments: dict[str, Instrument] = {}
        self._displaced: dict[Place, str] = {}
        self.outdated: list[str] = []
        """Entries that roll and whose contract another one has come to: they are to be resolved again."""

    def register(self, found: Instrument) -> list[Instrument | Unresolved]:
        """What becomes of it, and of entries that may no longer fall back to its venue: they come without that.

        An Unresolved names both entries where another one has the contract on that venue already.
        """
        self._instruments.pop(found.symbol, None)
        place = place_of(found.con_id, found.exchange)
        owner = next((name for name, own in self._instruments.items() if _place(own) == place), None)
        if owner is not None and not self._gives_way(owner, found, place):
            return [_refused(found, owner)]
        taken = {_place(own) for own in self._instruments.values()}
        kept = tuple(venue for venue in found.alternatives if place_of(found.con_id, venue) not in taken)
        self._instruments[found.symbol] = replace(found, alternatives=kept)
        return [self._instruments[found.symbol], *self._without(place)]

    def _gives_way(self, owner: str, found: Instrument, place: Place) -> bool:
        """Whether the owner is about to roll on, as of front and front+1; once for a place, as it may be an error."""
        if self._instruments[owner].rolls_at is None or self._displaced.get(place) == found.symbol:
            return False
        self._displaced[place] = owner
        del self._instruments[owner]
        self.outdated.append(owner)
        return True

    def forget(self, name: str) -> None:
        """The entry has no contract any more."""
        self._instruments.pop(name, None)

    def _without(self, place: Place) -> list[Instrument]:
        """The instruments that had the place among their other venues, and have it no more."""
        changed = []
        for name, own in self._instruments.items():
            kept = tuple(venue for venue in own.alternatives if place_of(own.con_id, venue) != place)
            if kept != own.alternatives:
                self._instruments[name] = replace(own, alternatives=kept)
                changed.append(self._instruments[name])
        return changed


def _place(instrument: Instrument) -> Place:
    return place_of(instrument.con_id, instrument.exchange)


def _refused(found: Instrument, owner: str) -> Unresolved:
    reason = (
        f"{owner!r} and {found.symbol!r} come to one and the same contract, {found.con_id} "
        f"({found.local_symbol or found.symbol}) on {found.exchange}; list it once, or name another exchange"
    )
    return Unresolved(found.symbol, reason, found.con_id, "", found.primary_exchange, found.valid_exchanges)
