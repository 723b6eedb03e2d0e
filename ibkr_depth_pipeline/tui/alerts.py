"""Renders the alerts: a line with what is open and what came last, and a page of all. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from ibkr_depth_pipeline.formatting import short_duration, utc, utc_clock
from ibkr_depth_pipeline.schema.alerts import AlertKind, TrackedAlert, alerts_at

SHOWN_MS = 3_600_000
"""For so long an alert that is not open stays in the line."""

_SIGNS = {AlertKind.TROUBLE: "\u25b2", AlertKind.RECOVERY: "\u2713", AlertKind.NOTICE: "\u25cf"}
_ASCII = {AlertKind.TROUBLE: "!", AlertKind.RECOVERY: "+", AlertKind.NOTICE: "*"}
_WORDS = {AlertKind.TROUBLE: "trouble", AlertKind.RECOVERY: "all-clear", AlertKind.NOTICE: "notice"}
_STYLES = {AlertKind.TROUBLE: "red", AlertKind.RECOVERY: "green", AlertKind.NOTICE: "yellow"}
_DAY_MS = 86_400_000


def alert_line(alerts: Sequence[TrackedAlert], ts: int, width: int, *, ascii_only: bool) -> list[Text]:
    """How many are open at unix ms `ts`, and the newest of them, or the last one of the last hour; no line if none."""
    raised = alerts_at(alerts, ts)
    still_open = [each for each in raised if each.is_open(ts)]
    newest = next(iter(still_open or raised), None)
    if newest is None or (not still_open and ts - newest.alert.ts > SHOWN_MS):
        return []
    text = Text(f"alerts: {len(still_open) or 'none'} open  ", "bold red" if still_open else "dim", no_wrap=True)
    text.append(" ".join(_parts(newest, ts, ascii_only)), "" if still_open else _STYLES[newest.alert.kind])
    text.truncate(width, overflow="ellipsis")
    return [text]


def alerts_page(
    alerts: Sequence[TrackedAlert], ts: int, width: int, room: int | None, *, ascii_only: bool
) -> list[Text]:
    """Those that were raised by unix ms `ts`, newest first, each with its text, as many as there is room for."""
    raised = alerts_at(alerts, ts)
    still_open = sum(each.is_open(ts) for each in raised)
    lines = [_line(f"Alerts: {still_open or 'none'} open, {len(raised)} in all. Times are UTC.", "bold", width)]
    for at, each in enumerate(raised):
        entry = list(_entry(each, ts, width, ascii_only))
        if room is not None and len(lines) + len(entry) + 1 > room:
            return [*lines, _line(f"{len(raised) - at} older: they stand on the web page, too", "dim", width)]
        lines += entry
    return lines if raised else [*lines, _line("None was raised about this ingest.", "dim", width)]


def _entry(each: TrackedAlert, ts: int, width: int, ascii_only: bool) -> Iterator[Text]:
    style = f"bold {_STYLES[each.alert.kind]}" if each.is_open(ts) else _STYLES[each.alert.kind]
    yield _line(" ".join(_parts(each, ts, ascii_only)), style, width)
    for line in each.alert.text.splitlines():
        yield _line(f"    {_printable(line)}", "dim", width)


def _line(content: str, style: str, width: int) -> Text:
    text = Text(content, style, no_wrap=True)
    text.truncate(width, overflow="ellipsis")
    return text


def _parts(each: TrackedAlert, ts: int, ascii_only: bool) -> Iterator[str]:
    alert = each.alert
    yield f"{(_ASCII if ascii_only else _SIGNS)[alert.kind]} {_WORDS[alert.kind]}"
    yield utc_clock(alert.ts) if alert.ts // _DAY_MS == ts // _DAY_MS else utc(alert.ts)
    yield _printable(alert.headline)
    if each.is_open(ts):
        yield f"(open for {short_duration((ts - alert.ts) / 1000)})"
    elif each.until is not None:
        yield "(no all-clear)" if each.cleared is None else f"(cleared {utc_clock(each.cleared)})"


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
