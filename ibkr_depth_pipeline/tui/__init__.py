"""`ibkr_depth_watch`: the recorded books, live on a terminal, from Redis alone. `state` and `render` are pure."""
