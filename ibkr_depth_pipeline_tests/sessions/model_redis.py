"""A model of a Redis server: the commands that the recorder sends, its scripts in real Lua, nothing on a disk.

A command that it does not know is an error and is noted in `unknown`: the model is then to be completed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis
from lupa.lua51 import LuaRuntime, lua_type  # Redis has Lua 5.1

from ibkr_depth_pipeline_tests.sessions.network import Endpoint

PORT = 6379
Entry = tuple[tuple[int, int], list[bytes]]

_TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
_WRITES = {b"SET", b"HSET", b"XADD", b"XSETID", b"XGROUP"}


class Refused(Exception):
    """The reply is an error of this text."""


@dataclass
class Stream:
    """Entries in order; last_id may be past the last of them."""

    entries: list[Entry] = field(default_factory=list)
    last_id: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Stored:
    """An XADD that was carried out, and when; who: the process that sent it."""

    key: str
    who: str
    at: float


class ModelRedis:
    """The server. `listen` it on a network; `entries` and `values` are for the checks."""

    def __init__(self, now: Callable[[], float], unix_ms: Callable[[], int]) -> None:
        self.stored: list[Stored] = []
        self.refused: list[Stored] = []
        """XADDs whose id was too small."""
        self.unknown: set[str] = set()
        self.is_full = False
        """While set, writes are refused, as by a server at its maxmemory."""
        self.on_set: Callable[[str, bytes], None] = lambda key, value: None
        self._now = now
        self._unix_ms = unix_ms
        self._keys: dict[bytes, Any] = {}
        self._expires: dict[bytes, float] = {}
        self._stalled = False
        self._waiting: list[tuple[_Session, list[bytes]]] = []
        self._who = ""
        self._scripts: dict[bytes, Any] = {}
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._lua.execute(b"redis = {}; cjson = {}")
        self._lua.globals()[b"redis"][b"call"] = self._call_from_lua
        self._lua.globals()[b"cjson"][b"decode"] = lambda text: self._lua.table_from(
            {key.encode(): str(value).encode() for key, value in json.loads(text).items()}
        )

    # ---- for the checks

    def entries(self, key: str) -> list[Entry]:
        """The entries of a stream."""
        stream = self._keys.get(key.encode())
        return stream.entries if isinstance(stream, Stream) else []

    def value(self, key: str) -> bytes | None:
        """The text of a key that has not expired."""
        value = self._find(key.encode())
        return value if isinstance(value, bytes) else None

    def fields(self, key: str) -> dict[bytes, bytes]:
        """The fields of a hash; none if there is no such key."""
        return self._find(key.encode()) or {}

    # ---- faults

    def stall(self) -> None:
        """Nothing is carried out until `resume`."""
        self._stalled = True

    def resume(self) -> None:
        """What came meanwhile is carried out, in the order in which it came."""
        self._stalled = False
        waiting, self._waiting = self._waiting, []
        for session, command in waiting:
            session.carry_out(command)

    def accept(self) -> _Session:
        """A connection."""
        return _Session(self)

    def take(self, session: _Session, command: list[bytes]) -> None:
        """A command has come."""
        if self._stalled:
            self._waiting.append((session, command))
        else:
            session.carry_out(command)

    # ---- commands

    def run(self, who: str, command: Sequence[bytes]) -> Any:
        """The reply. Raises Refused."""
        self._who = who
        name = command[0].upper()
        if self.is_full and name in _WRITES | {b"EVAL"}:
            raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
        known = getattr(self, f"_{name.decode().lower()}", None)
        if known is None:
            self.unknown.add(name.decode())
            raise Refused(f"ERR unknown command '{name.decode()}'")
        return known(*command[1:])

    def _find(self, key: bytes) -> Any:
        if self._expires.get(key, self._now() + 1) <= self._now():
            self._keys.pop(key, None)
            del self._expires[key]
        return self._keys.get(key)

    def _client(self, *words: bytes) -> Any:
        return b"OK"

    def _ping(self) -> Any:
        return b"PONG"

    def _info(self, *sections: bytes) -> Any:
        return b"redis_version:7.2.0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nused_memory:1000000\r\n"

    def _config(self, *words: bytes) -> Any:
        return []

    def _get(self, key: bytes) -> Any:
        return self._find(key)

    def _mget(self, *keys: bytes) -> Any:
        return [self._find(key) for key in keys]

    def _exists(self, key: bytes) -> Any:
        return int(self._find(key) is not None)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        self._keys[key] = value
        self._expires.pop(key, None)
        for option, amount in zip(options[::2], options[1::2], strict=True):
            self._expires[key] = self._now() + int(amount) / {b"EX": 1, b"PX": 1000}[option.upper()]
        self.on_set(key.decode(), value)
        return b"OK"

    def _del(self, *keys: bytes) -> Any:
        return sum(self._find(key) is not None and self._keys.pop(key, None) is not None for key in keys)

    def _pttl(self, key: bytes) -> Any:
        if self._find(key) is None:
            return -2
        return int((self._expires[key] - self._now()) * 1000) if key in self._expires else -1

    def _pexpire(self, key: bytes, ms: bytes) -> Any:
        if self._find(key) is None:
            return 0
        self._expires[key] = self._now() + int(ms) / 1000
        return 1

    def _expire(self, key: bytes, secs: bytes) -> Any:
        return self._pexpire(key, b"%d" % (1000 * int(secs)))

    def _hset(self, key: bytes, *words: bytes) -> Any:
        if self._find(key) is None:
            self._keys[key] = {}
        before = len(self._keys[key])
        self._keys[key].update(zip(words[::2], words[1::2], strict=True))
        return len(self._keys[key]) - before

    def _hget(self, key: bytes, name: bytes) -> Any:
        return (self._find(key) or {}).get(name)

    def _hmget(self, key: bytes, *names: bytes) -> Any:
        return [self._hget(key, name) for name in names]

    def _hgetall(self, key: bytes) -> Any:
        return [word for pair in (self._find(key) or {}).items() for word in pair]

    def _xadd(self, key: bytes, *words: bytes) -> Any:
        at = 3 if words[0].upper() == b"MAXLEN" else 0  # the length is not modelled
        stream = self._stream(key)
        stream_id = (self._unix_ms(), 0) if words[at] == b"*" else _id_of(words[at])
        if words[at] == b"*" and stream_id <= stream.last_id:
            stream_id = (stream.last_id[0], stream.last_id[1] + 1)
        taken = Stored(key.decode(), self._who, self._now())
        if stream_id <= stream.last_id:
            self.refused.append(taken)
            raise Refused(_TOO_SMALL)
        stream.entries.append((stream_id, list(words[at + 1 :])))
        stream.last_id = stream_id
        self.stored.append(taken)
        return b"%d-%d" % stream_id

    def _stream(self, key: bytes) -> Stream:
        stream: Stream = self._find(key) or Stream()
        self._keys[key] = stream
        return stream

    def _xlen(self, key: bytes) -> Any:
        stream = self._find(key)
        return 0 if stream is None else len(stream.entries)

    def _xinfo(self, what: bytes, key: bytes) -> Any:
        stream = self._find(key)
        if stream is None:
            raise Refused("ERR no such key")
        last = [b"%d-%d" % stream.entries[-1][0], stream.entries[-1][1]] if stream.entries else None
        reply = [b"length", len(stream.entries), b"last-generated-id", b"%d-%d" % stream.last_id]
        return [*reply, b"last-entry", last]

    def _xsetid(self, key: bytes, stream_id: bytes) -> Any:
        stream = self._stream(key)
        if stream.entries and _id_of(stream_id) < stream.entries[-1][0]:
            raise Refused("ERR The ID specified in XSETID is smaller than the target stream top item")
        stream.last_id = _id_of(stream_id)
        return b"OK"

    def _xgroup(self, what: bytes, key: bytes, *words: bytes) -> Any:
        self._stream(key)
        return b"OK"

    def _xrevrange(self, key: bytes, newest: bytes, oldest: bytes, *count: bytes) -> Any:
        stream = self._find(key)
        most = int(count[1]) if count else None
        found = [] if stream is None else stream.entries[::-1][:most]
        return [[b"%d-%d" % stream_id, fields] for stream_id, fields in found]

    # ---- scripts

    def _eval(self, script: bytes, number: bytes, *words: bytes) -> Any:
        if script not in self._scripts:
            self._scripts[script] = self._lua.eval(b"function(KEYS, ARGV) " + script + b" end")
        keys, arguments = words[: int(number)], words[int(number) :]
        return _from_lua(self._scripts[script](self._lua.table_from(keys), self._lua.table_from(arguments)))

    def _call_from_lua(self, *words: Any) -> Any:
        command = [word if isinstance(word, bytes) else f"{word:.17g}".encode() for word in words]
        name = command[0].upper().decode().lower()
        return self._to_lua(getattr(self, f"_{name}")(*command[1:]))

    def _to_lua(self, reply: Any) -> Any:
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(each) for each in reply])
        return False if reply is None else reply


def _id_of(text: bytes) -> tuple[int, int]:
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)


def _from_lua(value: Any) -> Any:
    if lua_type(value) == "table":
        return [_from_lua(value[at]) for at in range(1, len(value) + 1)]
    if value is None or value is False:
        return None
    return int(value) if isinstance(value, (int, float)) else value


class _Session(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self, server: ModelRedis) -> None:
        self._server = server
        self._reader = hiredis.Reader()
        self._block: list[list[bytes]] | None = None
        self._is_spoiled = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Endpoint)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            self._server.take(self, command)

    def carry_out(self, command: list[bytes]) -> None:
        """Carry the command out, also if the connection is gone by now: it was read before that."""
        self._transport.write(_encoded(self._answer(command)))

    def _answer(self, command: list[bytes]) -> Any:
        name = command[0].upper()
        if name == b"MULTI":
            self._block, self._is_spoiled = [], False
            return b"OK"
        if name == b"EXEC":
            block, self._block = self._block or [], None
            if self._is_spoiled:
                return Refused("EXECABORT Transaction discarded because of previous errors.")
            return [self._reply(each) for each in block]
        if self._block is None:
            return self._reply(command)
        if self._server.is_full:
            self._is_spoiled = True
            return Refused("OOM command not allowed when used memory > 'maxmemory'.")
        self._block.append(command)
        return b"QUEUED"

    def _reply(self, command: list[bytes]) -> Any:
        try:
            return self._server.run(self._transport.peer.owner, command)
        except Refused as error:
            return error


def _encoded(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case Refused():
            return b"-%b\r\n" % str(reply).encode()
        case _:
            return b"*%d\r\n%b" % (len(reply), b"".join(map(_encoded, reply)))
