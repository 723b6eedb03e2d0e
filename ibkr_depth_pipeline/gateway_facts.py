"""The file of `ibkr_gateway_facts`: what was seen of one gateway, and where the probe and the rotation begin with it.

docs/gateway-facts.md describes the file. A file that can't be read, or that is of another gateway, is ignored with a
warning: what it would have saved is found out again within a few turns, and a recorder starts in any case.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings

_MOST_SLOTS = 60
_LONGEST_PAUSE_SECS = 60.0
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FactEntry(_Strict):
    """What is assumed of one fact, and what was seen: null with the reason if nothing was.

    at_least: the true value may be larger. as_assumed is null if nothing definite is assumed, or nothing was seen.
    seen_ts: unix ms.
    """

    assumed: str
    source: str
    seen: JsonValue = None
    seen_ts: int | None = None
    note: str = ""
    at_least: bool = False
    as_assumed: bool | None = None
    reason: str = ""


class AccountDigest(_Strict):
    """The account numbers, to be recognized by who has the key, and by nobody else.

    The key (`salt`) stands in a file of its own (key_path), which nobody has a reason to send: without it, a digest of
    any account number could be this one. Files of former versions have it in themselves.
    """

    salt: Annotated[str, Field(pattern=r"^([0-9a-f]{16}){1,2}$")] | None = None
    scrypt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

    @classmethod
    def of(cls, accounts: Sequence[str], salt: str | None = None) -> AccountDigest:
        """The digest of these accounts, in any order; with a key of its own unless one is given."""
        salt = salt or secrets.token_hex(16)
        text = ",".join(sorted(accounts)).encode()
        return cls(salt=salt, scrypt=hashlib.scrypt(text, salt=bytes.fromhex(salt), dklen=16, **_SCRYPT).hex())

    def matches(self, accounts: Sequence[str]) -> bool:
        """Whether it is of these accounts; False without the key."""
        return self.salt is not None and AccountDigest.of(accounts, self.salt) == self


class GatewayFacts(_Strict):
    """The whole file. Times are unix ms."""

    format: Literal[1] = 1
    host: str
    port: int
    account: AccountDigest | None = None
    began_ts: int
    ended_ts: int
    ended_early: str = ""
    """Why it ended before all experiments were done; empty if they were."""
    symbols: tuple[str, ...]
    rows_asked: int
    facts: dict[str, FactEntry]

    def seen(self, fact: str) -> JsonValue:
        """What was seen of a fact; None if nothing was."""
        entry = self.facts.get(fact)
        return None if entry is None else entry.seen

    def with_earlier(self, earlier: GatewayFacts) -> GatewayFacts:
        """These facts, and those that were seen earlier and not this time; itself if the gateway is another one."""
        if (earlier.host, earlier.port) != (self.host, self.port):
            return self
        kept = {name: each for name, each in earlier.facts.items() if each.seen_ts and _is_unseen(self, name)}
        return self.model_copy(update={"facts": {**self.facts, **kept}, "account": self.account or earlier.account})

    def without_key(self) -> GatewayFacts:
        """These facts as they may be shown to anybody."""
        account = self.account and self.account.model_copy(update={"salt": None})
        return self.model_copy(update={"account": account})

    def as_json(self) -> str:
        """The text of the file; of one to be shown, take `without_key` first."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def _is_unseen(facts: GatewayFacts, name: str) -> bool:
    return name in facts.facts and facts.facts[name].seen_ts is None


def read_facts(path: Path) -> GatewayFacts:
    """Reads a file. Raises ValueError, which says what is wrong with it, and OSError."""
    try:
        return GatewayFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise ValueError(problems) from None


def key_path(facts: Path) -> Path:
    """Where the key of the account's digest stands, beside a file of facts."""
    return facts.with_suffix(".account.key")


