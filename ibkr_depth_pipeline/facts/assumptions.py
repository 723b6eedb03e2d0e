"""What is assumed about a gateway, one entry for each fact that `ibkr_gateway_facts` looks for. Pure.

docs/ibkr-market-depth.md has the same ids in its column "seen"; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class Assumption:
    """One fact. holds(seen) answers whether the value seen is as assumed; None where nothing definite is assumed."""

    fact: str
    asks: str
    assumed: str
    source: str
    experiment: str
    holds: Callable[[JsonValue], bool] | None = None


def _code(code: int) -> Callable[[JsonValue], bool]:
    return lambda seen: isinstance(seen, dict) and seen.get("code") == code


def _is(value: JsonValue) -> Callable[[JsonValue], bool]:
    return lambda seen: seen == value


def _most(limit: float) -> Callable[[JsonValue], bool]:
    return lambda seen: isinstance(seen, int | float) and abs(seen) <= limit


_TWS_CODES = "TWS API message codes"

ASSUMPTIONS: tuple[Assumption, ...] = (
    Assumption(
        *("server_version", "protocol version agreed on", "176, the highest that this client offers"),
        *("ib_insync's source; logs of 2026-09-12", "connection", _is(176)),
    ),
    Assumption(
        *("greeting_secs", "seconds from connecting to the greeting", "seconds, on a busy gateway"),
        *("Lean.Brokerages.InteractiveBrokers PR 151", "connection", None),
    ),
    Assumption(
        *("clock_ahead_secs", "seconds by which its clock is ahead of this host's", "within a second"),
        *("none: hosts are expected to use NTP", "connection", _most(1.0)),
    ),
    Assumption(
        *("ready_codes", "notices after the greeting", "2104, 2106 and 2158 once the farms are up"),
        *("TWS API documentation; ib_insync #330", "connection", None),
    ),
    Assumption(
        *("details_secs", "seconds that contract details take", "not known"),
        *("none", "contracts", None),
    ),
    Assumption(
        *("nasdaq_name", "ISLAND or NASDAQ in validExchanges", "either, by a box of the gateway"),
        *("reported", "contracts", None),
    ),
    Assumption(
        *("unknown_contract", "error about a contract that does not exist", "200"),
        *("ib_insync #330", "contracts", _code(200)),
    ),
    Assumption(
        *("unknown_cancel", "error about the cancel of an id that is not live", "310"),
        *(_TWS_CODES, "contracts", _code(310)),
    ),
    Assumption(
        *("slots", "depth subscriptions at once", "3, and 1 on paper accounts"),
        *("IBKR's page on market depth; reported", "slots", _is(3)),
    ),
    Assumption(
        *("no_slot", "error about a request without a free slot", "309"),
        *(_TWS_CODES, "slots", _code(309)),
    ),
    Assumption(
        *("slots_count", "what slots are counted by", "contracts"),
        *("TWS API documentation", "slots", _is("contracts")),
    ),
    Assumption(
        *("slot_free_secs", "seconds until a cancelled slot is free", "at once, or some seconds later"),
        *("reported", "release", None),
    ),
    Assumption(
        *("no_depth", "error about SMART without isSmartDepth", "10092"),
        *("TWS API documentation", "no_depth", _code(10092)),
    ),
    Assumption(
        *(
            "venues_with_depth",
            "venues that the account has depth for",
            "those that it is subscribed to; 354 and its kind",
        ),
        *("rust-ibapi #768; deephaven-ib #33", "venues", None),
    ),
    Assumption(
        *("first_row_secs", "seconds from a request to its first row, by venue", "below a second; 6 to 13 s reported"),
        *("reported", "venues", None),
    ),
    Assumption(
        *("advisories", "errors with the id of a request whose rows come all the same", "10089, 10090, 10091, 10167"),
        *("rust-ibapi #768; ib_insync #198", "venues", None),
    ),
    Assumption(
        *("insert_meaning", "whether an insert shifts the rows below it or overwrites one", "shift; not settled"),
        *("IBKR's Java sample client; ib_async #33 doubts it", "venues", _is("shift")),
    ),
    Assumption(
        *("row_styles", "how each venue words changes", "inserts and deletes (shift), or updates in place (cascade)"),
        *("stoqey/ib PR 168; a public EUR.USD capture of 2022-02-21", "venues", None),
    ),
    Assumption(
        *("updates_past_end", "updates past the end of a side", "occur"),
        *("elitetrader thread 164903", "venues", lambda seen: seen != {}),
    ),
    Assumption(
        *("row_rates", "rows a second of the best ten levels, by symbol and venue", "not known"),
        *("none", "venues", None),
    ),
    Assumption(
        *("size_units", "lots or shares, by symbol", "either, by a box of the gateway"),
        *("ib_async #183; ib_insync #382", "venues", None),
    ),
    Assumption(
        *("rows_after_cancel_secs", "seconds for which rows go on after a cancel", "a while"),
        *("ib_insync #270, #665", "venues", None),
    ),
    Assumption(
        *("slots_held_after_drop_secs", "seconds for which a closed connection's slots stay taken", "some seconds"),
        *("reported", "drop", None),
    ),
    Assumption(
        *("client_id_held_after_drop_secs", "seconds for which a closed connection's client id stays taken", "seconds"),
        *("Lean.Brokerages.InteractiveBrokers PR 151", "drop", None),
    ),
    Assumption(
        *("early_cancel", "what a cancel before the first row does", "it is lost, and the slot with it"),
        *("0xnoahzhu/tape, seen live", "early_cancel", _is("lost")),
    ),
)

BY_FACT = {each.fact: each for each in ASSUMPTIONS}
EXPERIMENTS = tuple(dict.fromkeys(each.experiment for each in ASSUMPTIONS))
"""The names of the experiments, in the order in which they are carried out."""
