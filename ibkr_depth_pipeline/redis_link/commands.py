"""Commands of one key each, as what goes to a cluster has to be. Pure."""

from __future__ import annotations

from typing import Any

Command = tuple[Any, ...]
"""The words of a command on one key."""

_KEY_AT = {"EVAL": 3, "XINFO": 2, "XREAD": 4}
"""Where the key stands, with the words that we use; of all others it is the first word after the command's name."""


def key_of(command: Command) -> Any:
    """The one key of `command`. An XREAD is XREAD COUNT n STREAMS key id."""
    return command[_KEY_AT.get(command[0], 1)]
