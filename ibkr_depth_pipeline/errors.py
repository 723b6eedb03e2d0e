"""The exceptions of the project. The type shows who has to act.

DepthPipelineError
├── ConfigurationError        the operator's: settings or universe; every problem is listed at once
├── GatewayError              the gateway's or the network's
│   ├── GatewayUnavailable      nothing answers at host and port, or it answers too late
│   │   ├── GatewayNotListening   no TCP connection can be made
│   │   └── QuestionUnanswered    one request was not answered in time, which proves nothing about its subject
│   ├── ClientIdsExhausted      every client id that may be tried is in use (326)
│   └── GatewayProtocolError    a message that the protocol does not allow
├── NothingToRecord           no symbol of the universe resolves to a venue with depth
├── NoLongerWanted            the launcher of the run has failed or canceled it
├── SinkError                 the environment's: Redis
│   ├── SinkUnavailable         it can't be reached or refuses to serve
│   ├── SinkConflict            another program writes our keys
│   │   ├── LeaseHeld             another ingest of this name is alive
│   │   ├── LeaseLost             another ingest took over while this one had no connection
│   │   └── StreamHeld            an ingest of another name records one of the symbols
│   └── SchemaMismatch          a key holds what docs/redis-schema.md does not allow
├── ArchiveUnavailable        the environment's: the archive's folder or object store (archive/store.py)
│   └── ArchiveHeld             another archiver or compaction is at work there
├── NothingKept               the archive holds nothing of the requested date
├── UnknownSymbol             the caller's: a reader was given a name that nothing is recorded under
├── NothingRecorded           a frame would be empty: nothing is recorded there, or not in that time
├── ExportRefused             what is archived does not fit the format of an export, or there is nothing to export
├── BoxError                  the machine's: a part of `make run` can't start or has died (box/processes.py)
└── InvalidTransition         ours: a transition that the state's table does not hold
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence


class DepthPipelineError(Exception):
    """Base of every error that the project raises on purpose.

    interrupted_by names the signal that had asked the run to end before it failed; None without one.
    """

    interrupted_by: str | None = None


class ConfigurationError(DepthPipelineError):
    """Settings or universe are wrong. `problems` holds one line each: what, where, and what is allowed."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where = where
        self.problems = tuple(problems)
        super().__init__(f"{where}: " + "; ".join(self.problems))


class GatewayError(DepthPipelineError):
    """The gateway, or the way to it."""


class GatewayUnavailable(GatewayError):
    """Nothing at host and port speaks the TWS protocol in time."""


class GatewayNotListening(GatewayUnavailable):
    """No TCP connection can be made: nothing listens, or there is no way to the host."""


class QuestionUnanswered(GatewayUnavailable):
    """The gateway is there, but one request got no answer in time: send it again."""


class ClientIdsExhausted(GatewayError):
    """Every client id from the preferred one to the last allowed one is in use."""


class GatewayProtocolError(GatewayError):
    """The gateway sent what its protocol does not allow."""


_SYMBOLS_LISTED = 10


_KNOWN_LISTED = 50


def _first_few(symbols: Sequence[str], most: int = _SYMBOLS_LISTED) -> str:
    more = f" and {len(symbols) - most} more" if len(symbols) > most else ""
    return ", ".join(symbols[:most]) + more


class NothingToRecord(DepthPipelineError):
    """No symbol resolves. `reasons` maps each symbol to the reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        of_reason: dict[str, list[str]] = {}
        for symbol, reason in self.reasons.items():
            of_reason.setdefault(reason, []).append(symbol)
        listed = "; ".join(f"{_first_few(symbols)}: {reason}" for reason, symbols in of_reason.items())
        super().__init__(f"no symbol of the universe can be recorded: {listed}")


class NoLongerWanted(DepthPipelineError):
    """The run goes on although its launcher has failed or canceled it: another may be on its way."""


class SinkError(DepthPipelineError):
    """Redis, or the way to it."""


class SinkUnavailable(SinkError):
    """Redis can't be reached, or refuses to serve. The message holds the underlying error, never a password."""


class SinkConflict(SinkError):
    """A stream has grown by another program: two recorders write the same keys."""


class SchemaMismatch(SinkError):
    """A key of ours is not as docs/redis-schema.md describes it."""


class LeaseHeld(SinkConflict):
    """Another ingest of the same name is alive. The message says which."""


class LeaseLost(SinkConflict):
    """Another ingest of the same name has taken over; nothing more may be written."""


class StreamHeld(SinkConflict):
    """An ingest of another IBKR_GATEWAY_NAME records one of the symbols. The message says which, and who."""


class ArchiveUnavailable(DepthPipelineError):
    """The archive's folder or object store can't be reached or read, or is not writable."""


class ArchiveHeld(ArchiveUnavailable):
    """Another process writes there. The message says where, and which if it is known."""


class NothingKept(DepthPipelineError):
    """The archive holds nothing of the requested date."""


class UnknownSymbol(DepthPipelineError, LookupError):
    """Nothing is recorded under the names `symbols`; `known` are those that there are in the place `where`."""

    def __init__(self, symbols: Sequence[str], known: Sequence[str], where: str) -> None:
        self.symbols = tuple(symbols)
        self.known = tuple(known)
        self.where = where
        wrong = ", ".join(map(repr, symbols))
        near = _near(self.symbols, self.known)
        listed = f"recorded are {_first_few(self.known, _KNOWN_LISTED)}" if known else "nothing is recorded there"
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"nothing is recorded under {wrong} in {where}{meant or ';'} {listed}")


def _near(symbols: Sequence[str], known: Sequence[str]) -> list[str]:
    """The known names that are like these, without regard to case."""
    folded = {name.casefold(): name for name in known}
    found = [name for symbol in symbols for name in difflib.get_close_matches(symbol.casefold(), folded, cutoff=0.5)]
    return [folded[name] for name in dict.fromkeys(found)]


class NothingRecorded(DepthPipelineError, LookupError):
    """A frame would have no row. The message says of which symbols, of which time, and what there is."""


class ExportRefused(DepthPipelineError):
    """There is nothing to export, or a value does not fit the format; the message names one that takes it."""


class InvalidTransition(DepthPipelineError):
    """A transition that the state's table does not hold: a fault of this program."""
