"""A code location of Dagster's that defines nothing: what the servers cost by themselves."""

import dagster as dg

defs = dg.Definitions()
