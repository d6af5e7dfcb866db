"""Units as types: an integer says what it counts.

Everything that is agreed on or paid for is an integer of one of these; floats live in the allocator's rooms only.
"""

from typing import NewType

Wei = NewType("Wei", int)
"""Money, 10^-18 token; at most 96 bits (contracts.md 2)."""

Fuel = NewType("Fuel", int)
"""Work that the sandbox metered; at most 48 bits."""

GweiPerMfuel = NewType("GweiPerMfuel", int)
"""Price of work; 32 bits. 1 gwei/Mfuel is 1000 wei per fuel."""

Millis = NewType("Millis", int)
"""Unix time or a duration in milliseconds; instants have at most 48 bits."""

Seconds = NewType("Seconds", int)
"""Unix time or a duration in seconds, as the chain counts it; 40 bits."""

Octets = NewType("Octets", int)
"""A length in octets."""

Height = NewType("Height", int)
"""Number of a ledger block; genesis is 0."""

Address = NewType("Address", bytes)
"""20 octets: who signed. The identity of a validator, a server's signer or a UE."""

Digest = NewType("Digest", bytes)
"""32 octets of keccak-256."""

OfferId = NewType("OfferId", bytes)
"""EIP-712 digest of an Offer in the market domain; names the task."""

ModuleDigest = NewType("ModuleDigest", bytes)
"""keccak-256 of a WASM module's bytes."""

WEI_PER_FUEL_GWEI = 1000
"""amount = fuel * price * 1000 wei, exactly (contracts.md 2)."""

NOBODY = Address(bytes(20))
"""The zero address: what a malformed signature recovers to."""


def amount(fuel: int, price: int) -> Wei:
    """Wei for this much Fuel at this GweiPerMfuel: exact, no rounding (contracts.md 2)."""
    return Wei(fuel * price * WEI_PER_FUEL_GWEI)
