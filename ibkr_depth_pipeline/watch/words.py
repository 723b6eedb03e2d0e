"""Numbers as short texts. Pure."""

from __future__ import annotations


def duration(secs: float | None) -> str:
    """At most seven columns; "-" for None."""
    if secs is None:
        return "-"
    if secs < 100:
        return f"{secs:.1f} s"
    if secs < 6_000:
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.0f} h" if secs < 360_000 else f"{secs / 86_400:.0f} d"


def price(value: float) -> str:
    """Cents where the price is whole cents, else as many digits as nine columns hold."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.8g}"


def number(value: float | None, digits: int = 0) -> str:
    """ "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """ "-" for None."""
    return "-" if share is None else f"{share:.0%}"
