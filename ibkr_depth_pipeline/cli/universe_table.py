"""The universe that an ingest has in force, as a person reads it in 80 columns, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ibkr_depth_pipeline.formatting import short_duration, utc
from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.schema.status import SymbolFigures

_COLUMNS = {"instrument": 10, "contract": 8, "venue": 8, "hours": 7, "wish": 8, "share": 5, "next turn": 9}
"""Heading and least width; in a narrow terminal longer texts are folded."""


def universe_json(feed: IngestHealth) -> str:
    """One object: the run, what is wrong with the newest file, and each instrument by its name."""
    figures = feed.figures
    found: dict[str, Any] = {"gateway": feed.name, "running": feed.running, "problem": "", "instruments": {}}
    if figures is not None:
        found["problem"] = figures.universe_problem
        found["run_id"] = figures.run.run_id
        found["instruments"] = {name: _facts(each) for name, each in figures.symbols.items() if name != "unknown"}
    return orjson.dumps(found).decode()


def _facts(each: SymbolFigures) -> dict[str, Any]:
    return {
        "con_id": each.con_id,
        "contract": each.contract,
        "venue": each.venue,
        "hours": each.hours,
        "closed_until": each.closed_until,
        "pin": each.pinned,
        "weight": each.weight,
        "focus": each.focus,
        "share": each.share,
        "next_turn_secs": each.next_turn_secs,
        "subscribed": each.subscribed,
    }


def render_universe(feed: IngestHealth) -> RenderableType:
    """A row for each instrument, and what is wrong with the newest file."""
    figures = feed.figures
    if figures is None:
        return Text(f"ingest {feed.name}: {feed.problem}", "bold red")
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for name, least in _COLUMNS.items():
        justify: JustifyMethod = "right" if name in ("share", "next turn") else "left"
        table.add_column(
            name, justify=justify, overflow="fold", min_width=least, no_wrap=name in ("share", "next turn")
        )
    for name, each in figures.symbols.items():
        if name != "unknown":
            table.add_row(Text(name), *map(Text, _cells(each)))
    head = Text(f"ingest {feed.name}: {feed.problem or 'running'}", "bold red" if feed.problem else "green")
    problem = figures.universe_problem
    notes = [Text(f"the newest universe is not in force: {problem}", "bold red")] if problem else []
    asked = [
        Text(f"{name}: in focus, asked for by {each.focus}") for name, each in figures.symbols.items() if each.focus
    ]
    return Group(head, *notes, "", table, *([""] if asked else []), *asked)


def _cells(each: SymbolFigures) -> Iterator[str]:
    yield each.contract or (str(each.con_id) if each.con_id else "")
    yield each.venue
    yield f"closed until {utc(each.closed_until)}" if each.closed_until else each.hours
    yield _wish(each)
    yield f"{each.share:.0%}" if each.share else ""
    yield _next_turn(each)


def _wish(each: SymbolFigures) -> str:
    wishes = ["focus"] if each.focus else []
    wishes += ["pin"] if each.pinned else []
    wishes += [f"weight {each.weight}"] if each.weight != 1 else []
    return ", ".join(wishes)


def _next_turn(each: SymbolFigures) -> str:
    if each.subscribed:
        return "now"
    return "" if each.next_turn_secs is None else short_duration(each.next_turn_secs)
