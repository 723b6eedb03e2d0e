"""The texts of the error codes that the simulated gateway sends (docs/ibkr-market-depth.md, "Error codes").

Clients must match codes, never texts: these are what one TWS version said.
"""

from collections.abc import Container, Mapping

TEXTS: Mapping[int, str] = {
    100: "Max rate of messages per second has been exceeded:max={allowed} rec={received} ({violation})",
    101: "Max number of tickers has been reached",
    200: "No security definition has been found for the request",
    309: "Max number ({limit}) of market depth requests has been reached",
    310: "Can't find the subscribed market depth with tickerId:{request_id}",
    316: "Market depth data has been HALTED. Please re-subscribe.",
    317: "Market depth data has been RESET. Please empty deep book contents before applying any new entries.",
    320: "Error reading request.-'{short}' : cause - {cause}",
    321: "Error validating request.-'{short}' : cause - {cause}",
    322: "Error processing request.-'{short}' : cause - Duplicate ticker id",
    326: "Unable to connect as the client id is already in use. Retry with a unique client id.",
    354: "Requested market data is not subscribed.",
    1100: "Connectivity between IB and Trader Workstation has been lost.",
    1101: "Connectivity between IB and Trader Workstation has been restored - data lost.",
    1102: "Connectivity between IB and Trader Workstation has been restored - data maintained.",
    1300: "Socket port has been reset and this connection is being dropped. Please reconnect on the new port - {port}",
    2103: "Market data farm connection is broken:usfarm",
    2104: "Market data farm connection is OK:usfarm",
    2105: "HMDS data farm connection is broken:ushmds",
    2106: "HMDS data farm connection is OK:ushmds",
    2108: "Market data farm connection is inactive but should be available upon demand.usfarm",
    2110: "Connectivity between Trader Workstation and server is broken. It will be restored automatically.",
    2152: "Exchanges - Depth: {depth}; Top: BYX; AMEX; PEARL; T24X; MEMX; EDGEA; OVERNIGHT; CHX; NYSENAT; IBEOS; PSX; "
    "LTSE; ISE; DRCTEDGE; Need additional market data permissions - Depth: {lacking}; ",
    2158: "Sec-def data farm connection is OK:secdefil",
    10089: "Requested market data requires additional subscription for API. See link in 'Market Data Connections' "
    "dialog for more details.",
    10090: "Part of requested market data is not subscribed. Subscription-independent ticks are still active.",
    10092: "Deep market data is not supported for this combination of security type/exchange",
    10197: "No market data during competing live session",
}

READ_ONLY = "The API interface is currently in Read-Only mode."
NO_EXCHANGE = "Please enter exchange."
NO_SECURITY_TYPE = "Please enter a valid security type"
NO_ORDERS = "The simulated gateway accepts no order."
NOT_SIMULATED = "The simulated gateway does not serve this request."
UNKNOWN_MESSAGE = "Unknown message id."
UNREADABLE = "Unable to parse data. {reason}"


_DEPTH = ("IEX", "BATS", "ARCA", "ISLAND", "BEX", "NYSE")
"""Venues whose depth 2152 speaks of."""


def permissions(lacking: Container[str]) -> dict[str, str]:
    """The names in 2152 for an account that lacks the depth of those venues."""
    return {
        "depth": "; ".join(venue for venue in _DEPTH if venue not in lacking),
        "lacking": "; ".join("NASDAQ" if venue == "ISLAND" else venue for venue in _DEPTH if venue in lacking),
    }


_PLACEHOLDERS: dict[str, object] = {
    **{"short": "bR", "cause": "", "port": "", "allowed": 50, "received": 51, "violation": 1},
    **{"limit": 3, "request_id": -1, "depth": "IEX", "lacking": "BATS; ARCA; NASDAQ; BEX; NYSE"},
}


def text_of(code: int, **names: object) -> str:
    """The text of a code with its placeholders filled in; a code without a text of its own gets a plain one."""
    template = TEXTS.get(code, "Simulated error {code}")
    return template.format_map({**_PLACEHOLDERS, "code": code, **names})
