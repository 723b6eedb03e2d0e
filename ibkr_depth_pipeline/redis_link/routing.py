"""Which node of a cluster is sent which command, and what its refusals mean. Pure: a shell sends, and passes the time.

A command goes to the owner of its key's slot. After MOVED the slots are read again and the command is sent once
more; after ASK, or a second MOVED, it goes to the node that was named. Nothing else is repeated: a redirected command
was not carried out, of any other failed one that is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ibkr_depth_pipeline.backoff import Backoff

RETRIES = Backoff(0.05, 0.5)
"""Between two tries of a node that has failed."""

Command = tuple[Any, ...]
"""The words of a command on one key."""

_KEY_AT = {"EVAL": 3, "XINFO": 2}
"""Position of the key in the commands in use; in all others it is the first word after the command's name."""

Node = TypeVar("Node", bound=Hashable)


def key_of(command: Command) -> Any:
    """The one key of `command`. An XREAD ends with STREAMS key id."""
    return command[-2] if command[0] == "XREAD" else command[_KEY_AT.get(command[0], 1)]


@dataclass(frozen=True, slots=True)
class Redirect:
    """A node's refusal of a command: another node is to be asked. moved: for good, else for this command only."""

    host: str
    port: int
    moved: bool


@dataclass(frozen=True, slots=True)
class Share(Generic[Node]):
    """What is sent to one node: the commands at these places, each behind an ASKING if `asking`."""

    node: Node
    places: Sequence[int]
    asking: bool = False


class Refresh:
    """The slots are to be read again before anything else is sent."""


Steps = Generator[Sequence[Share[Node]] | Refresh, Sequence[Sequence[Any]], list[Any]]
"""Yields the shares to send, all at once, and is sent their replies, in order; `Refresh` is answered by anything."""


def route(
    keys: Sequence[Any],
    *,
    owner_of: Callable[[Any], Node | Exception],
    node_at: Callable[[str, int], Node | None],
    redirect_of: Callable[[Any], Redirect | None],
) -> Steps[Node]:
    """Routes one command for each key. Returns the reply to each, or the exception that stands for it.

    owner_of returns the node that owns a key's slot, or why none does.
    """
    replies: dict[int, Any] = {}

    def send(shares: Sequence[Share[Node]]) -> Steps[Node]:
        if shares:
            answers = yield shares
            for share, answer in zip(shares, answers, strict=True):
                replies.update(zip(share.places, answer, strict=True))
        return []

    def to_owners(places: Iterable[int]) -> list[Share[Node]]:
        owners = {place: owner_of(keys[place]) for place in places}
        replies.update({place: owner for place, owner in owners.items() if isinstance(owner, Exception)})
        return _by_node({place: owner for place, owner in owners.items() if not isinstance(owner, Exception)})

    yield from send(to_owners(range(len(keys))))
    redirects = _redirects(replies, redirect_of)
    if moved := [place for place, redirect in redirects.items() if redirect.moved]:
        yield Refresh()
        yield from send(to_owners(moved))
        redirects = _redirects(replies, redirect_of)
    named = {place: node_at(redirect.host, redirect.port) for place, redirect in redirects.items()}
    yield from send(_by_node({place: node for place, node in named.items() if node is not None}, asking=True))
    return [replies[place] for place in range(len(keys))]


def _redirects(replies: dict[int, Any], redirect_of: Callable[[Any], Redirect | None]) -> dict[int, Redirect]:
    found = {place: redirect_of(reply) for place, reply in replies.items()}
    return {place: redirect for place, redirect in found.items() if redirect is not None}


def _by_node(nodes: dict[int, Node], asking: bool = False) -> list[Share[Node]]:
    places: dict[Node, list[int]] = {}
    for place, node in nodes.items():
        places.setdefault(node, []).append(place)
    return [Share(node, of_node, asking) for node, of_node in places.items()]


class FailedNodes:
    """The nodes, by name, that have failed and have not answered since. Times are seconds of one monotonic clock.

    A failed node is tried again at once, then with pauses that double up to RETRIES.longest.
    """

    def __init__(self) -> None:
        self._next_try: dict[str, tuple[float, float]] = {}  # name -> time, pause after one more failure

    def failed(self, name: str, now: float) -> float:
        """Records a failure. Returns the time of the next try."""
        _, pause = self._next_try.get(name, (0.0, 0.0))
        self._next_try[name] = (now + pause, RETRIES.longer(pause))
        return now + pause

    def answered(self, name: str) -> None:
        """Records that the node works, or has left the cluster."""
        self._next_try.pop(name, None)

    def rests(self, name: str, now: float) -> bool:
        """Whether the node is to be left alone at `now`."""
        next_try, _ = self._next_try.get(name, (now, 0.0))
        return now < next_try

    def __contains__(self, name: object) -> bool:
        return name in self._next_try

    def clear(self) -> None:
        """Forgets every failure."""
        self._next_try.clear()
