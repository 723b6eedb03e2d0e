"""DuckDB over an archive, each entry once in any state of its files. Needs the extra `sql`.

Views: books (the snapshots as they are stored), observed_books (with `subscription` and `settled`), intervals, rows,
holes and alerts. All have `date` and `symbol`, but alerts, which have `date` and `ingest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from ibkr_depth_pipeline.archive import parquet_schema
from ibkr_depth_pipeline.archive.layout import ALERTS, BOOKS, DAYS, HOLES, INTERVALS, PARTS, ROWS, key_of
from ibkr_depth_pipeline.archive.parquet_schema import TABLES
from ibkr_depth_pipeline.archive.reading import days, files_of, settled, symbols
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ConfigurationError

VIEWS = (BOOKS, "observed_books", INTERVALS, ROWS, HOLES, ALERTS)

_ID = "epoch_ms({ts})::HUGEINT * 9223372036854775808 + {seq}"
_OBSERVED = f"""
CREATE VIEW observed_books AS
WITH numbered AS (
  SELECT *, {_ID.format(ts="ts", seq="seq")} AS id,
    lead(ts) OVER following AS next_ts, lead(recv_ns) OVER following AS next_ns
  FROM books WINDOW following AS (PARTITION BY date, symbol ORDER BY ts, seq)
), begun AS (
  SELECT *, {_ID.format(ts="first_row", seq="first_seq")} AS id FROM intervals WHERE first_row IS NOT NULL
)
SELECT numbered.* EXCLUDE (id, next_ts, next_ns),
  CASE WHEN seq <= last_seq THEN subscription END AS subscription,
  coalesce(seq <= last_seq AND ts >= complete, false) AND coalesce(recv_ns <> next_ns, ts <> next_ts, true) AS settled
FROM numbered ASOF LEFT JOIN begun ON numbered.symbol = begun.symbol AND numbered.id >= begun.id
"""
"""An interval is found by the id at which it began: it holds the snapshots from there on up to its last number."""


@contextmanager
def connected(store: ArchiveStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with the VIEWS of this archive. Raises ArchiveUnavailable."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if not store.is_local:
            connection.register_filesystem(store.filesystem)
        for tree in (*TABLES, HOLES):
            _create_view(connection, store, tree)
        connection.execute(_OBSERVED)
        yield connection


def query(store: ArchiveStore, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names and the rows that an SQL query answers. Asked again if a compaction replaced files meanwhile.

    Raises ConfigurationError if it is no query that can be answered, and ArchiveUnavailable.
    """
    return settled(store, lambda: _query(store, text))


def _query(store: ArchiveStore, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with connected(store) as connection:
        try:
            answer = connection.execute(text)
            return [column[0] for column in answer.description or ()], answer.fetchall()
        except duckdb.IOException as error:
            raise FileNotFoundError(str(error)) from error
        except duckdb.Error as error:
            raise ConfigurationError("sql", [f"{error}; there are the views {', '.join(VIEWS)}"]) from None


def _create_view(connection: duckdb.DuckDBPyConnection, store: ArchiveStore, tree: str) -> None:
    files, key = _files(store, tree), key_of(tree)
    if files:
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
        columns = f"hive_partitioning = true, hive_types = {{'date': DATE, '{key}': VARCHAR}}, union_by_name = true"
        connection.execute(f"CREATE VIEW {tree} AS SELECT * FROM read_parquet([{listed}], {columns})")
        return
    schema = parquet_schema.HOLES if tree == HOLES else TABLES[tree].schema
    connection.register("nothing", schema.empty_table())
    connection.execute(f"CREATE TABLE {tree} AS SELECT *, NULL::DATE AS date, NULL::VARCHAR AS {key} FROM nothing")
    connection.unregister("nothing")


def _files(store: ArchiveStore, tree: str) -> list[str]:
    """Files, or a glob, that hold each entry of that tree once."""
    if store.is_local and not store.has_any_of(PARTS, DAYS) and not store.unfinished():
        return [store.address_below(tree, "*", "*", "*.parquet")] if store.has_any_of(tree) else []
    if tree == HOLES:
        return [store.address(place) for place in store.places(tree)]
    files = settled(
        store,
        lambda: [
            file
            for day in days(store, tree)
            for symbol in symbols(store, day, tree)
            for file in files_of(store, day, symbol, tree)
        ],
    )
    return [store.address(file.place) for file in files]
