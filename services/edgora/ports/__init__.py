"""What a node needs of the world, as Protocols: consensus, store, chain, bus, runner, clock, transport. No code behind them here."""
