"""Monitoring of recorders: diagnosis, incidents, failed runs, supervision of runs, delivery of alerts. No Dagster.

`diagnosis`, `incidents`, `run_failures`, `supervision` and `state` are pure: the previous state and the observations go
in, the new state and the alerts come out. `ticks` does the I/O of a sensor's tick; `delivery` is the only home of
apprise.
"""
