"""`make bench`: how fast the recorder is, beside the limits of its parts and beside others. See docs/benchmarks.md.

Read from the outside in: __main__.py (the parts and the report), throughput.py, latency.py, slots.py, growth.py,
dagster_run.py, years.py, profiling.py (one part each), then what they stand on: tape.py (rows recorded from the
simulated gateway), player.py (a process that plays them), recorder.py (the ingest as a process), verify.py (whether
what is stored is right), processes.py and figures.py. peers/ holds one small program for each thing it is
compared with.
"""
