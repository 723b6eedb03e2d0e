"""Renders a WatchState as a frame that fits the terminal: the ingest's line, ladders, the universe, the keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import zip_longest

from rich.text import Text

from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.tui.alerts import alert_line, alerts_page
from ibkr_depth_pipeline.tui.chart import FEWEST_LINES, chart
from ibkr_depth_pipeline.tui.ladder import LADDER_LINES, SMALLEST_WIDTH, ladder
from ibkr_depth_pipeline.tui.lanes import lanes_page
from ibkr_depth_pipeline.tui.state import Lanes, Quote, WatchState
from ibkr_depth_pipeline.tui.table import table
from ibkr_depth_pipeline.tui.theme import themed
from ibkr_depth_pipeline.tui.view import ALERTS, LANES, View, listed

KEYS = "q quit jk symbol \u2190\u2192 time space 0 now +- span / find sr sort a alerts w slots t ?"
HELP = """\
Keys, the same as of the web page (ibkr_depth_web)

j k, down up, tab   next, previous symbol
left right          back, forward in time, as far as the stream reaches
space, p            pause
0, esc              back to now; esc drops the filter, too
+ -                 less, more time in the chart
/                   filter the symbols; enter chooses the first, esc drops the filter
s                   sort the table by the next column; after the last, as the universe is
r                   the other way round
a                   all alerts, and back; as of then, back in time
w                   who held a slot when, over the whole width, with the alerts; and back
t                   light, dark, the terminal's own colours
?                   this list
q, ctrl-c           quit

slot, last 5 min (w, or 112 columns or more): a bar, observed; a line, waits for its first row; !, ended out of turn.
next: when it has its next turn. A price's sign: up or down since the last refresh.
state: live, wait, STALE (no heartbeat), none, n/a (no depth), closed, MUTE, WRONG, ? (Redis is away)"""
WITHOUT_REDIS = """\
Nothing can be shown without Redis. What to do:

  Is it up?                  redis-cli -u "$REDIS_URL" ping
  It is elsewhere            REDIS_URL=redis://HOST:PORT/0 ibkr_depth_watch    (or a line in .env)
  There is none yet          make run    (brings a Redis, a simulated gateway and a recording of its own)"""
WITHOUT_RECORDING = """\
Redis answers, and holds no recording under this name. What to do:

  Start one                  ibkr_ingest_run run
  See a simulated one        make run
  It has another name        IBKR_GATEWAY_NAME=NAME ibkr_depth_watch
  It is in another Redis     REDIS_URL=redis://HOST:PORT/0 ibkr_depth_watch"""

_LADDER_WIDTH = 60
_FEWEST_TABLE_LINES = 4


def frame(
    state: WatchState,
    view: View,
    width: int,
    height: int | None,
    *,
    ascii_only: bool = False,
    quotes: Sequence[Quote | None] = (),
    lanes: Lanes | None = None,
    now_ms: int = 0,
) -> list[Text]:
    """The lines of the screen, `height` of them; None for as many as it takes.

    quotes: the selected symbol's best prices by time, for the chart that takes the lines left over. lanes: who held a
    slot when, up to now_ms.
    """
    foot = [_foot(view, width, KEYS.replace("\u2190\u2192", "hl") if ascii_only else KEYS)] if view.keys else []
    head = [*_head(state, view, width), *alert_line(state.alerts, state.ts, width, ascii_only=ascii_only)]
    room = None if height is None else max(0, height - len(head) - len(foot))
    page = _page(state, view)
    body = [Text(line, no_wrap=True, overflow="crop") for line in page.splitlines()]
    if not page and view.page == ALERTS:
        body = alerts_page(state.alerts, state.ts, width, room, ascii_only=ascii_only)
    elif not page and view.page == LANES:
        shown = listed(state, view), view.selected, lanes or {}, state.alerts
        until = state.ts if view.back_secs else now_ms
        body = list(lanes_page(*shown, width, room, until, view.zoom, ascii_only=ascii_only))
    elif not page:
        body = _body(state, view, width, room, ascii_only, quotes, lanes, now_ms)
    lines = [*head, *body]
    if height is not None:
        lines = lines[: height - len(foot)]
        lines += [Text()] * (height - len(foot) - len(lines))
    return [themed(line, view.theme, width) for line in (*lines, *foot)]


def _page(state: WatchState, view: View) -> str:
    """What stands in the place of books and table; "" for these."""
    if view.help:
        return HELP
    if state.problem and not any(line.book for line in state.lines):
        return f"{WITHOUT_REDIS}\n\nThis goes on by itself as soon as Redis answers."
    if state.health is not None and state.health.feed.figures is None and not state.lines:
        return WITHOUT_RECORDING
    return ""


