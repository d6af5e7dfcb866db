"""The compiled contract: what to deploy, how to call it, and which code must stand at its address (contracts.md 13).

The artifacts beside this file are built by `python -m edgora.contracts.build` and committed; its `--check` rebuilds and
compares octets. Immutables are part of the runtime code, so the code that one deployment must have follows from its
parameters: `expected_code` fills them in, and a node compares the hash at every start.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple, cast

from edgora.wire.eip712 import Domain
from edgora.wire.settlement import market_address
from edgora.wire.units import Digest

__all__ = [
    "Artifact", "Parameters", "constructor_arguments", "expected_code", "gas_table", "initcode", "paper_trading",
    "settlement",
]  # fmt: skip


class Artifact(NamedTuple):
    """A compiled contract. `runtime` has zeros where immutables stand; `immutables` says at which octets."""

    name: str
    compiler: str
    abi: tuple[Mapping[str, object], ...]
    bytecode: bytes
    runtime: bytes
    runtime_hash: Digest
    immutables: Mapping[str, tuple[int, ...]]
    storage: tuple[Mapping[str, object], ...]
    """slot, offset in octets, length in octets, name and type of every state variable and struct member."""

    @classmethod
    def from_json(cls, text: str) -> "Artifact":
        raw = json.loads(text)
        return cls(
            name=raw["name"],
            compiler=raw["compiler"],
            abi=tuple(raw["abi"]),
            bytecode=bytes.fromhex(raw["bytecode"]),
            runtime=bytes.fromhex(raw["runtime"]),
            runtime_hash=Digest(bytes.fromhex(raw["runtimeHash"])),
            immutables={name: tuple(places) for name, places in raw["immutables"].items()},
            storage=tuple(raw["storage"]),
        )


@cache
def settlement() -> Artifact:
    """The one contract that is deployed."""
    return Artifact.from_json(files(__name__).joinpath("artifacts", "Settlement.json").read_text("utf-8"))


@cache
def paper_trading() -> Artifact:
    """The BaaS paper's two functions written plainly: a yardstick, never deployed by the platform (contracts.md 10)."""
    return Artifact.from_json(files(__name__).joinpath("artifacts", "PaperTrading.json").read_text("utf-8"))


@cache
def gas_table() -> Mapping[str, int]:
    """The reviewed gas table: name of a measurement to gas, exactly (contracts.md 10)."""
    return cast("Mapping[str, int]", json.loads(files(__name__).joinpath("gas.json").read_text("utf-8")))


class Parameters(NamedTuple):
    """What the constructor fixes for ever (contracts.md 3)."""

    validators: tuple[bytes, ...]
    consortium_id: int
    genesis_id: bytes
    lambda_bps: int
    exit_delay_s: int
    min_stake: int
    """wei"""
    unbond_delay_s: int


def constructor_arguments(parameters: Parameters) -> bytes:
    """ABI encoding of the constructor's arguments: seven words, then the packed validators."""
    packed = b"".join(parameters.validators)
    words = (
        7 * 32, parameters.consortium_id, int.from_bytes(parameters.genesis_id, "big"), parameters.lambda_bps,
        parameters.exit_delay_s, parameters.min_stake, parameters.unbond_delay_s, len(packed),
    )  # fmt: skip
    return b"".join(word.to_bytes(32, "big") for word in words) + packed + bytes(-len(packed) % 32)


def initcode(parameters: Parameters, artifact: Artifact | None = None) -> bytes:
    """What a deployment transaction carries."""
    return (artifact or settlement()).bytecode + constructor_arguments(parameters)


def expected_code(parameters: Parameters, chain_id: int, deployer: bytes, artifact: Artifact | None = None) -> bytes:
    """The runtime code that the deployer's first transaction leaves behind on that chain, to the octet."""
    artifact = artifact or settlement()
    address = market_address(deployer)
    values: dict[str, int | bytes] = {
        "CONSORTIUM_ID": parameters.consortium_id,
        "GENESIS": parameters.genesis_id,
        "LEDGER_DOMAIN": Domain.ledger(parameters.consortium_id, parameters.genesis_id).separator,
        "MIN_STAKE": parameters.min_stake,
        "UNBOND_DELAY": parameters.unbond_delay_s,
        "LAMBDA_BPS": parameters.lambda_bps,
        "EXIT_DELAY": parameters.exit_delay_s,
        "_CHAIN_ID": chain_id,
        "_DOMAIN": Domain.market(chain_id, address, parameters.genesis_id).separator,
    }
    code = bytearray(artifact.runtime)
    for name, places in artifact.immutables.items():
        value = values[name]
        word = value if isinstance(value, bytes) else value.to_bytes(32, "big")
        for at in places:
            code[at : at + 32] = word
    return bytes(code)
