"""The life of one depth subscription, as a table. A missing transition is a fault of this program and raises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ibkr_depth_pipeline.errors import InvalidTransition


class SlotState(Enum):
    """What we know of a subscription's hold on a slot of the account."""

    REQUESTED = "requested"  # asked for; nothing heard yet, and nothing will acknowledge it but a row or an error
    LIVE = "live"  # the gateway has answered with a row or a reset
    DENIED = "denied"  # an error other than for want of a slot, and our cancel: held no more, unless rows come
    ABANDONED = "abandoned"  # cancelled before any answer: gateways may ignore such a cancel, so it may hold a slot
    RELEASED = "released"  # given back; its request id is retired
    LINGERING = "lingering"  # cancelled long ago, and rows keep coming: it holds its slot


class SlotEvent(Enum):
    """What can happen to a subscription."""

    ANSWERED = "answered"  # a row, or a reset
    REFUSED = "refused"  # an error says that it holds no slot
    DENIED = "denied"  # any other error before the first row; our cancel makes sure that it holds no slot
    CANCELLED = "cancelled"  # we have sent the cancel
    ROWS_WENT_ON = "rows went on"  # long after the cancel
    LOST = "lost"  # the connection is gone, and every subscription with it


_TRANSITIONS: dict[tuple[SlotState, SlotEvent], SlotState] = {
    (SlotState.REQUESTED, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.REQUESTED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.REQUESTED, SlotEvent.DENIED): SlotState.DENIED,
    (SlotState.REQUESTED, SlotEvent.CANCELLED): SlotState.ABANDONED,
    (SlotState.REQUESTED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.LIVE, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.LIVE, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.LIVE, SlotEvent.CANCELLED): SlotState.RELEASED,
    (SlotState.LIVE, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.DENIED, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.DENIED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.DENIED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.ABANDONED, SlotEvent.ANSWERED): SlotState.LIVE,
    (SlotState.ABANDONED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.ABANDONED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.RELEASED, SlotEvent.ROWS_WENT_ON): SlotState.LINGERING,
    (SlotState.RELEASED, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.RELEASED, SlotEvent.LOST): SlotState.RELEASED,
    (SlotState.LINGERING, SlotEvent.ROWS_WENT_ON): SlotState.LINGERING,
    (SlotState.LINGERING, SlotEvent.CANCELLED): SlotState.LINGERING,
    (SlotState.LINGERING, SlotEvent.REFUSED): SlotState.RELEASED,
    (SlotState.LINGERING, SlotEvent.LOST): SlotState.RELEASED,
}


@dataclass(slots=True)
class Slot:
    """One depth subscription. requested_at and answered_at are in the controller's seconds."""

    request: int
    symbol: str
    requested_at: float
    answered_at: float | None = None
    state: SlotState = SlotState.REQUESTED

    def on(self, event: SlotEvent) -> None:
        """Go where the table says. Raises InvalidTransition where it says nothing."""
        try:
            self.state = _TRANSITIONS[self.state, event]
        except KeyError:
            raise InvalidTransition(f"request {self.request}: {event.value} while {self.state.value}") from None
