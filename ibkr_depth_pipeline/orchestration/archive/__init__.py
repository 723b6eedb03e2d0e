"""The archive of Parquet files as assets: the archiver, a compacted day, and the day's report."""
