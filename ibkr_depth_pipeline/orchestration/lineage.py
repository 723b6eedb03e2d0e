"""The universe as assets: one per symbol, read when Dagster loads or reloads the code location.

Each gateway has a feed, a probe, jobs, a group and pools of its own, named after it; the one of the settings, where
there is no list of gateways, has the plain names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.gateways import Gateway, load_gateways
from ibkr_depth_pipeline.universe import SymbolSpec, Universe, load_universe

PREFIX = ("raw", "ibkr", "depth")
FEED_KEY = dg.AssetKey([*PREFIX, "feed"])
PROBE_KEY = dg.AssetKey([*PREFIX, "probe"])
GROUP = "ibkr_depth"
ONLY_GATEWAY = Gateway()
"""The one of the settings."""


@dataclass(frozen=True, slots=True)
class Names:
    """What Dagster knows a gateway's things by."""

    gateway: str = ""

    def named(self, thing: str) -> str:
        """The name of a job, an op, a pool, a schedule or a sensor: `thing` alone for the gateway of the settings."""
        return f"{thing}_{self.gateway}" if self.gateway else thing

    @property
    def group(self) -> str:
        return self.named(GROUP)

    @property
    def feed_key(self) -> dg.AssetKey:
        return self._key(FEED_KEY)

    @property
    def probe_key(self) -> dg.AssetKey:
        return self._key(PROBE_KEY)

    def _key(self, plain: dg.AssetKey) -> dg.AssetKey:
        return dg.AssetKey([*PREFIX, self.gateway, plain.path[-1]]) if self.gateway else plain


@dataclass(frozen=True, slots=True)
class Lineage:
    """The symbols of one gateway to show. `problem` says why there are none, where settings or universe can't be read.

    Dagster loads all the same, so that one bad line stops neither the UI nor what watches a running session. A run
    reads them anew and fails with the same words.
    """

    universe: Universe
    problem: str = ""
    gateway: Gateway = ONLY_GATEWAY

    @property
    def names(self) -> Names:
        """What its feed, probe, jobs and pools are called."""
        return Names(self.gateway.name)

    @property
    def specs(self) -> tuple[dg.AssetSpec, ...]:
        """An asset per symbol, in the order of the file."""
        return tuple(_symbol_asset(spec, self.names.group) for spec in self.universe.specs)

    @property
    def feed_metadata(self) -> Mapping[str, Any]:
        """What the feed's own page says of its universe."""
        if self.problem:
            return {"universe_problem": dg.MetadataValue.text(self.problem)}
        return {"symbols": dg.MetadataValue.int(len(self.universe.specs))}


def load_lineages() -> tuple[Lineage, ...]:
    """A lineage for each gateway, as the files say now. Never raises ConfigurationError."""
    try:
        return tuple(load_lineage(gateway) for gateway in load_gateways())
    except ConfigurationError as error:
        return (Lineage(Universe(()), str(error)),)


def load_lineage(gateway: Gateway = ONLY_GATEWAY) -> Lineage:
    """What settings and universe file say now of that gateway. Never raises ConfigurationError."""
    try:
        return Lineage(load_universe(gateway.settings().symbol_config_path), gateway=gateway)
    except ConfigurationError as error:
        return Lineage(Universe(()), str(error), gateway)


def symbol_key(symbol: str) -> dg.AssetKey:
    """The key of a symbol's asset: SPY, BRK_B for `BRK B`, BRK_2e_B for `BRK.B`.

    Dagster makes Python names of keys and parts them at a slash: two symbols must not come to the same name.
    """
    return dg.AssetKey([*PREFIX, "symbol", _ODD.sub(_spelled, symbol)])


_ODD = re.compile(r"[^A-Z0-9]")


def _spelled(odd: re.Match[str]) -> str:
    return "_" if odd[0] == " " else f"_{ord(odd[0]):x}_"


def _symbol_asset(spec: SymbolSpec, group: str) -> dg.AssetSpec:
    asked = {field.name: getattr(spec, field.name) for field in fields(spec)}
    given = {name: value for name, value in asked.items() if value is not None}
    venue = (
        f"on {spec.exchange}, as the universe says" if spec.exchange else "on the venue that the gateway's list names"
    )
    return dg.AssetSpec(
        symbol_key(spec.symbol),
        group_name=group,
        description=f"{spec.symbol}'s market depth {venue}. The probe checks it, a session observes it.",
        metadata={"venue": spec.exchange or "chosen at the gateway", **given},
    )
