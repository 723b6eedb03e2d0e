"""Exact books, built row by row. Pure."""
