"""Numbers as short texts. Pure."""

from __future__ import annotations


def number(value: float | None, digits: int = 0) -> str:
    """ "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """ "-" for None."""
    return "-" if share is None else f"{share:.0%}"
