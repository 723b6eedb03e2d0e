"""Collects what the gateway reports of its feed and itself: notices for the report, and what explains silence. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.gateway import events as gateway


@dataclass(frozen=True, slots=True)
class GatewayNotice:
    """A message of the gateway that concerns no single symbol; `code` is TWS's."""

    code: int
    text: str


class GatewayNotices:
    """The notices so far, and whether the feed works. A recovery is no notice, but ends the trouble before it."""

    def __init__(self) -> None:
        self._notices: dict[tuple[int, str], None] = {}
        self.farm_is_well = False
        """Whether a data farm was reported as connected."""
        self.trouble = ""
        """Why rows may not come, as text; empty while no trouble is known."""

    @property
    def notices(self) -> tuple[GatewayNotice, ...]:
        """Each distinct notice once, in the order in which they came."""
        return tuple(GatewayNotice(code, text) for code, text in self._notices)

    def record(self, event: gateway.GatewayEvent) -> None:
        """Records an event that concerns no symbol, or rows of any request that can't be read: they explain silence."""
        match event:
            case gateway.ConnectivityLost(text):
                self.trouble = f"1100: {one_line(text)}"
                self._note(1100, text)
            case gateway.ConnectivityRestored(data_lost, text):
                self.trouble = ""
                self._note(1101 if data_lost else 1102, text)
            case gateway.FarmStatus(healthy=True):
                self.trouble = ""
                self.farm_is_well = True
            case gateway.FarmStatus(_, code, text):
                self.trouble = f"{code}: {one_line(text)}"
                self._note(code, text)
            case gateway.RowUnreadable(fault=fault):
                self.trouble = f"rows that can't be read ({fault.value})"
            case gateway.PacingViolation(text):
                self._note(100, text)
            case gateway.Notice(_, code, text):
                self._note(code, text)
            case _:
                pass

    def _note(self, code: int, text: str) -> None:
        self._notices[code, one_line(text)] = None


def one_line(text: str) -> str:
    """A text of the gateway without line breaks, control characters and repeated spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
