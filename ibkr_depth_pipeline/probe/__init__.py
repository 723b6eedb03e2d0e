"""What depth each symbol really gets: resolve, subscribe, see the first book, report. For CLI and Dagster alike."""
