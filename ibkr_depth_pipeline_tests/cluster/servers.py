"""A Redis Cluster of three masters with a replica each, and a master with a replica that three Sentinels watch.

All of them are real servers on loopback, each a process of its own that may be killed, paused and started again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import redis
from redis.sentinel import Sentinel

from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis, find_redis_binary, free_port
from ibkr_depth_pipeline.box.processes import BoxError, GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

NODE_TIMEOUT_MS = 1000
"""After so long without an answer a master is taken for dead."""

SLOTS = 16_384
_REPLICATION = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
_CUT_OFF = "cut-off"
_CLUSTER = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
    *("--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no"),
)


def ask(port: int, *command: Any) -> Any:
    """The reply of the server at `port`, as redis-py reads it."""
    with redis.Redis(HOST, port, socket_timeout=5) as client:
        return client.execute_command(*command)


def version() -> str:
    """Of the servers that are started here, as they say themselves."""
    with EmbeddedRedis() as server, client_of(server) as client:
        return str(client.info("server")["redis_version"])


def client_of(server: EmbeddedRedis) -> Any:
    """To look into that server alone."""
    return redis.Redis(HOST, server.port, socket_timeout=5)


def length_at(server: EmbeddedRedis, key: str, *before: str) -> int:
    """The length of a stream on that server, which is told the words of `before` first; 0 where it has none."""
    with client_of(server) as client:
        for word in before:
            client.execute_command(word)
        return int(client.xlen(key))


def waits_at(server: EmbeddedRedis) -> int:
    """How often that server was asked to wait for its replicas."""
    with client_of(server) as client:
        return int(client.info("commandstats").get("cmdstat_wait", {}).get("calls", 0))


def _holds(condition: Callable[[], bool], what: str) -> None:
    def safely() -> bool:
        try:
            return condition()
        except (redis.RedisError, BoxError):
            return False

    if not wait_until(safely, PATIENCE_SECS):
        raise BoxError(f"in {PATIENCE_SECS:g} s it did not come to pass that {what}")


_T = TypeVar("_T", bound="_Together")


class _Together:
    """Servers that start and end together; those on the stack end also where not all of them came up."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self: _T) -> _T:
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._stack.close()

    def start(self) -> None:
        raise NotImplementedError


