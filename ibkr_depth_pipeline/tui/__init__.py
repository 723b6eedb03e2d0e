"""`ibkr_depth_watch`: the books, live on a terminal, from Redis alone. Pure but for poller, keyboard and screen."""
