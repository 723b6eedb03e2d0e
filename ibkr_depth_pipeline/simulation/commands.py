"""What a session tells the server to do, in order. Pure values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ibkr_depth_pipeline.simulation import replies, texts
from ibkr_depth_pipeline.simulation.catalogue import Listing
from ibkr_depth_pipeline.simulation.requests import Request
from ibkr_depth_pipeline.simulation.venues import DepthVenue


@dataclass(slots=True, eq=False)
class Subscription:
    """One accepted depth request. The server sets `first_row_sent` as soon as it is true."""

    request_id: int
    smart: bool
    listing: Listing
    venue: DepthVenue
    depth: int
    """Rows a side."""
    first_row_sent: bool = False
    cancel_lost: bool = False

    @property
    def key(self) -> tuple[int, bool]:
        """Smart and direct requests are separate name spaces."""
        return self.request_id, self.smart


@dataclass(frozen=True, slots=True)
class Received:
    """A request came in whole."""

    request: Request


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the client; `name` and `detail` say for the journal what they are."""

    data: bytes
    name: str
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more is to be read; close once what was sent is out."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartDepth:
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class StopDepth:
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Later:
    """After so many seconds ask `then`, with the time it is by then, for more commands."""

    seconds: float
    then: "Callable[[float], Iterable[Command]]"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request gets no answer, on purpose."""

    request: Request
    reason: str


Command = Received | Send | Close | StartDepth | StopDepth | Later | Unanswered


def error(version: int, request_id: int, code: int, **names: object) -> Send:
    """An error message with the code's own text; `names` fill the text's placeholders."""
    text = texts.text_of(code, request_id=request_id, **names)
    detail: dict[str, object] = {"request_id": request_id, "code": code, "text": text}
    return Send(replies.error(request_id, code, text, version), "error", detail)
