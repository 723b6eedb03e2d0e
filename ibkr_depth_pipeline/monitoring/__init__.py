"""What an operator is told, and when: episodes, the watch over runs, the way to whoever reads it. No Dagster in here.

`episodes`, `supervision`, `run_news` and `outbox` are pure: the last state and what was seen go in, the new state and
what is to be told come out. `delivery` is the only home of apprise.
"""
