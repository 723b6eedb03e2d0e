"""The depth venues that the simulated gateway knows: one table, read by the session and by the order flow.

Which service a venue has decides the message its rows come in: `Deep2` names market makers and sends mktDepthL2 (13),
`Deep` sends mktDepth (12). Which style a venue has is this simulator's own choice; both occur among the default
symbols on purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ibkr_depth_pipeline.simulation.rows import RowStyle

UNSET_INTEGER = 2147483647
"""What a gateway sends for an aggregate group that is not set; ib_insync cannot read an empty one."""


@dataclass(frozen=True, slots=True)
class DepthVenue:
    name: str
    sec_type: str
    style: RowStyle
    market_makers: tuple[str, ...] = ()
    """Names that rows carry; none means rows without one, in mktDepth (12)."""
    aggregate_group: int = UNSET_INTEGER

    @property
    def names_market_makers(self) -> bool:
        return bool(self.market_makers)

    @property
    def service(self) -> str:
        return "Deep2" if self.market_makers else "Deep"


_STOCK_VENUES = (
    DepthVenue("ISLAND", "STK", RowStyle.SHIFT, ("NSDQ", "NSDQ", "NSDQ", "GSCO", "CDRG", "JPMS", "UBSS")),
    DepthVenue("ARCA", "STK", RowStyle.CASCADE, ("ARCA",)),
    DepthVenue("NYSE", "STK", RowStyle.SHIFT),
    DepthVenue("BATS", "STK", RowStyle.SHIFT, ("BATS",)),
    DepthVenue("IEX", "STK", RowStyle.CASCADE),
    DepthVenue("EDGX", "STK", RowStyle.SHIFT),
    DepthVenue("DRCTEDGE", "STK", RowStyle.SHIFT),
    DepthVenue("BEX", "STK", RowStyle.CASCADE),
    DepthVenue("BYX", "STK", RowStyle.CASCADE),
    DepthVenue("AMEX", "STK", RowStyle.CASCADE),
)
_OTHER_VENUES = (
    DepthVenue("IDEALPRO", "CASH", RowStyle.CASCADE, aggregate_group=4),
    DepthVenue("GLOBEX", "FUT", RowStyle.CASCADE),
)

SMART_DEPTH = DepthVenue("SMART", "STK", RowStyle.CASCADE, ("NSDQ", "ARCA", "BATS", "EDGX", "IEX", "NYSE"))
"""The aggregate of all venues (isSmartDepth true): the name in a row is the venue it rests on."""

NASDAQ_NAMES = ("ISLAND", "NASDAQ")
"""One venue, two names: TWS 10.27 and later take both in requests and list the one that a checkbox selects."""

DEPTH_VENUES: Mapping[tuple[str, str], DepthVenue] = {
    (venue.name, venue.sec_type): venue for venue in (*_STOCK_VENUES, *_OTHER_VENUES)
}


def canonical(exchange: str) -> str:
    """The table's own name of an exchange: NASDAQ is found under ISLAND."""
    return "ISLAND" if exchange == "NASDAQ" else exchange


def depth_venue(exchange: str, sec_type: str) -> DepthVenue | None:
    """The venue whose depth can be had for that kind of contract, under either of its names, or None."""
    return DEPTH_VENUES.get((canonical(exchange), sec_type))
