"""Records Interactive Brokers market depth (Level 2) into Redis: a stream, a last-value hash, a heartbeat per symbol."""
