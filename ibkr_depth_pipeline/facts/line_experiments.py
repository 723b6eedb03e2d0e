"""Experiments about lines: the venues' rows, cancels, and what a closed connection leaves. Pure (evidence.py)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic import JsonValue

from ibkr_depth_pipeline.facts.account_experiments import (
    fill_slots,
    leave_all,
    open_contracts,
    secs_until_free,
    slots_known,
)
from ibkr_depth_pipeline.facts.books import InsertMeaning, followed, meaning_of, opening_rows, style_of
from ibkr_depth_pipeline.facts.evidence import (
    NO_SLOT_CODES,
    PERMISSIONS,
    CancelLine,
    ConnectAnew,
    Evidence,
    ExperimentFailed,
    ObservedLine,
    Steps,
    WaitFor,
)
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.schema.size_units import is_judged, unit_of_kind, unit_of_sizes

RIPPLE_SECS = 0.15
"""Rows so soon after a cancel were under way already."""

LEAST_SIZES = 40
RATED_ROWS = 10
"""Rates are of a book of so many rows a side: how many more a change makes depends on the rows that are asked for."""
_NO_ROWS = "no line has had rows"


def venues(evidence: Evidence) -> Steps:
    """Requests the symbols on every venue with depth, watches them, compares each with a fresh line, and cancels."""
    wanted = [place for each in _asked_for(evidence) for place in _places(each, evidence.limits.most_venues)]
    yield from leave_all(evidence)
    lines: list[ObservedLine] = []
    fresh: dict[ObservedLine, ObservedLine] = {}
    while wanted:
        batch: list[ObservedLine] = []
        while wanted:
            line = yield from evidence.open(wanted[0])
            is_granted = yield from evidence.granted(line)
            if not is_granted:
                break
            batch.append(line)
            wanted.pop(0)
        if not batch:
            raise ExperimentFailed(f"no slot was free for {wanted[0].symbol} on {wanted[0].exchange}")
        lines += batch
        yield from _watch(evidence, batch, fresh)
    _conclude_access(evidence, lines)
    _conclude_rows(evidence, lines, fresh)


def _asked_for(evidence: Evidence) -> list[Instrument]:
    asked = [evidence.instruments[name] for name in evidence.symbols if name in evidence.instruments]
    instruments = [each for each in asked if each.symbol not in evidence.closed]
    if not instruments:
        raise ExperimentFailed(evidence.why_no_contract)
    return instruments


def _places(instrument: Instrument, most: int) -> list[Instrument]:
    names = dict.fromkeys((instrument.exchange, *instrument.alternatives))
    return [replace(instrument, exchange=name) for name in list(names)[:most]]


def _watch(evidence: Evidence, batch: Sequence[ObservedLine], fresh: dict[ObservedLine, ObservedLine]) -> Steps:
    limits = evidence.limits
    for line in batch:
        yield from evidence.answered(line)
    yield from evidence.pause(limits.watch)
    for line in [each for each in batch if each.has_rows]:
        again = yield from evidence.open(line.instrument)
        if (yield from evidence.granted(again)):
            fresh[line] = again
    yield from evidence.pause(limits.compare)
    yield from evidence.cancel([*batch, *fresh.values()])
    cancelled = [each for each in (*batch, *fresh.values()) if each.has_rows]
    until = evidence.now + limits.late_rows
    yield WaitFor(lambda: _are_quiet(cancelled, evidence.now), until)
    yield from evidence.pause(evidence.slot_free())


def _are_quiet(cancelled: Iterable[ObservedLine], now: float) -> bool:
    """Whether no row has come for a while, beyond what their usual pace explains."""
    return all(now - max(each.last_row_at, each.cancelled_at) > 1.0 for each in cancelled)


def _conclude_access(evidence: Evidence, lines: Sequence[ObservedLine]) -> None:
    access: dict[str, dict[str, JsonValue]] = defaultdict(dict)
    advised: dict[str, JsonValue] = {}
    for line in lines:
        symbol, venue = line.instrument.symbol, line.instrument.exchange
        if line.has_rows:
            access[symbol][venue] = "depth"
            if line.error is not None and line.error.code not in NO_SLOT_CODES:
                advised[symbol] = {"code": line.error.code, "secs": round(line.error.at - line.sent_at, 2)}
        else:
            access[symbol][venue] = "silent" if line.error is None else line.error.code
    notice = next((each.text for each in evidence.errors if each.code == PERMISSIONS), "")
    evidence.find("venues_with_depth", {symbol: dict(found) for symbol, found in access.items()}, notice)
    evidence.find("advisories", advised)
    first = {line.place: round(line.first_row_at - line.sent_at, 2) for line in lines if line.has_rows}
    if first:
        evidence.find("first_row_secs", dict[str, JsonValue](first))
    else:
        evidence.fail(["first_row_secs"], _NO_ROWS)


def _conclude_rows(evidence: Evidence, lines: Sequence[ObservedLine], fresh: dict[ObservedLine, ObservedLine]) -> None:
    compare = evidence.limits.compare
    with_rows = [line for line in lines if line.has_rows]
    if not with_rows:
        evidence.fail(["insert_meaning", "row_styles", "updates_past_end", "row_rates", "size_units"], _NO_ROWS)
        evidence.fail(["rows_after_cancel_secs"], _NO_ROWS)
        return
    meanings = {line: meaning_of(line, fresh[line], compare) for line in with_rows if line in fresh}
    _conclude_meaning(evidence, meanings)
    styles = {line: style_of(line, meanings.get(line)) for line in with_rows}
    seen = {line.instrument.exchange: style for line, style in styles.items() if style is not None}
    if seen:
        evidence.find("row_styles", dict[str, JsonValue](seen))
    else:
        evidence.fail(["row_styles"], "too few rows changed a price")
    past_end = {line: followed(line, meanings.get(line) or InsertMeaning.SHIFT).past_end for line in with_rows}
    note = f"of {sum(len(line.rows) for line in with_rows)} rows"
    evidence.find("updates_past_end", {line.place: count for line, count in past_end.items() if count}, note)
    evidence.find("row_rates", {line.place: _rate(line) for line in with_rows})
    _conclude_units(evidence, with_rows)
    _conclude_late_rows(evidence)


def _conclude_meaning(evidence: Evidence, meanings: dict[ObservedLine, InsertMeaning | None]) -> None:
    seen: dict[str, list[str]] = defaultdict(list)
    for line, meaning in meanings.items():
        if meaning is not None:
            seen[meaning.value].append(line.place)
    if not seen:
        why = "no insert at the position of a row, the same book under both meanings, or no fresh line"
        evidence.fail(["insert_meaning"], why)
    elif len(seen) == 1:
        evidence.find("insert_meaning", next(iter(seen)), f"on {', '.join(*seen.values())}")
    else:
        evidence.find("insert_meaning", "by venue", "; ".join(f"{m} on {', '.join(on)}" for m, on in seen.items()))


def _rate(line: ObservedLine) -> float:
    """Rows a second of the best RATED_ROWS positions, from the opening to the cancel."""
    after = line.rows[opening_rows(line) :]
    rated = sum(each.row.position < RATED_ROWS and each.at <= line.cancelled_at for each in after)
    secs = min(line.cancelled_at, line.last_row_at) - line.rows[0].at if line.rows else 0.0
    return round(rated / secs, 1) if rated and secs > 0 else 0.0


def _conclude_units(evidence: Evidence, lines: Sequence[ObservedLine]) -> None:
    units: dict[str, JsonValue] = {}
    sizes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in lines:
        instrument = line.instrument
        if unit := unit_of_kind(instrument.sec_type):
            units[instrument.symbol] = unit
        elif is_judged(instrument.sec_type, instrument.currency):
            sizes[instrument.symbol] += [(each.row.price, each.row.size) for each in line.rows if each.row.size > 0]
    for symbol, levels in sizes.items():
        if len(levels) >= LEAST_SIZES and (unit := unit_of_sizes(levels)):
            units[symbol] = unit
    missing = [symbol for symbol in sizes if symbol not in units]
    if units:
        evidence.find("size_units", units, f"left open by the sizes: {', '.join(missing)}" if missing else "")
    else:
        evidence.fail(["size_units"], "the sizes leave it open")


def _conclude_late_rows(evidence: Evidence) -> None:
    """From all lines that were cancelled after their first row, and had ticked at a pace that shows it."""
    cancelled = [line for line in evidence.lines.values() if line.has_rows and line.cancelled_at < math.inf]
    late = max(line.last_row_at - line.cancelled_at for line in cancelled)
    goes_on = late > evidence.limits.late_rows - 0.5
    secs = round(late, 2) if late > RIPPLE_SECS else 0.0
    evidence.find("rows_after_cancel_secs", secs, f"of {len(cancelled)} cancels", at_least=goes_on)


# ---- a closed connection


def drop(evidence: Evidence) -> Steps:
    """Fills the slots, closes the connection, and connects again: when the client id and the slots are free."""
    slots, instruments = slots_known(evidence), open_contracts(evidence)
    if slots >= len(instruments):
        raise ExperimentFailed("no further contract to request")
    yield from leave_all(evidence)
    yield from fill_slots(evidence, instruments[:slots])
    closed_at = evidence.now
    secs: float = yield ConnectAnew()
    held = secs == math.inf
    evidence.find("client_id_held_after_drop_secs", evidence.limits.release if held else secs, at_least=held)
    low, high = yield from secs_until_free(evidence, instruments[slots], closed_at)
    if high == math.inf:
        evidence.find("slots_held_after_drop_secs", round(low, 2), "refused to the end", at_least=True)
    else:
        note = f"refused after {low:.2f} s" if low else f"granted by the first request, after {high:.2f} s"
        evidence.find("slots_held_after_drop_secs", round(high, 2) if low else 0.0, note)
    yield from leave_all(evidence)


# ---- an early cancel


def early_cancel(evidence: Evidence) -> Steps:
    """Cancels a request at once; rows that come all the same show that the cancel was ignored."""
    instrument = _slow_enough(evidence)
    yield from leave_all(evidence)
    line = yield from evidence.open(instrument, cancel_at_once=True)
    first_row = _first_row_secs(evidence)[f"{instrument.symbol}@{instrument.exchange}"]
    yield WaitFor(lambda: line.has_rows, line.sent_at + max(3 * first_row, evidence.limits.granted))
    if line.has_rows:
        yield from _cancelled_again(evidence, line)
        return
    yield from _slot_of_lost_cancel(evidence, line)


def _first_row_secs(evidence: Evidence) -> dict[str, float]:
    found = evidence.findings.get("first_row_secs")
    seen = found.seen if found is not None else None
    return {place: float(str(secs)) for place, secs in seen.items()} if isinstance(seen, dict) else {}


def _slow_enough(evidence: Evidence) -> Instrument:
    """The instrument whose first row leaves the most time for a cancel before it."""
    first = _first_row_secs(evidence)
    if not first:
        raise ExperimentFailed("no line has had a first row before")
    place = max(first, key=lambda each: first[each])
    symbol, _, venue = place.partition("@")
    if first[place] < MOST_EARLY_SECS:
        raise ExperimentFailed(f"first rows come within {first[place]:g} s: no cancel can be earlier")
    return replace(evidence.instruments[symbol], exchange=venue)


MOST_EARLY_SECS = 0.03


def _cancelled_again(evidence: Evidence, line: ObservedLine) -> Steps:
    """A second cancel, after the first row: answered by 310, or effective."""
    errors = len(line.errors)
    yield CancelLine(line)
    again_at = evidence.now
    yield WaitFor(lambda: len(line.errors) > errors, again_at + evidence.limits.granted)
    yield from evidence.pause(RIPPLE_SECS)
    if len(line.errors) > errors:
        note = f"later cancels are answered by {line.errors[-1].code}"
        evidence.find("early_cancel", "lost", note)
        yield ConnectAnew()  # nothing else frees its slot
    else:
        evidence.find("early_cancel", "lost-until-first-row", "a cancel after the first row is effective")


def _slot_of_lost_cancel(evidence: Evidence, line: ObservedLine) -> Steps:
    """No row came: whether the slot is free, too."""
    slots = slots_known(evidence)
    others = [each for each in open_contracts(evidence) if each.con_id != line.instrument.con_id]
    if len(others) < slots:
        raise ExperimentFailed("no row came; too few contracts to try whether its slot is free")
    yield from evidence.pause(evidence.slot_free())
    refused = yield from fill_slots(evidence, others[:slots])
    if refused is None:
        evidence.find("early_cancel", "honoured", "no row came, and its slot is free")
    else:
        evidence.find("early_cancel", "lost", "no row came, and its slot is held")
    yield from leave_all(evidence)
