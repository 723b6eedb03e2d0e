"""What IBKR tells us and how it is asked. ib_insync is at home in tws.py alone."""
