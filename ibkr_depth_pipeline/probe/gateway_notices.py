"""What the gateway says of its feed and of itself: notices for the report, and what would explain silence. Pure."""

from __future__ import annotations

from ibkr_depth_pipeline.gateway import events as says
from ibkr_depth_pipeline.probe.report import GatewayNotice


class GatewayNotices:
    """What was said so far. Good news is no notice, but ends the trouble before it."""

    def __init__(self) -> None:
        self._notices: dict[tuple[int, str], None] = {}
        self.farm_is_well = False
        """Whether a data farm was said to be well."""
        self.trouble = ""
        """Why rows may not come, in words; empty while nothing is known to be wrong."""

    @property
    def notices(self) -> tuple[GatewayNotice, ...]:
        """What is worth telling, each once."""
        return tuple(GatewayNotice(code, text) for code, text in self._notices)

    def hear(self, event: says.GatewayEvent) -> None:
        """Take note of what concerns no symbol, and of rows that can't be read: whoever's they are, they explain
        silence. Any other event changes nothing."""
        match event:
            case says.ConnectivityLost(text):
                self.trouble = f"1100: {one_line(text)}"
                self._note(1100, text)
            case says.ConnectivityRestored(data_lost, text):
                self.trouble = ""
                self._note(1101 if data_lost else 1102, text)
            case says.FarmStatus(healthy=True):
                self.trouble = ""
                self.farm_is_well = True
            case says.FarmStatus(_, code, text):
                self.trouble = f"{code}: {one_line(text)}"
                self._note(code, text)
            case says.RowUnreadable(fault=fault):
                self.trouble = f"rows that can't be read ({fault.value})"
            case says.PacingViolation(text):
                self._note(100, text)
            case says.Notice(_, code, text):
                self._note(code, text)
            case _:
                pass

    def _note(self, code: int, text: str) -> None:
        self._notices[code, one_line(text)] = None


def one_line(text: str) -> str:
    """A text of the gateway without line breaks, control characters and needless spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
