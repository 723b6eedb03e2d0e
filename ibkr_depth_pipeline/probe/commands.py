"""What the plan wants done. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.model import Instrument


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for depth."""

    request: int
    instrument: Instrument


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel by our own request id."""

    request: int
    symbol: str


@dataclass(frozen=True, slots=True)
class LookForIngest:
    """Others hold every slot: find out whether it is an ingest, and say so by `ingest_looked_for`."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Our own ignored cancels hold slots, which only a new session frees: connect again, then call `reconnected`."""


Command = Subscribe | Cancel | LookForIngest | Reconnect
Commands = list[Command]
