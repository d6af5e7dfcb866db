"""The market: what the ledger executes (market.md). Deterministic, in integers, sans-IO.

`edgora.market.machine.Market` is the machine; `edgora.market.rules` holds the formulas of a round for allocators;
`edgora.market.reasons` puts reasons in words; `edgora.market.duties` says what a server owes; `edgora.market.invariants`
checks a market after a block.
"""
