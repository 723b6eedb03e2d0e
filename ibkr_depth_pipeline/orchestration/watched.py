"""What the sensors of one gateway watch over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.orchestration.automation import Reading, read_with_calendar
from ibkr_depth_pipeline.orchestration.run_records import Work
from ibkr_depth_pipeline.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Watched:
    """One gateway's ingest. `named` gives a sensor its name in Dagster; `keys` maps each symbol to its asset.

    `settings` is called at each tick, so that a change counts without a reload. It takes overrides and may raise
    ConfigurationError; `reading` does not.
    run_config is that of a run which the watchdog launches: the schedule's.
    """

    named: Callable[[str], str]
    ingest: Work
    probe: Work
    feed_key: dg.AssetKey
    keys: Mapping[str, dg.AssetKey]
    run_config: Mapping[str, Any] = field(default_factory=dict)
    settings: Callable[..., Settings] = load_settings

    def reading(self) -> Reading:
        """The settings as far as they can be read now: a sensor that raised would watch nothing, and tell nobody."""
        return read_with_calendar(self.settings)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Those of the universe, in its order."""
        return tuple(self.keys)
