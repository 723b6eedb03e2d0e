"""Runs a simulated gateway beside the caller: in a thread, for blocking clients, or as a process of its own."""

import asyncio
import inspect
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ibkr_depth_pipeline.simulation.gateway import SimulatedGateway
from ibkr_depth_pipeline.simulation.journal import Journal
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline.simulation.scenario import ScenarioStep

_PATIENCE = 120.0
"""Seconds until a gateway that does not start, stop or answer counts as broken."""


class GatewayThread:
    """A gateway on an event loop in a thread of its own.

        with GatewayThread(GatewayOptions()) as gateway:
            client.connect(gateway.host, gateway.port)
            gateway.do(lambda simulated: simulated.set_slots(1))

    Entering raises what the gateway raised while it started, leaving what it raised later.
    """

    def __init__(self, options: GatewayOptions | None = None, scenario: Sequence[ScenarioStep] = ()) -> None:
        self._gateway = SimulatedGateway(options, scenario)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulated-gateway", daemon=True)

    @property
    def host(self) -> str:
        return self._gateway.host

    @property
    def port(self) -> int:
        return self._gateway.port

    @property
    def journal(self) -> Journal:
        """May be read from any thread."""
        return self._gateway.journal

    def __enter__(self) -> "GatewayThread":
        self._thread.start()
        self._started.wait(_PATIENCE)
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE)
        if self._failure is not None and error is None:
            raise self._failure

    def do(self, action: Callable[[SimulatedGateway], Any]) -> Any:
        """Runs the action on the gateway in its own loop, awaits what it returns, and returns or raises the outcome."""

        async def work() -> Any:
            outcome = action(self._gateway)
            return await outcome if inspect.isawaitable(outcome) else outcome

        if self._loop is None:
            raise RuntimeError("the gateway is not running")
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_PATIENCE)

    def wait_for(self, condition: Callable[[SimulatedGateway], object], timeout: float = 60.0) -> None:
        """Returns when the condition on the gateway is truthy; it is evaluated in the gateway's loop.

        Raises asyncio.TimeoutError.
        """
        self.do(lambda gateway: gateway.wait_for(lambda: condition(gateway), timeout))

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._gateway:
                self._started.set()
                await self._stop.wait()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._started.set()


@contextmanager
def gateway_process(*arguments: str) -> Iterator[tuple[str, int]]:
    """`ibkr_gateway_sim` with those arguments, on a free port, as a process; yields its host and port.

    The process is asked to stop at the end and killed if it does not. Raises RuntimeError with what it wrote to
    stderr if it does not come to listen.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-sim-") as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_sim", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            listening = _await_ready(process, ready)
            yield listening["host"], listening["port"]
        finally:
            _end(process)


def _await_ready(process: "subprocess.Popen[bytes]", ready: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"the gateway did not start: {process.communicate()[1].decode(errors='replace')}")
        time.sleep(0.02)
    listening: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
    return listening


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
