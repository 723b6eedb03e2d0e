"""Dagster's side: resources, run config, the asset and its job. Nothing outside imports it but definitions.py."""
