"""Notices that a lease's holder has ended, if it is a process of this machine: the kernel reports it, nothing polls.

A process that has ended writes nothing more, and what it had sent is refused by the raised streams, as after any other
take-over. So its lease needs not run out. What can't be known for certain (another machine, another PID namespace, a
system without pidfds) is left to the lease's time.
"""

from __future__ import annotations

import asyncio
import os

import orjson

from ibkr_depth_pipeline.sink.status import process_mark


class HolderProcess:
    """`watch` the process of a holder; `ended` is set once it has certainly ended. `close` it at the end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._holder = b""
        self._descriptor = -1

    def watch(self, holder: bytes) -> None:
        """Watch the process of that holder, by its text, in the place of the one before."""
        if holder == self._holder:
            return
        self.close()
        self._holder = holder
        self.ended.clear()
        try:
            self._descriptor = _open(holder)
        except ProcessLookupError:
            self.ended.set()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # not of this machine, or not known
        else:
            asyncio.get_running_loop().add_reader(self._descriptor, self._has_ended)

    def _has_ended(self) -> None:
        self.close()
        self.ended.set()

    def close(self) -> None:
        """Watch nothing more. Repeatable."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _open(holder: bytes) -> int:
    """A pidfd of the holder's process, which becomes readable when that ends.

    Raises ProcessLookupError if it has ended, and OSError, ValueError, KeyError, TypeError or AttributeError if that
    can't be known. The mark is compared once the descriptor is open: the number may be another process's by now.
    """
    run = orjson.loads(holder)
    boot, namespace, _ = run["process"].split()
    if process_mark(os.getpid()).split()[:2] != [boot, namespace]:
        raise ValueError("a process of another machine or PID namespace")
    descriptor = os.pidfd_open(run["pid"])
    mark = process_mark(run["pid"])
    if mark == run["process"]:
        return descriptor
    os.close(descriptor)
    if mark:
        raise ProcessLookupError("the number is another process's by now")
    raise ValueError("the mark of the process can't be read")
