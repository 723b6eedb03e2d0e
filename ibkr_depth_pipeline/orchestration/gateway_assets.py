"""The universe as assets: one per symbol, read when Dagster loads or reloads the code location.

Each gateway has a feed, a probe, jobs, a group and pools of its own, named after it. The gateway of the settings, which
is the only one if there is no list of gateways, has the plain names.
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
SETTINGS_GATEWAY = Gateway()
"""The gateway that the settings alone describe."""

INGEST_JOB, FEED_OP, INGEST_POOL = "ibkr_depth_ingest_job", "ibkr_depth_feed", "ibkr_depth"
"""The pool has one slot, which the recording run holds. It is the op's, so that Materialize is bound by it as well."""
STANDBY_JOB, STANDBY_OP, STANDBY_POOL = "ibkr_depth_standby_job", "ibkr_depth_standby", "ibkr_depth_standby"
"""The pool is another one, so that a standby's run starts beside the recording one."""
PROBE_JOB, PROBE_OP, PROBE_POOL = "ibkr_depth_probe_job", "ibkr_depth_probe", "ibkr_depth_probe"


@dataclass(frozen=True, slots=True)
class GatewayNames:
    """The names of one gateway's definitions in Dagster."""

    gateway: str = ""

    def named(self, definition: str) -> str:
        """The name of a job, op, pool, schedule or sensor: `definition` alone for the gateway of the settings."""
        return f"{definition}_{self.gateway}" if self.gateway else definition

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

    @property
    def scheduled_run_config(self) -> Mapping[str, Any]:
        """The run config of an ingest that nobody launches by hand: it ends at the session's close."""
        return self._until_the_close(FEED_OP)

    @property
    def standby_run_config(self) -> Mapping[str, Any]:
        """The same of a standby."""
        return self._until_the_close(STANDBY_OP)

    def _until_the_close(self, op: str) -> Mapping[str, Any]:
        return {"ops": {self.named(op): {"config": {"stop_at_close": True}}}}


@dataclass(frozen=True, slots=True)
class GatewayAssets:
    """The symbols of one gateway as assets. `problem` says why there are none if settings or universe can't be read.

    Dagster loads all the same, so that one bad line stops neither the UI nor what monitors a running session. A run
    reads the files again and fails with the same words.
    """

    universe: Universe
    problem: str = ""
    gateway: Gateway = SETTINGS_GATEWAY

    @property
    def names(self) -> GatewayNames:
        """The names of its feed, probe, jobs and pools."""
        return GatewayNames(self.gateway.name)

    @property
    def specs(self) -> tuple[dg.AssetSpec, ...]:
        """An asset per symbol, in the order of the file."""
        return tuple(_symbol_asset(spec, self.names.group) for spec in self.universe.specs)

    @property
    def symbol_keys(self) -> Mapping[str, dg.AssetKey]:
        """symbol -> the key of its asset, in the order of the file."""
        return {symbol: symbol_key(symbol) for symbol in self.universe.symbols}

    @property
    def feed_metadata(self) -> Mapping[str, Any]:
        """The universe as the feed's page shows it."""
        if self.problem:
            return {"universe_problem": dg.MetadataValue.text(self.problem)}
        return {"symbols": dg.MetadataValue.int(len(self.universe.specs))}


def load_all_gateway_assets() -> tuple[GatewayAssets, ...]:
    """The assets of each gateway, as the files are now. Never raises ConfigurationError."""
    try:
        return tuple(load_gateway_assets(gateway) for gateway in load_gateways())
    except ConfigurationError as error:
        return (GatewayAssets(Universe(()), str(error)),)


def load_gateway_assets(gateway: Gateway = SETTINGS_GATEWAY) -> GatewayAssets:
    """The assets of that gateway, as settings and universe file are now. Never raises ConfigurationError."""
    try:
        return GatewayAssets(load_universe(gateway.settings().symbol_config_path), gateway=gateway)
    except ConfigurationError as error:
        return GatewayAssets(Universe(()), str(error), gateway)


def symbol_key(symbol: str) -> dg.AssetKey:
    """The key of a symbol's asset: SPY, BRK_B for `BRK B`, BRK_2e_B for `BRK.B`.

    Dagster makes Python names of keys and splits them at a slash, so two symbols must not come to the same name.
    """
    return dg.AssetKey([*PREFIX, "symbol", _ODD.sub(_spelled, symbol)])


_ODD = re.compile(r"[^A-Z0-9]")


def _spelled(odd: re.Match[str]) -> str:
    return "_" if odd[0] == " " else f"_{ord(odd[0]):x}_"


def _symbol_asset(spec: SymbolSpec, group: str) -> dg.AssetSpec:
    asked = {field.name: (getattr(spec, field.name), field.default) for field in fields(spec)}
    given = {name: value for name, (value, default) in asked.items() if value != default}
    shown = {name: value if isinstance(value, int | float) else str(value) for name, value in given.items()}
    venue = (
        f"on {spec.exchange}, as the universe says" if spec.exchange else "on the venue that the gateway's list names"
    )
    return dg.AssetSpec(
        symbol_key(spec.name),
        group_name=group,
        description=f"{spec.name}'s market depth {venue}. The probe checks it, a session observes it.",
        metadata={"venue": spec.exchange or "chosen at the gateway", **shown},
    )
