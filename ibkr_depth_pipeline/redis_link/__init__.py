"""The way to Redis, whichever it is: one server, a Sentinel's master, or a cluster. The URL says which.

`url` is pure. What needs redis-py or an event loop is imported by whoever opens a client: sink/ and reader/.
"""
