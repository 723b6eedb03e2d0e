"""A book as a table in Markdown. Pure."""

from itertools import zip_longest

from ibkr_depth_pipeline.model import EMPTY_LEVEL, Level, Levels


def ladder_markdown(bids: Levels, asks: Levels) -> str:
    """Best on top, bids on the left. Rows that are empty on both sides are left out; "" where there is none at all."""
    rows = [_row(bid, ask) for bid, ask in zip_longest(bids, asks, fillvalue=EMPTY_LEVEL) if bid[1] or ask[1]]
    if not rows:
        return ""
    head = "| venue | size | bid | ask | size | venue |"
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | --- |", *rows])


def _row(bid: Level, ask: Level) -> str:
    cells = [*reversed(_cells(bid)), *_cells(ask)]
    return f"| {' | '.join(cells)} |"


def _cells(level: Level) -> list[str]:
    price, size, venue = level
    if level == EMPTY_LEVEL:
        return ["", "", ""]
    return [f"{price:,.10g}", f"{size:,.10g}", venue.replace("|", "\\|")]