class ClusterOfRedis(_Together):
    """Three masters and their three replicas; `start` returns when all slots are served and all replicas follow."""

    def __init__(self, extra_args: Sequence[str] = ()) -> None:
        super().__init__()
        self.servers = [EmbeddedRedis(extra_args=(*_CLUSTER, *_REPLICATION, *extra_args)) for _ in range(6)]
        self.paused: set[EmbeddedRedis] = set()

    @property
    def url(self) -> str:
        """Names two of the six, as an operator would: the others are found."""
        return f"redis+cluster://{HOST}:{self.servers[0].port},{HOST}:{self.servers[4].port}"

    def client(self) -> Any:
        """redis-py's own client, with its own retries, to look with."""
        return redis.RedisCluster(HOST, self.live()[0].port)

    def live(self) -> list[EmbeddedRedis]:
        """The servers that run and are not paused."""
        return [server for server in self.servers if server.running and server not in self.paused]

    def pause(self, *servers: EmbeddedRedis) -> None:
        """They hang, until `heal` or `resume`."""
        for server in servers:
            server.pause()
            self.paused.add(server)

    def cut_off(self, master: EmbeddedRedis) -> None:
        """Its replica is sent away, and can't come back as long as that server runs."""
        ask(master.port, "ACL", "SETUSER", "default", "-psync", "-sync")
        ask(master.port, "CLIENT", "KILL", "TYPE", "replica")

    def resume(self) -> None:
        """Nothing hangs any more."""
        while self.paused:
            self.paused.pop().resume()

    def start(self) -> None:
        for server in self.servers:
            self._stack.enter_context(server)
        masters, replicas = self.servers[:3], self.servers[3:]
        for number, server in enumerate(self.servers, 1):
            ask(server.port, "CLUSTER", "SET-CONFIG-EPOCH", number)
            ask(server.port, "CLUSTER", "MEET", HOST, self.servers[0].port)
        for master, slots in zip(masters, _thirds(), strict=True):
            ask(master.port, "CLUSTER", "ADDSLOTS", *slots)
        _holds(lambda: all(len(self.known_by(server)) == 6 for server in self.servers), "all nodes know each other")
        for master, replica in zip(masters, replicas, strict=True):
            ask(replica.port, "CLUSTER", "REPLICATE", ask(master.port, "CLUSTER", "MYID").decode())
        self.wait_until_whole()

    def known_by(self, server: EmbeddedRedis) -> list[list[str]]:
        """CLUSTER NODES, its lines in words, without those that are being met or forgotten."""
        with redis.Redis(HOST, server.port, socket_timeout=5) as client:
            client.response_callbacks.clear()
            text = client.execute_command("CLUSTER NODES").decode()
        lines = [line.split() for line in text.splitlines()]
        return [line for line in lines if "handshake" not in line[2] and "noaddr" not in line[2]]

    def wait_until_whole(self) -> None:
        """Every live node finds the cluster in order, and all but three of them follow a master."""
        _holds(self._is_whole, "the cluster is in order")

    def _is_whole(self) -> bool:
        roles = [self._role(server) for server in self.live()]
        return roles.count("master") == 3 and roles.count("replica") == len(roles) - 3

    def _role(self, server: EmbeddedRedis) -> str:
        with redis.Redis(HOST, server.port, socket_timeout=5) as client:
            client.response_callbacks.clear()
            if b"cluster_state:ok" not in client.execute_command("CLUSTER INFO"):
                return "out of order"
            role = client.execute_command("ROLE")
        if role[0] == b"master":
            return "master"
        return "replica" if role[3] == b"connected" else "not yet a replica"

    def heal(self) -> None:
        """Start what was killed, let go on what was paused, and empty everything."""
        self.resume()
        for server in self.servers:
            server.start()
        self.wait_until_whole()
        for server in self.servers:
            if ask(server.port, "ROLE")[0] == b"master":
                server.flush()

    def moving(self, key: str, source: EmbeddedRedis, target: EmbeddedRedis) -> Iterator[None]:
        """Move the slot of `key`, in three steps: announced, its keys moved, done."""
        slot = ask(source.port, "CLUSTER", "KEYSLOT", key)
        ids = {server: ask(server.port, "CLUSTER", "MYID").decode() for server in (source, target)}
        ask(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        ask(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        yield
        for name in ask(source.port, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            ask(source.port, "MIGRATE", HOST, target.port, name, 0, 5000)
        yield
        for server in (target, source):
            ask(server.port, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        yield

    def master_of(self, key: str) -> EmbeddedRedis:
        """The live server that owns the slot of `key`."""
        slot = ask(self.live()[0].port, "CLUSTER", "KEYSLOT", key)
        for server in self.live():
            for _, flags, *_, slots in (
                (line[0], line[2], line[8:]) for line in self.known_by(server) if "myself" in line[2]
            ):
                if "master" in flags and _owns(slots, slot):
                    return server
        raise BoxError(f"nobody serves the slot of {key}")

    def replica_of(self, master: EmbeddedRedis) -> EmbeddedRedis:
        """The live server that follows `master`."""
        for server in self.live():
            role = ask(server.port, "ROLE")
            if role[0] == b"slave" and int(role[2]) == master.port:
                return server
        raise BoxError(f"nobody follows the server at {master.port}")

    def wait_for_another(self, dead: EmbeddedRedis, key: str) -> EmbeddedRedis:
        """Wait until a replica has taken over from `dead`, which owned `key`'s slot."""
        _holds(lambda: self.master_of(key) is not dead, f"a replica owns the slot of {key}")
        return self.master_of(key)


def _thirds() -> Iterable[range]:
    return range(0, 5461), range(5461, 10_923), range(10_923, SLOTS)


def _owns(slots: Sequence[str], slot: int) -> bool:
    for part in slots:
        first, _, last = part.partition("-")
        if not part.startswith("[") and int(first) <= slot <= int(last or first):
            return True
    return False


class _Sentinel:
    """One Sentinel process, with a folder and a port of its own."""

    def __init__(self, folder: Path, name: str, master_port: int, down_after_ms: int) -> None:
        self.port = free_port()
        config = folder / f"sentinel-{self.port}.conf"
        config.write_text(
            f"port {self.port}\nbind {HOST}\ndir {folder}\n"
            f"sentinel monitor {name} {HOST} {master_port} 2\n"
            f"sentinel down-after-milliseconds {name} {down_after_ms}\n"
            f"sentinel failover-timeout {name} 3000\n"
        )
        command = [find_redis_binary(), config, "--sentinel"]
        self.process = GuardedProcess(command, log_path=folder / f"sentinel-{self.port}.log", cwd=folder)

    def knows_all(self, name: str) -> bool:
        with redis.Redis(HOST, self.port, socket_timeout=5) as client:
            state = client.sentinel_master(name)
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 and state["is_master"])

    def master_port(self, name: str) -> int:
        with redis.Redis(HOST, self.port, socket_timeout=5) as client:
            return int(client.sentinel_get_master_addr_by_name(name)[1])


class WatchedRedis(_Together):
    """A master, its replica and three Sentinels; `start` returns when all of them know each other."""

    name = "depth"

    def __init__(self) -> None:
        super().__init__()
        self.servers = [EmbeddedRedis(extra_args=_REPLICATION) for _ in range(2)]
        self.sentinels: list[_Sentinel] = []
        self._cut_off: set[EmbeddedRedis] = set()

    @property
    def url(self) -> str:
        nodes = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{nodes}/{self.name}"

    def start(self) -> None:
        for server in self.servers:
            self._stack.enter_context(server)
        master, replica = self.servers
        ask(replica.port, "REPLICAOF", HOST, master.port)
        _holds(lambda: ask(replica.port, "ROLE")[3] == b"connected", "the replica follows")
        folder = Path(tempfile.mkdtemp(prefix="ibkr_depth_sentinels_"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for _ in range(3):
            sentinel = _Sentinel(folder, self.name, master.port, NODE_TIMEOUT_MS)
            self._stack.callback(sentinel.process.end)
            self.sentinels.append(sentinel)
        _holds(lambda: all(each.knows_all(self.name) for each in self.sentinels), "the Sentinels know each other")

    def cut_off(self, master: EmbeddedRedis) -> None:
        """Its replica and the Sentinels are sent away, and nobody gets in until `heal`. Whoever else has a connection
        keeps it."""
        with client_of(master) as client:
            client.config_set("requirepass", _CUT_OFF)
            self._cut_off.add(master)
            for each in client.client_list():
                if "S" in each["flags"] or each["name"].startswith("sentinel-"):
                    client.client_kill(each["addr"])

    def heal(self) -> None:
        """Start what was killed, let everybody in, and empty everything."""
        strayed = [server for server in self.servers if not server.running or server in self._cut_off]
        for server in strayed:
            server.start()
            if server in self._cut_off:
                with redis.Redis(HOST, server.port, password=_CUT_OFF, socket_timeout=5) as client:
                    client.config_set("requirepass", "")
            ask(server.port, "REPLICAOF", HOST, self.master.port)  # the Sentinels do so, too, after ten seconds
        self._cut_off.clear()
        self.wait_until_whole()
        self.master.flush()

    def wait_until_whole(self) -> None:
        """The other server follows the master that the Sentinels name."""
        _holds(self._is_whole, "the replica follows the master that the Sentinels name")

    def _is_whole(self) -> bool:
        roles = {server: ask(server.port, "ROLE") for server in self.servers}
        replicas = [role for server, role in roles.items() if server is not self.master]
        return all(role[0] == b"slave" and role[3] == b"connected" for role in replicas) and all(
            each.knows_all(self.name) for each in self.sentinels
        )

    def client(self) -> Any:
        """To look with: leads to the master, wherever it is."""
        sentinels: Any = Sentinel([(HOST, sentinel.port) for sentinel in self.sentinels], socket_timeout=5)
        return sentinels.master_for(self.name)

    def master_of(self, _key: str) -> EmbeddedRedis:
        """The master: it has all keys."""
        return self.master

    @property
    def master(self) -> EmbeddedRedis:
        """The server that most Sentinels name."""
        ports = [sentinel.master_port(self.name) for sentinel in self.sentinels if sentinel.process.running]
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def wait_for_another(self, dead: EmbeddedRedis, _key: str = "") -> EmbeddedRedis:
        """Wait until the replica is master."""
        _holds(lambda: self.master is not dead and ask(self.master.port, "ROLE")[0] == b"master", "another is master")
        return self.master


Servers = ClusterOfRedis | WatchedRedis
