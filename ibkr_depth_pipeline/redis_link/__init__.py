"""The way to one server, a Sentinel's master, or a cluster, as the URL has it.

`url` and `routing` are pure. The others import redis-py: `aio` and `pipeline` for asyncio, `sync` for other programs.
What redis-py does not document is used in `internals` alone.
"""
