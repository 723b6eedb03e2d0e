"""Snapshots as Arrow, Polars or pandas. Each library is an extra, imported when it is first needed.

Three arrangements: ten rows a side as fixed-size lists, a column for each row, or a column for each level by price.
An empty row is null in all of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import orjson

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from ibkr_depth_pipeline.price_levels import LevelArrays

Columns: TypeAlias = Literal["lists", "rows", "levels"]
"""How the two sides are arranged."""

SIDES = ("bid", "ask")
PARTS = ("price", "size", "venue")
ROWS_AT_ONCE = 16_384
"""Rows whose levels are made at once: their arrays stay in the processor's cache."""

MARKS = ("subscription", "observed", "settled", "recv_ns")
HEAD = ("symbol", "ts", "seq", "venue", *MARKS)


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
    """symbol, ts (ms, UTC), seq, venue, the marks, and ten rows a side: bid_price, bid_size, bid_venue, ask_price, ...

    The marks are subscription, observed, settled and recv_ns, see DepthSnapshot: null if not known.
    """
    import pyarrow as pa

    types = {"price": pa.float64(), "size": pa.float64(), "venue": pa.string()}
    lists = {f"{side}_{part}": pa.list_(types[part], SNAPSHOT_LEVELS) for side in SIDES for part in PARTS}
    marks = {"subscription": pa.int64(), "observed": pa.bool_(), "settled": pa.bool_(), "recv_ns": pa.int64()}
    columns: dict[str, Any] = {
        "symbol": pa.string(),
        "ts": pa.timestamp("ms", "UTC"),
        "seq": pa.int64(),
        "venue": pa.string(),
        **marks,
        **lists,
    }
    return pa.schema([pa.field(name, kind, nullable=name in marks) for name, kind in columns.items()])


def to_arrow(snapshots: Iterable[DepthSnapshot]) -> pa.Table:
    """A row for each snapshot, in the order given, in columns of `schema()`.

    Raises SchemaMismatch if a snapshot does not have ten rows a side.
    """
    need_arrow()
    import pyarrow as pa

    every = list(snapshots)
    form = schema()
    columns: list[Any] = [[getattr(each, name) for each in every] for name in HEAD]
    arrays = [pa.array(column, form.field(index).type) for index, column in enumerate(columns)]
    arrays += _side_arrays([each.bids_json for each in every])
    arrays += _side_arrays([each.asks_json for each in every])
    return pa.Table.from_arrays(arrays, schema=form)


def _side_arrays(texts: Sequence[bytes]) -> list[Any]:
    """Prices, sizes and venues. A row of depth changes a level or two: each distinct row is decoded once."""
    import pyarrow as pa

    numbers: dict[bytes, int] = {}
    places: list[int] = []
    for text in texts:
        places += [numbers.setdefault(row, len(numbers)) for row in _rows_of(text)]
    rows = [None if row == [0.0, 0.0, ""] else row for row in orjson.loads(b"[" + b",".join(numbers) + b"]")]
    indices = pa.array(places, pa.int32())
    kinds = (pa.float64(), pa.float64(), pa.string())
    columns = [pa.array([row and row[part] for row in rows], kind).take(indices) for part, kind in enumerate(kinds)]
    return [pa.FixedSizeListArray.from_arrays(column, SNAPSHOT_LEVELS) for column in columns]


def _rows_of(text: bytes) -> list[bytes]:
    """The JSON of each row of one side. The recorder writes no blanks; any other way of writing it is read, too."""
    rows = text[1:-1].replace(b"],[", b"]\n[").split(b"\n")
    if len(rows) != SNAPSHOT_LEVELS or text[:2] != b"[[":
        rows = [orjson.dumps(row) for row in orjson.loads(text)]
    if len(rows) != SNAPSHOT_LEVELS:
        raise SchemaMismatch(f"a snapshot does not have {SNAPSHOT_LEVELS} rows a side")
    return rows


# ---- arrangements


def arranged(table: pa.Table, columns: Columns) -> pa.Table:
    """A table of `schema()` with its sides as `columns` has it."""
    if columns == "levels" and table.num_rows > ROWS_AT_ONCE:
        import pyarrow as pa

        starts = range(0, table.num_rows, ROWS_AT_ONCE)
        return pa.concat_tables([by_price(table.slice(start, ROWS_AT_ONCE)) for start in starts])
    match columns:
        case "lists":
            return table
        case "rows":
            return flat(table)
        case "levels":
            return by_price(table)
        case _:
            allowed = ", ".join(map(repr, get_args(Columns)))
            raise ValueError(f"columns={columns!r} is none that there is: it may be {allowed}")


def flat(table: pa.Table) -> pa.Table:
    """A table of `schema()` with a column a row, bid_price_0 (the best) to ask_venue_9, in place of the lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = _head(table)
    for name in (f"{side}_{part}" for side in SIDES for part in PARTS):
        for row in range(SNAPSHOT_LEVELS):
            columns[f"{name}_{row}"] = pc.list_element(table[name], row)
    return pa.table(columns)


def by_price(table: pa.Table) -> pa.Table:
    """A table of `schema()` with columns by price, bid_px_00, bid_sz_00, bid_ct_00 ... in place of the lists.

    Rows of one price are added up, `ct` is their number; the three of a level that the book does not have are null.
    """
    import pyarrow as pa

    from ibkr_depth_pipeline.price_levels import level_columns

    return pa.table({**_head(table), **dict(level_columns({side: levels(table, side) for side in SIDES}))})


def _head(table: pa.Table) -> dict[str, Any]:
    return {name: table[name] for name in HEAD if name in table.column_names}


def levels(table: pa.Table, side: str, rows: Any = None) -> LevelArrays:
    """A side's rows by price; `rows` are the numbers of the table's rows that are wanted, None for all."""
    from ibkr_depth_pipeline.price_levels import by_price as added_up

    price, size = (matrix(table[f"{side}_{part}"], rows) for part in ("price", "size"))
    return added_up(price, size, highest_first=side == "bid")


def matrix(column: Any, rows: Any = None) -> Any:
    """A column of lists of ten numbers, or those `rows` of it, as an array of shape (rows, 10); null is NaN."""
    import numpy as np

    pieces = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    values = np.concatenate(pieces) if pieces else np.empty(0)
    table = values.astype(np.float64, copy=False).reshape(-1, SNAPSHOT_LEVELS)
    return table.copy() if rows is None else table[rows]


# ---- libraries


def to_polars(table: pa.Table) -> pl.DataFrame:
    """A table as Polars; lists of ten are of its type Array."""
    need_polars()
    import polars as pl

    frame = pl.from_arrow(table, rechunk=False)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"a table is wanted, and this is {type(table)}")
    return frame


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table as pandas. One of `schema()` gets a column a row: bid_price_0 to bid_price_9, and so on."""
    need_pandas()
    import pandas as pd
    import pyarrow as pa

    arranged_for_pandas = flat(table) if f"{SIDES[0]}_{PARTS[0]}" in table.column_names else table
    frame: pd.DataFrame = arranged_for_pandas.to_pandas()
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    for name in MARKS:
        frame[name] = table[name].to_pandas(types_mapper=nullable.get).array  # null is no NaN, 1 no 1.0
    return frame
