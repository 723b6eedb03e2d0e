"""The words of an alert about heartbeats. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ibkr_depth_pipeline.formatting import duration, utc
from ibkr_depth_pipeline.monitoring.diagnosis import Cause, Look, Unreachable, feed_words, unwell

_SHOWN = 12
_OF_FEED = (Cause.REDIS, Cause.NO_INGEST, Cause.GATEWAY, Cause.MARKET_DATA, Cause.CLOCK)


def troubled(gateway: str, look: Look, cause: Cause, symbols: Sequence[str], since_ts: int) -> tuple[str, str]:
    """Title and text: what is stale, for how long, its last row, and the likely cause."""
    what = "feed" if cause in _OF_FEED else _names(symbols)
    lines = [f"Likely cause: {cause.value}.", f"For {duration(look.ts - since_ts)}, since {utc(since_ts)}."]
    if words := feed_words(look):
        lines.append(f"{words[:1].upper()}{words[1:]}.")
    lines.append(f"Not fresh: {_names(symbols)}." if symbols else "No symbol's heartbeat has expired yet.")
    lines.append(_troubles(look, symbols))
    lines.append(_last_row(look, symbols))
    return f"IBKR depth {gateway}: {what} stale ({cause.value})", "\n".join(line for line in lines if line)


def recovered(gateway: str, cause: Cause, symbols: Sequence[str], lasted_ms: int) -> tuple[str, str]:
    """Title and text of the end of an episode."""
    text = f"All is fresh again after {duration(lasted_ms)}. It was: {cause.value}."
    return f"IBKR depth {gateway}: recovered", f"{text}\nConcerned: {_names(symbols)}." if symbols else text


def _troubles(look: Look, symbols: Sequence[str]) -> str:
    """What is wrong with single lines, where the ingest knows."""
    told = [f"{each.symbol}: {each.trouble}" for each in unwell(look) if each.trouble and each.symbol in symbols]
    return f"{'; '.join(told[:_SHOWN])}." if told else ""


def _last_row(look: Look, symbols: Sequence[str]) -> str:
    if isinstance(look, Unreachable):
        return "Last row: not known while Redis can't be asked."
    stale = {each.symbol: each.last_row_ts for each in unwell(look) if each.symbol in symbols}
    rows = stale or {each.symbol: each.last_row_ts for each in look.symbols}
    symbol, newest = max(rows.items(), key=lambda row: row[1], default=("", 0))
    if not newest:
        return "Last row: none was ever recorded."
    return f"Last row: {symbol} at {utc(newest)}, {duration(look.ts - newest)} ago."


def _names(symbols: Sequence[str]) -> str:
    shown = ", ".join(symbols[:_SHOWN])
    rest = len(symbols) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
