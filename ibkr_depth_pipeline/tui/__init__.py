"""`ibkr_depth_watch`: what is recorded, live on a terminal, from Redis alone."""