def in_words(seen: object) -> str:
    """A value of the file, for a reader."""
    if isinstance(seen, dict):
        return ", ".join(f"{name}: {_nested(each)}" for name, each in seen.items()) or "none"
    if isinstance(seen, list):
        return ", ".join(map(str, seen)) or "none"
    return f"{seen:g}" if isinstance(seen, float) else str(seen)


def _nested(seen: object) -> str:
    return f"({in_words(seen)})" if isinstance(seen, dict) else in_words(seen)


# ---- where the probe and the rotation begin


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What is known of a gateway's slots beforehand; None: nothing. release_pause is in seconds.

    problem: why the file is ignored; empty if it is used, or if there is none where none was asked for. seen_ts: unix
    ms of the end of the run that wrote it; slots_ts and release_pause_ts: when each was seen, maybe by an earlier run.
    """

    slots: int | None = None
    release_pause: float | None = None
    seen_ts: int | None = None
    problem: str = ""
    slots_ts: int | None = None
    release_pause_ts: int | None = None


def read_starting_point(settings: Settings, accounts: Sequence[str]) -> StartingPoint:
    """What IBKR_GATEWAY_FACTS has of the gateway with these accounts. Never raises."""
    path = settings.ibkr_gateway_facts
    try:
        found = read_facts(path)
    except FileNotFoundError:
        is_default = path == Settings.model_fields["ibkr_gateway_facts"].default
        return StartingPoint(problem="" if is_default else "there is no such file")
    except (OSError, ValueError) as error:
        return StartingPoint(problem=f"it can't be read: {error}")
    if problem := _why_foreign(found, settings, accounts, key_path(path)):
        return StartingPoint(problem=problem)
    slots, pause = _slots(found), _release_pause(found)
    return StartingPoint(
        slots,
        pause,
        found.ended_ts,
        slots_ts=None if slots is None else found.facts["slots"].seen_ts,
        release_pause_ts=None if pause is None else found.facts["slot_free_secs"].seen_ts,
    )


def starting_point(settings: Settings, accounts: Sequence[str]) -> StartingPoint:
    """As `read_starting_point`; logs that the file is used, or why it is ignored."""
    point, file, log = read_starting_point(settings, accounts), str(settings.ibkr_gateway_facts), get_log()
    if point.problem:
        log.warning("gateway_facts_ignored", file=file, reason=point.problem)
    elif point.seen_ts is not None:
        log.info(
            "gateway_facts_used",
            file=file,
            slots=point.slots,
            release_pause_secs=point.release_pause,
            age_days=round((unix_ms() - point.seen_ts) / 86_400_000, 1),
        )
    return point


def _why_foreign(found: GatewayFacts, settings: Settings, accounts: Sequence[str], key: Path) -> str:
    """Why a file is not of the settings' gateway and these accounts, or not known to be; empty if it is."""
    if (found.host, found.port) != (settings.ibkr_host, settings.ibkr_port):
        return f"it is of {found.host}:{found.port}, not of {settings.ibkr_host}:{settings.ibkr_port}"
    account = found.account
    if account is not None and account.salt is None:
        try:
            account = AccountDigest(salt=key.read_text(encoding="utf-8").strip(), scrypt=account.scrypt)
        except (OSError, ValueError):
            return f"whether it is of this account is not known, as there is no key in {key}: it was made elsewhere"
    return "" if account is None or account.matches(accounts) else "it is of another account"


def _slots(facts: GatewayFacts) -> int | None:
    """The slots, if their limit was met."""
    seen = _certain(facts, "slots")
    return seen if isinstance(seen, int) and 1 <= seen <= _MOST_SLOTS else None


def _release_pause(facts: GatewayFacts) -> float | None:
    """How late a slot was free, if it was freed at all."""
    seen = _certain(facts, "slot_free_secs")
    return float(seen) if isinstance(seen, int | float) and 0 <= seen <= _LONGEST_PAUSE_SECS else None


def _certain(facts: GatewayFacts, fact: str) -> JsonValue:
    entry = facts.facts.get(fact)
    return None if entry is None or entry.at_least or isinstance(entry.seen, bool) else entry.seen
