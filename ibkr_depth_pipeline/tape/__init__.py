"""Tapes: what a gateway and its client sent to each other, recorded so that it can be shown to strangers and played."""
