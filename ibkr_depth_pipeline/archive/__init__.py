"""The streams as Parquet files, kept for good: docs/archive.md says what stands where.

layout.py (names) and checks.py are pure; decoding.py turns stream entries into columns; store.py is the only one that
touches folders and object stores, streams.py the only one that talks to Redis. archiver.py follows the streams,
compaction.py makes one file of a day, reading.py reads a day whatever state its files are in.

Needs the extra `archive` (pyarrow, fsspec); nothing of the plain install imports it.
"""
