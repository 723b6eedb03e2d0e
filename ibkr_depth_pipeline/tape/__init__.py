"""Tapes: what a gateway and its client said to each other, recorded so that it can be shown to strangers and played."""
