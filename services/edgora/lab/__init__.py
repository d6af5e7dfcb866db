"""The laboratory: scenarios, the embedded cluster, simulated faults, demo, benchmarks. Top of the house but for the CLI."""
