"""Whole sessions in virtual time: gateway, Redis and network in one event loop, faults by a seed."""
