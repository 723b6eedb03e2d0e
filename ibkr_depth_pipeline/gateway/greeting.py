"""What a gateway says of itself when it is connected to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

OLDEST_SERVED_VERSION = 176
"""The protocol of TWS 10.19 and the highest that this client offers: every gateway that IBKR serves speaks it.

IBKR's gateways themselves said in February 2025: "The version of the application you are running, 1019.2, needs to be
upgraded, as it will be desupported on 20250320. The minimum supported version at that time will be 1030.1."
(QuantConnect/Lean.Brokerages.InteractiveBrokers #143). One that speaks an older protocol is older than 10.19, so that
it is no longer served; 10.19 to 10.29 can't be told from later ones: the protocol names no version of the program.
"""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The protocol version in force, and the connection's time in the gateway's own words, time zone included."""

    version: int = 0
    connection_time: str = ""

    def __str__(self) -> str:
        since = f", connected at {self.connection_time}" if self.connection_time else ""
        return f"protocol version {self.version}{since}"

    @property
    def warning(self) -> str:
        """What is wrong with it, or ""."""
        if not 0 < self.version < OLDEST_SERVED_VERSION:
            return ""
        return (
            f"protocol version {self.version} is older than {OLDEST_SERVED_VERSION}, which every TWS and IB Gateway "
            "that IBKR still serves speaks (10.30 and later since 2025-03-20): install a current one"
        )
