"""An archive to report on, and the page as a reader gets it."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.report.page import WrittenReport, make_report
from ibkr_depth_pipeline_tests.archive.conftest import DAY, Desk, desk, mirror
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

__all__ = ["desk", "mirror"]
COMMAND = Path(sysconfig.get_path("scripts")) / "ibkr_depth_report"
OPEN = 1_767_623_400_000
"""14:30 UTC on 2026-01-05, when New York opens."""
NEXT_DAY = datetime(2026, 1, 6, 0, 30, tzinfo=timezone.utc)


@dataclass
class Page(HTMLParser):
    """A page, taken apart as a browser does: texts, lines of tables, addresses and tags."""

    html: str
    texts: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if not text or self._inside[-1:] in (["style"], ["script"]):
            return
        self.texts.append(text)
        if {"td", "th"} & set(self._inside):
            self.lines[-1][-1] += f" {text}" if self.lines[-1][-1] else text

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def fact(self, label: str) -> tuple[str, str]:
        """One of the numbers at the top, and its note."""
        at = self.texts.index(label)
        return self.texts[at + 1], self.texts[at + 2]

    def line(self, *first: str) -> list[str]:
        """The one line of a table that begins so."""
        (found,) = [line for line in self.lines if line[: len(first)] == list(first)]
        return found


Report = Callable[..., tuple[WrittenReport, Page]]


@pytest.fixture
def report(desk: Desk) -> Report:
    """Make the report of the desk's archive; the page, read back."""

    def make(day: str = str(DAY), **how: Any) -> tuple[WrittenReport, Page]:
        given: dict[str, Any] = {"calendar": "XNYS", "now": NEXT_DAY} | how
        written = make_report(desk.settings.archive_url, day, **given)
        return written, Page(Path(written.path).read_text())

    return make


@pytest.fixture
def command(desk: Desk) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The console script, to its end."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=desk.folder,
            env={**desk.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECS,
        )

    return run
