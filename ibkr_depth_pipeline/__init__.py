"""Records Interactive Brokers market depth (Level 2) into Redis: one stream, last-value hash and heartbeat per symbol."""
