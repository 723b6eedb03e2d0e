"""The recording of a gateway's universe as an asset, and what Dagster shows of it."""
