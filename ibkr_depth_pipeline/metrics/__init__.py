"""An ingest's figures for Prometheus. `endpoint.py` is the only home of prometheus-client, which is an extra."""
