"""A whole market in a box: a Redis, a simulated gateway and Dagster on loopback, for `make run` and for the tests."""
