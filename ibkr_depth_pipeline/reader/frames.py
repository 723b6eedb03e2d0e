"""Snapshots as Arrow, Polars or pandas. Each library is an extra, imported when it is first needed.

Ten levels a side are fixed-size lists; pandas, which has no such type, gets a column a level.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

SIDES = ("bid", "ask")
PARTS = ("price", "size", "venue")


def need_arrow() -> None:
    """Raises ModuleNotFoundError, which names the extra, if pyarrow is not installed. So do the other two."""
    _need("arrow", "pyarrow")


def need_polars() -> None:
    """See `need_arrow`."""
    _need("polars", "pyarrow", "polars")


def need_pandas() -> None:
    """See `need_arrow`."""
    _need("pandas", "pyarrow", "pandas")


def _need(extra: str, *modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        what = " and ".join(missing)
        raise ModuleNotFoundError(f"this needs {what}: pip install 'ibkr_depth_pipeline[{extra}]'", name=missing[0])


def schema() -> pa.Schema:
    """symbol, ts (ms, UTC), seq, venue, and ten levels a side: bid_price, bid_size, bid_venue, ask_price, ..."""
    import pyarrow as pa

    types = {"price": pa.float64(), "size": pa.float64(), "venue": pa.string()}
    lists = {f"{side}_{part}": pa.list_(types[part], SNAPSHOT_LEVELS) for side in SIDES for part in PARTS}
    columns: dict[str, Any] = {
        "symbol": pa.string(),
        "ts": pa.timestamp("ms", "UTC"),
        "seq": pa.int64(),
        "venue": pa.string(),
        **lists,
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def to_arrow(snapshots: Iterable[DepthSnapshot]) -> pa.Table:
    """A row for each snapshot, in the order given, in columns of `schema()`.

    Raises SchemaMismatch if a snapshot does not have ten rows a side.
    """
    need_arrow()
    import pyarrow as pa

    every = list(snapshots)
    form = schema()
    columns: list[Any] = [
        [each.symbol for each in every],
        [each.ts for each in every],
        [each.seq for each in every],
        [each.venue for each in every],
    ]
    arrays = [pa.array(column, form.field(index).type) for index, column in enumerate(columns)]
    arrays += _side_arrays([each.bids_json for each in every])
    arrays += _side_arrays([each.asks_json for each in every])
    return pa.Table.from_arrays(arrays, schema=form)


def _side_arrays(texts: Sequence[bytes]) -> list[Any]:
    """Prices, sizes and venues. A row of depth changes a level or two: each distinct level is decoded once."""
    import pyarrow as pa

    numbers: dict[bytes, int] = {}
    places: list[int] = []
    for text in texts:
        levels = _levels_of(text)
        places += [numbers.setdefault(level, len(numbers)) for level in levels]
    rows = orjson.loads(b"[" + b",".join(numbers) + b"]")
    indices = pa.array(places, pa.int32())
    kinds = (pa.float64(), pa.float64(), pa.string())
    columns = [pa.array([row[part] for row in rows], kind).take(indices) for part, kind in enumerate(kinds)]
    return [pa.FixedSizeListArray.from_arrays(column, SNAPSHOT_LEVELS) for column in columns]


def _levels_of(text: bytes) -> list[bytes]:
    """The JSON of each level of one side. The recorder writes no blanks; any other way of writing it is read, too."""
    levels = text[1:-1].replace(b"],[", b"]\n[").split(b"\n")
    if len(levels) != SNAPSHOT_LEVELS or text[:2] != b"[[":
        levels = [orjson.dumps(level) for level in orjson.loads(text)]
    if len(levels) != SNAPSHOT_LEVELS:
        raise SchemaMismatch(f"a snapshot does not have {SNAPSHOT_LEVELS} rows a side")
    return levels


def to_polars(table: pa.Table) -> pl.DataFrame:
    """A table of `schema()` as Polars; the levels are of its type Array."""
    need_polars()
    import polars as pl

    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"a table is wanted, and this is {type(table)}")
    return frame


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table of `schema()` as pandas: symbol, ts, seq, venue, then bid_price_0 to bid_price_9, and so on."""
    need_pandas()
    frame: pd.DataFrame = flat(table).to_pandas()
    return frame


def flat(table: pa.Table) -> pa.Table:
    """A table of `schema()` with a column a level, bid_price_0 (the best) to ask_venue_9, in place of the lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {name: table[name] for name in ("symbol", "ts", "seq", "venue")}
    for name in (f"{side}_{part}" for side in SIDES for part in PARTS):
        for level in range(SNAPSHOT_LEVELS):
            columns[f"{name}_{level}"] = pc.list_element(table[name], level)
    return pa.table(columns)
