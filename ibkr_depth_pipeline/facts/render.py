"""Facts as a table "assumed, seen", for a terminal."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table
from rich.text import Text

from ibkr_depth_pipeline.facts.assumptions import ASSUMPTIONS
from ibkr_depth_pipeline.gateway_facts import FactEntry, GatewayFacts


def facts_table(facts: GatewayFacts) -> Table:
    """One row for each fact."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{facts.host}:{facts.port}", title_justify="left", pad_edge=False)
    for column in ("fact", "assumed", "seen"):
        table.add_column(column, overflow="fold", ratio=1)
    for each in ASSUMPTIONS:
        entry = facts.facts[each.fact]
        table.add_row(each.asks, entry.assumed, _seen(entry))
    return table


def facts_summary(facts: GatewayFacts) -> str:
    """How many facts are as assumed, otherwise, without an assumption, and not seen, in one line."""
    seen = [each for each in facts.facts.values() if each.seen_ts is not None]
    counts = Counter(each.as_assumed for each in seen)
    return (
        f"{counts[True]} as assumed, {counts[False]} otherwise, {counts[None]} where nothing definite is assumed, "
        f"{len(facts.facts) - len(seen)} not seen"
    )


def _seen(entry: FactEntry) -> Text:
    if entry.seen_ts is None:
        return Text(f"not seen: {entry.reason}", style="dim")
    style = {True: "green", False: "yellow", None: ""}[entry.as_assumed]
    note = f" ({entry.note})" if entry.note else ""
    return Text(f"{'at least ' if entry.at_least else ''}{in_words(entry.seen)}{note}", style=style)


def in_words(seen: object) -> str:
    """A value of the file, for a reader."""
    if isinstance(seen, dict):
        return ", ".join(f"{name}: {_nested(each)}" for name, each in seen.items()) or "none"
    if isinstance(seen, list):
        return ", ".join(map(str, seen)) or "none"
    return f"{seen:g}" if isinstance(seen, float) else str(seen)


def _nested(seen: object) -> str:
    return f"({in_words(seen)})" if isinstance(seen, dict) else in_words(seen)
