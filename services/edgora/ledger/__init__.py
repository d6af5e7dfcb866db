"""The PBFT ledger core: a pure state machine from inputs to effects (ledger.md)."""
