"""Experiments about the connection, contracts and the account's slots. Pure: generators of commands (evidence.py)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Any

from ibkr_depth_pipeline.facts.evidence import (
    AskClock,
    CancelLine,
    ClockSample,
    ConnectAnew,
    Evidence,
    ExperimentFailed,
    FactCommand,
    ObservedLine,
    ResolveSymbols,
    Steps,
    WaitFor,
)
from ibkr_depth_pipeline.gateway.contracts import TWINS
from ibkr_depth_pipeline.model import Instrument

CLOCK_SAMPLES = 8
CLOCK_SPACING_SECS = 0.13
"""Samples at different parts of a second: the gateway tells whole seconds, so that each bounds its clock anew."""

NO_SUCH_SYMBOL = "ZZNOSUCH"
READY_CODES = (2104, 2106, 2158)
LEAST_STEP_SECS = 0.1
"""Between two requests for a slot that is not free yet; later a tenth of the time that has passed."""

MOST_REFUSALS = 6
"""Venues of one contract that are tried, beside those that have refused others."""

RELEASES = 2
"""How many slots are given back and requested again."""


def connection(evidence: Evidence) -> Steps:
    """The greeting, the clock, the farms."""
    evidence.find("server_version", evidence.server_version)
    evidence.find("greeting_secs", round(evidence.greeting_secs, 2))
    samples: list[ClockSample] = []
    for _ in range(CLOCK_SAMPLES):
        sample = yield AskClock()
        samples.append(sample)
        yield from evidence.pause(CLOCK_SPACING_SECS)
    low, high = clock_bounds(samples)
    if low < high:
        evidence.find("clock_ahead_secs", round((low + high) / 2, 2), f"within {(high - low) / 2:.2f} s")
    else:
        evidence.fail(["clock_ahead_secs"], "one of the two clocks stepped meanwhile")

    def codes() -> list[int]:
        return sorted({each.code for each in evidence.errors} & set(READY_CODES))

    yield WaitFor(lambda: len(codes()) == len(READY_CODES), evidence.now + evidence.limits.farms)
    evidence.find("ready_codes", [*codes()])


def clock_bounds(samples: Iterable[ClockSample]) -> tuple[float, float]:
    """By how much the gateway's clock is ahead, at least and at most; least above most if the samples disagree."""
    low, high = -math.inf, math.inf
    for asked_at, told, answered_at in samples:
        low, high = max(low, told - answered_at), min(high, told + 1 - asked_at)
    return low, high


def contracts(evidence: Evidence) -> Steps:
    """The contracts asked for, those that fill the slots, and what is answered about one that does not exist."""
    names = (*evidence.symbols, *evidence.spare_symbols)
    found = yield ResolveSymbols(tuple(dict.fromkeys(names)))
    for name, each in found.items():
        if isinstance(each, Instrument):
            evidence.instruments[name] = each
        elif name in evidence.symbols:
            evidence.fail(["venues_with_depth", "first_row_secs"], f"{name}: {each.reason}")
    if evidence.details_secs is not None:
        evidence.find("details_secs", round(evidence.details_secs, 2))
    _nasdaq_name(evidence)
    yield from _unknown_contract(evidence)
    yield from _unknown_cancel(evidence)


def _nasdaq_name(evidence: Evidence) -> None:
    listed = {name for each in evidence.instruments.values() for name in each.valid_exchanges if name in TWINS}
    if len(listed) == 1:
        evidence.find("nasdaq_name", listed.pop())
    else:
        evidence.fail(["nasdaq_name"], "both are listed" if listed else "no contract asked for lists either")


def _unknown_contract(evidence: Evidence) -> Steps:
    before = len(evidence.errors)
    yield ResolveSymbols((NO_SUCH_SYMBOL,))
    _find_error(evidence, "unknown_contract", before)


def _unknown_cancel(evidence: Evidence) -> Steps:
    before = len(evidence.errors)
    instrument = next(iter(evidence.instruments.values()), None)
    if instrument is None:
        raise ExperimentFailed("no symbol has a contract with depth")
    yield CancelLine(ObservedLine(next(evidence.request_ids), instrument, evidence.rows_asked))
    yield WaitFor(lambda: _error_since(evidence, before) is not None, evidence.now + evidence.limits.granted)
    _find_error(evidence, "unknown_cancel", before)


def _error_since(evidence: Evidence, before: int) -> dict[str, Any] | None:
    return next((each.as_json for each in evidence.errors[before:] if each.request > 0), None)


def _find_error(evidence: Evidence, fact: str, before: int) -> None:
    error = _error_since(evidence, before)
    if error is None:
        evidence.fail([fact], "no error came")
    else:
        evidence.find(fact, error)


# ---- slots


def slots(evidence: Evidence) -> Steps:
    """Opens lines of different contracts until one is refused, and leaves them open."""
    spare = yield from fill_slots(evidence, open_contracts(evidence)[: evidence.limits.most_slots + 1])
    lines = held_lines(evidence)
    if spare is None and not lines:
        codes = sorted({line.error.code for line in evidence.lines.values() if line.error is not None})
        raise ExperimentFailed(f"no contract was granted on any venue: {', '.join(map(str, codes))}")
    if spare is None:
        evidence.find("slots", len(lines), "there were no more contracts to request", at_least=True)
        return
    if spare.error is not None:
        evidence.find("no_slot", spare.error.as_json)
    if not lines:
        raise ExperimentFailed(
            f"no slot is free ({spare.error.code if spare.error else 309}): other clients or windows of TWS hold all"
        )
    evidence.find("slots", len(lines), "free of the account's; TWS windows and other clients count")
    again = yield from evidence.open(lines[0].instrument)
    is_granted = yield from evidence.granted(again)
    evidence.find("slots_count", "contracts" if is_granted else "subscriptions")
    yield from evidence.cancel([again])


