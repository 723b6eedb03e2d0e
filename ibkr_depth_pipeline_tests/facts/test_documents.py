"""The facts of the program and those of the documents are the same."""

from __future__ import annotations

import re
from pathlib import Path

import ibkr_depth_pipeline
from ibkr_depth_pipeline.facts.assumptions import ASSUMPTIONS, BY_FACT, EXPERIMENTS
from ibkr_depth_pipeline.gateway_facts import FactEntry, GatewayFacts

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "ibkr-market-depth.md").read_text(encoding="utf-8")
FORMAT = (DOCS / "gateway-facts.md").read_text(encoding="utf-8")
PACKAGE = Path(ibkr_depth_pipeline.__file__).parent


def rows_with(column: str) -> list[list[str]]:
    """The cells of every table of the page whose last column is that."""
    found, inside = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif inside and not set(cells[0]) <= {"-", " "}:
            found.append(cells)
        inside = inside or (bool(cells) and cells[-1].strip(" |") == column)
    return found


def test_each_fact_of_the_program_stands_in_one_row_of_the_page_and_each_id_of_the_page_is_a_fact() -> None:
    ids = [name for cells in rows_with("seen") for name in re.findall(r"`(\w+)`: ", cells[-1])]
    assert sorted(ids) == sorted(BY_FACT)


def test_each_row_of_the_page_says_whether_it_was_seen() -> None:
    rows = rows_with("seen")
    assert len(rows) > 60
    cell = re.compile(r"only reported|`\w+`: (not yet|.*\d{4}-\d\d-\d\d)(; `\w+`: (not yet|.*\d{4}-\d\d-\d\d))*")
    assert [cells for cells in rows if not cell.fullmatch(cells[-1].strip(" |"))] == []


def test_each_file_that_a_second_protocol_would_touch_exists() -> None:
    section = PAGE.partition("### What is to come")[2].partition("\n## ")[0]
    files = re.findall(r"`([a-z_]+/[a-z_]+\.py)`", section)
    assert len(files) >= 9
    assert [name for name in files if not (PACKAGE / name).is_file()] == []


def test_document_of_the_file_has_every_key_every_fact_and_every_experiment() -> None:
    named = set(re.findall(r"`(\w+)`", FORMAT))
    assert named >= {*GatewayFacts.model_fields, *FactEntry.model_fields, *BY_FACT, *EXPERIMENTS}


def test_facts_of_an_experiment_stand_beside_it_in_the_document() -> None:
    for experiment in EXPERIMENTS:
        row = next(line for line in FORMAT.splitlines() if line.startswith(f"| `{experiment}` |"))
        own = [each.fact for each in ASSUMPTIONS if each.experiment == experiment]
        assert re.findall(r"`(\w+)`", row.rsplit(" | ", 1)[1]) == own
