"""An ingest's figures for Prometheus. The only home of prometheus-client."""