def fill_slots(
    evidence: Evidence, instruments: Iterable[Instrument]
) -> Generator[FactCommand, Any, ObservedLine | None]:
    """Opens a line of each contract, until one is refused for want of a slot, twice; returns that one."""
    for instrument in instruments:
        line = yield from open_somewhere(evidence, instrument)
        if line.has_no_slot:  # a slot that was given back a moment ago may be late
            yield from evidence.pause(evidence.limits.granted)
            line = yield from open_somewhere(evidence, instrument)
        if line.has_no_slot:
            return line
    return None


def open_somewhere(evidence: Evidence, instrument: Instrument) -> Generator[FactCommand, Any, ObservedLine]:
    """Opens a line of the contract on the first of its venues that does not refuse it; returns the last one tried."""
    for place in places(evidence, instrument)[:MOST_REFUSALS]:
        line = yield from evidence.open(place)
        yield from evidence.granted(line)
        if line.has_no_slot or line.has_rows or line.error is None:
            return line
        evidence.refusing.add(place.exchange)
    return line


def places(evidence: Evidence, instrument: Instrument) -> list[Instrument]:
    """The contract on each of its venues, at least one, without those that have refused others."""
    venues = dict.fromkeys((instrument.exchange, *instrument.alternatives))
    return [replace(instrument, exchange=venue) for venue in venues if venue not in evidence.refusing] or [instrument]


def release(evidence: Evidence) -> Steps:
    """With all slots taken, gives one back and requests another contract until that is granted."""
    bounds = []
    for _ in range(RELEASES):
        slots_known(evidence)
        for line in held_lines(evidence):
            yield from evidence.answered(line)
        held = held_lines(evidence)
        taken = {line.instrument.con_id for line in held}
        free = next((each for each in open_contracts(evidence) if each.con_id not in taken), None)
        given_back = next((line for line in held if line.has_rows), None)
        if free is None or given_back is None:
            raise ExperimentFailed("no line with rows to cancel" if free else "no further contract to request")
        yield from evidence.cancel([given_back])
        bounds.append((yield from secs_until_free(evidence, free, given_back.cancelled_at)))
        if free.con_id not in {line.instrument.con_id for line in held_lines(evidence)}:  # refused there
            yield from fill_slots(evidence, [free])
    low, high = max(bounds, key=lambda each: each[1])
    note = f"refused after {low:.2f} s, granted after {high:.2f} s" if low else "granted by the first request"
    if high == math.inf:
        evidence.find("slot_free_secs", round(low, 2), "refused to the end", at_least=True)
    else:
        evidence.find("slot_free_secs", round(high, 2) if low else 0.0, note)
    yield from leave_all(evidence)


def secs_until_free(
    evidence: Evidence, instrument: Instrument, since: float
) -> Generator[FactCommand, Any, tuple[float, float]]:
    """Requests the contract until a slot is free. Returns after how long it was refused last, and was not (or inf).

    A refusal for another reason shows that there was a slot: gateways check for one first.
    """
    refused = 0.0
    while True:
        line = yield from evidence.open(places(evidence, instrument)[0])
        if (yield from evidence.granted(line)):
            return refused, line.sent_at - since
        refused = line.sent_at - since
        if refused > evidence.limits.release:
            return refused, math.inf
        yield WaitFor(lambda: False, line.sent_at + max(LEAST_STEP_SECS, refused / 10))


def open_contracts(evidence: Evidence) -> list[Instrument]:
    """Different contracts whose market is open."""
    found = [each for each in evidence.contracts if each.symbol not in evidence.closed]
    if not found:
        raise ExperimentFailed(evidence.why_no_contract)
    return found


def held_lines(evidence: Evidence) -> list[ObservedLine]:
    """The lines that hold a slot."""
    open_ones = [line for line in evidence.lines.values() if line.cancelled_at == math.inf]
    return [line for line in open_ones if line.has_rows or line.error is None]


def slots_known(evidence: Evidence) -> int:
    """The number of slots. Raises ExperimentFailed if their limit was not met."""
    found = evidence.findings.get("slots")
    if found is None or found.at_least or not isinstance(found.seen, int):
        raise ExperimentFailed("the limit of the slots is not known")
    return found.seen


def leave_all(evidence: Evidence) -> Steps:
    """Cancels every line, and waits until the slots are free.

    The cancel of a line that never had a row may be ignored: only a new connection frees those slots for certain.
    """
    silent = [line for line in held_lines(evidence) if not line.has_rows]
    yield from evidence.cancel(list(evidence.lines.values()))
    if any(not line.has_rows and line.error is None for line in silent):
        yield ConnectAnew()
    yield from evidence.pause(evidence.slot_free())


def no_depth(evidence: Evidence) -> Steps:
    """Requests SMART without isSmartDepth."""
    instrument = next((each for each in open_contracts(evidence) if each.sec_type == "STK"), None)
    if instrument is None:
        raise ExperimentFailed("no stock among the symbols whose market is open")
    yield from leave_all(evidence)
    line = yield from evidence.open(replace(instrument, exchange="SMART"))
    yield from evidence.answered(line)
    if line.has_rows:
        evidence.find("no_depth", "rows")
        yield from evidence.cancel([line])
    elif line.has_no_slot:
        evidence.fail(["no_depth"], "no slot was free")
    elif line.error is not None:
        evidence.find("no_depth", line.error.as_json)
    else:
        evidence.fail(["no_depth"], "neither a row nor an error came")
