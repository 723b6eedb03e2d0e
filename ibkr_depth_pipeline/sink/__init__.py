"""Redis: every snapshot, once, in order. redis-py is at home in this package alone."""
