"""The market on a web page: `ibkr_depth_web` reads Redis and pushes what it holds to browsers. Read-only."""
