"""What a server owes the market, one small worker a duty, each reading the followed ledger state."""
