"""What a gateway does, found out: experiments on the assumptions of docs/ibkr-market-depth.md, read-only."""
