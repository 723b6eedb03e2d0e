"""The contract of each archived snapshot: which one stands behind a name may change, as futures roll. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa

from ibkr_depth_pipeline.schema.keys import StreamId

_LARGEST_CON_ID = 2**63 - 1


class Contract(NamedTuple):
    """A contract as the columns have it; None for what is not known, or what a contract does not have."""

    con_id: int | None = None
    local_symbol: str | None = None
    expiry: str | None = None


class ContractHistory:
    """Of one symbol. `note` entries of its stream of changes, then ask for the `columns` of the snapshots after them.

    `cursor` is the id of the newest entry noted. What can't be read is passed over.
    """

    def __init__(self) -> None:
        self.cursor = "0-0"
        self._changes: list[tuple[StreamId, Contract]] = []

    def note(self, entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        """Take entries as Redis has them, oldest first; of two about the same snapshots the later one counts."""
        for entry_id, fields in entries:
            self.cursor = entry_id.decode()
            if (change := _change(fields)) is not None:
                self._changes = [known for known in self._changes if known[0] != change[0]]
                self._changes.append(change)
        self._changes.sort()

    def columns(self, ids: Sequence[StreamId]) -> list[Any]:
        """con_id, local_symbol and expiry of the snapshots with these ids, which grow. Forgets what is older."""
        spans = list(self._spans(ids))
        rows = pa.array([at for at, (count, _) in enumerate(spans) for _ in range(count)], pa.int32())
        con_ids = pa.array([contract.con_id for _, contract in spans], pa.int64()).take(rows)
        names = ([contract.local_symbol for _, contract in spans], [contract.expiry for _, contract in spans])
        return [con_ids, *(_dictionary(each, rows) for each in names)]

    def _spans(self, ids: Sequence[StreamId]) -> Iterator[tuple[int, Contract]]:
        """The contracts of these snapshots, each with how many there are of it, in order."""
        starts = [bisect_right(ids, after) for after, _ in self._changes]
        known = max((at for at, start in enumerate(starts) if start == 0), default=None)
        first = Contract() if known is None else self._changes[known][1]
        self._changes = self._changes[known or 0 :]
        later = [(start, contract) for start, (_, contract) in zip(starts[known or 0 :], self._changes, strict=True)]
        bounds = [(0, first), *((start, contract) for start, contract in later if start), (len(ids), Contract())]
        for (start, contract), (end, _) in pairwise(bounds):
            yield end - start, contract


def _dictionary(names: Sequence[str | None], rows: Any) -> Any:
    distinct = sorted({name for name in names if name is not None})
    codes = pa.array([None if name is None else distinct.index(name) for name in names], pa.int16())
    return pa.DictionaryArray.from_arrays(codes.take(rows), pa.array(distinct, pa.string()))


def _change(fields: Mapping[bytes, bytes]) -> tuple[StreamId, Contract] | None:
    try:
        con_id = int(fields[b"con_id"])
        local_symbol, expiry = fields[b"local_symbol"].decode(), fields[b"expiry"].decode()
        after = StreamId.of(fields[b"after"])
    except (KeyError, ValueError):
        return None
    if not 0 < con_id <= _LARGEST_CON_ID:
        return None
    return after, Contract(con_id, local_symbol or None, expiry or None)