def _foot(view: View, width: int, keys: str) -> Text:
    if view.typing:
        text = Text(f"filter: {view.filter}_   enter chooses the first, esc drops the filter", "bold")
    else:
        text = Text(keys, "dim", no_wrap=True, overflow="crop")
        if view.filter:
            text = Text(f"filter: {view.filter} (esc drops it)  ", "bold").append(keys, "not bold dim")
    text.truncate(width)
    return text


def _body(
    state: WatchState,
    view: View,
    width: int,
    room: int | None,
    ascii_only: bool,
    quotes: Sequence[Quote | None],
    lanes: Lanes | None,
    now_ms: int,
) -> list[Text]:
    """Ladders, the table, and a chart if lines are left over."""
    rows = 1 + len(state.lines)
    lines = list(_ladders(state, _with_ladders(state, view, width, room, rows), width, ascii_only))
    left = rows if room is None else room - len(lines)
    lines += table(state, view, width, left, ascii_only=ascii_only, lanes=lanes, now_ms=now_ms)
    left = 0 if room is None else room - len(lines) - 1
    if view.selected and left >= FEWEST_LINES:
        lines += [Text(), *chart(view.selected, quotes, width, left, view.zoom, ascii_only)]
    return lines


def _head(state: WatchState, view: View, width: int) -> Iterator[Text]:
    clock = datetime.fromtimestamp(state.ts / 1000).strftime("%H:%M:%S")
    mark = " PAUSED" if view.paused else ""
    if view.back_secs:
        mark += f" {view.back_secs:.0f} s back"
    if view.back_secs and not state.problem:
        text = Text("the books of then, as the streams hold them", "bold")
    elif state.problem:
        since = f", this is of {clock}" if state.lines else ""
        text = Text(f"NO REDIS{since}: {state.problem}", "bold red reverse")
    elif state.health is None:
        text = Text("looking into Redis", "dim")
    else:
        text = _feed(state.health.feed)
        troubled = [f"{each.symbol}: {each.trouble}" for each in state.health.symbols if each.trouble]
        if troubled and not state.health.feed.problem:
            text = Text("; ".join(troubled), "bold red")
    right = Text(f"{mark} {clock}", "bold")
    text.truncate(max(0, width - len(right)), overflow="ellipsis", pad=True)
    yield text.append_text(right)


def _feed(feed: IngestHealth) -> Text:
    if feed.problem:
        return Text(f"ingest {feed.name}: {feed.problem}", "bold red")
    text = Text(f"ingest {feed.name} runs", "bold green")
    if feed.figures is not None:
        figures = feed.figures
        text.append(
            f"  batch {figures.batch_size}  turns {figures.turns}  309s {figures.refused_309}"
            f"  reconnects {figures.reconnects}  lost {figures.lost}",
            "not bold default",
        )
    return text


def _with_ladders(state: WatchState, view: View, width: int, room: int | None, rows: int) -> list[list[str]]:
    """The symbols that get a ladder, in rows beside each other; the selected one first, others if there is room."""
    wanted = [view.selected] if view.selected else []
    wanted += [symbol for symbol in view.pinned if symbol not in wanted]
    across = max(1, width // _LADDER_WIDTH)
    down = -(-len(wanted) // across) if room is None else (room - min(rows, _FEWEST_TABLE_LINES)) // LADDER_LINES
    if room is not None and down > 1:  # a second row of ladders only if the whole table stays
        down = max(1, (room - rows) // LADDER_LINES)
    others = [line.symbol for line in state.lines if line.symbol not in wanted and line.book is not None]
    most = across * max(0, down)
    chosen = wanted[:most]
    chosen.sort(key=lambda symbol: (symbol not in view.pinned, _place(symbol, view.pinned)))
    shown = [*chosen, *(others if wanted else [])][:most]
    return [shown[start : start + across] for start in range(0, len(shown), across)]


def _place(symbol: str, pinned: Sequence[str]) -> int:
    return pinned.index(symbol) if symbol in pinned else 0


def _ladders(state: WatchState, rows: Sequence[Sequence[str]], width: int, ascii_only: bool) -> Iterator[Text]:
    for symbols in rows:
        each = max(SMALLEST_WIDTH, (width - 2 * (len(symbols) - 1)) // len(symbols))
        columns = [list(ladder(symbol, state.line(symbol), each, ascii_only=ascii_only)) for symbol in symbols]
        for parts in zip_longest(*columns):
            yield Text("  ", no_wrap=True, overflow="crop").join(parts)
