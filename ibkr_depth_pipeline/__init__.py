"""Records Interactive Brokers market depth (Level 2) into Redis."""
