"""An event loop without a real clock: when nothing is ready it jumps to its next timer, so that hours take seconds.

Everything of the package that reads a clock reads this one: loop time, time.monotonic, time.time and what is made of
them. Work for threads is done at once, in the loop.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from unittest import mock

from ibkr_depth_pipeline import clock

UNIX_BEGIN = datetime(2026, 11, 2, 15, 30, tzinfo=timezone.utc).timestamp()
"""When every session begins, in unix seconds: a Monday, an hour after the open of New York."""

STEP_SECS = 1e-9
"""What a step of the loop takes at least. asyncio calls a timer up to the clock's resolution, which is that, too early:
who then waits for the rest would do so for ever if no time passed."""

MOST_STEPS = 3_000_000
"""Of a session. One that needs more does not come to an end."""


class NothingLeft(Exception):
    """Every task waits for something that will never happen."""


class VirtualClock:
    """`now` is in seconds, as by time.monotonic."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """In place of time.monotonic."""
        return self.now

    def unix(self) -> float:
        """In place of time.time."""
        return UNIX_BEGIN + self.now - 1000.0

    def unix_ns(self) -> int:
        """In place of time.time_ns."""
        return int(self.unix() * 1e9)

    def unix_ms(self) -> int:
        """In place of clock.unix_ms."""
        return int(self.unix() * 1e3)

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Inside the block the package, and all that asks the module `time`, have this clock."""
        places: dict[Callable[..., Any], Callable[..., Any]] = {
            clock.monotonic: self.monotonic,
            clock.unix_ms: self.unix_ms,
            time.time_ns: self.unix_ns,
            time.monotonic: self.monotonic,
            time.time: self.unix,
        }
        patches = [
            mock.patch.object(module, name, places[value])
            for module in [time, *_package()]
            for name, value in list(vars(module).items())
            if callable(value) and value.__hash__ is not None and value in places
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _package() -> list[Any]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("ibkr_depth_pipeline.")]


class _Jump(selectors.SelectSelector):
    """Has never anything ready; instead of waiting it sets the clock forward, and with each step of the loop."""

    def __init__(self, virtual: VirtualClock) -> None:
        super().__init__()
        self._virtual = virtual
        self._steps = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self._steps += 1
        if timeout is None or self._steps > MOST_STEPS:
            raise NothingLeft(f"after {self._steps} steps, {self._virtual.now - 1000:.1f} s")
        self._virtual.now += max(STEP_SECS, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. `connect` and `listen` take the place of sockets; see network.py."""

    def __init__(self, virtual: VirtualClock) -> None:
        super().__init__(_Jump(virtual))
        self._virtual = virtual
        self.connect: Callable[..., Any] | None = None
        self.listen: Callable[..., Any] | None = None

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        assert self.connect is not None
        return await self.connect(protocol_factory, port)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        assert self.listen is not None
        return self.listen(protocol_factory, port)
