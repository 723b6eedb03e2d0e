"""The probe: resolves each symbol, subscribes, waits for the first book, and reports. For the CLI and Dagster."""
