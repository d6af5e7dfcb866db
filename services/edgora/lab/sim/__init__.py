"""The ledger simulator: the real core under a virtual clock, a seeded network and planned faults (ledger.md 19)."""
