"""The way to Redis, whichever it is: one server, a Sentinel's master, or a cluster. The URL says which.

`url` and `routing` are pure. The others import redis-py: `aio` and `pipeline` for asyncio, `sync` for other programs.
What redis-py does not document is used in `internals` alone.
"""
