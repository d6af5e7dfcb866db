"""Deploying the contract, once, and knowing it again (contracts.md 13, ledger.md 22).

The address follows from the deployer, the runtime code from the parameters: so "is it ours?" is one hash comparison,
made by the deploy command when it runs again and by every node at every start.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgora.contracts import Parameters, expected_code, initcode
from edgora.crypto.sign import SigningKey
from edgora.ports.chain import Chain
from edgora.wire.errors import Conflict, NotFound, WireError
from edgora.wire.hashing import keccak
from edgora.wire.settlement import market_address

__all__ = ["Deployment", "check_deployment", "deploy_settlement", "read_deployment", "write_deployment"]


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The deployment file: JSON, addresses and hashes as 0x-prefixed hex, so that other tools read it too."""

    address: str
    chain_id: int
    block: int
    """The block that created the contract; 0 if it was there before we looked. No fact stands in an earlier one."""
    code_hash: str
    validators: tuple[str, ...]
    consortium_id: int
    genesis_id: str
    lambda_bps: int
    exit_delay_s: int
    min_stake: str
    """wei, decimal: JSON readers keep 53 bits of a number"""
    unbond_delay_s: int

    @property
    def market(self) -> bytes:
        return bytes.fromhex(self.address[2:])


def _described(parameters: Parameters, chain_id: int, deployer: bytes, block: int) -> Deployment:
    return Deployment(
        address="0x" + market_address(deployer).hex(),
        chain_id=chain_id,
        block=block,
        code_hash="0x" + keccak(expected_code(parameters, chain_id, deployer)).hex(),
        validators=tuple("0x" + validator.hex() for validator in parameters.validators),
        consortium_id=parameters.consortium_id,
        genesis_id="0x" + parameters.genesis_id.hex(),
        lambda_bps=parameters.lambda_bps,
        exit_delay_s=parameters.exit_delay_s,
        min_stake=str(parameters.min_stake),
        unbond_delay_s=parameters.unbond_delay_s,
    )


async def deploy_settlement(
    chain: Chain,
    deployer_key: SigningKey,
    validators: Sequence[bytes],
    consortium_id: int,
    genesis_id: bytes,
    lambda_bps: int,
    exit_delay_s: int,
    min_stake: int,
    unbond_delay_s: int,
) -> Deployment:
    """Make the contract stand at CREATE(deployer, nonce 0). Idempotent.

    Exactly this code with exactly these parameters is there already: fine. Other code is there, or the deployer's first
    transaction was something else: Conflict. The constructor refuses the parameters: RuleRefused.
    """
    parameters = Parameters(
        tuple(validators), consortium_id, genesis_id, lambda_bps, exit_delay_s, min_stake, unbond_delay_s
    )
    chain_id = await chain.chain_id()
    address = market_address(deployer_key.address)
    deployment = _described(parameters, chain_id, deployer_key.address, 0)
    if await chain.code_hash(address) is None:
        mined = await chain.deploy(deployer_key, initcode(parameters))
        if mined.contract == address:
            deployment = msgspec.structs.replace(deployment, block=mined.block_number)
        elif await chain.code_hash(address) is None:
            raise Conflict(
                f"the deployer {deployer_key.address.hex()} has sent transactions before: the contract came to "
                f"{(mined.contract or b'').hex()} instead of {address.hex()}; use a fresh key",
                field="deployer",
            )
        # else: another process with the same key was first, and what counts is what stands there.
    await check_deployment(chain, deployment)
    return deployment


async def check_deployment(chain: Chain, deployment: Deployment) -> None:
    """Refuse to go on with another chain (Conflict), without the contract (NotFound), or with other code (Conflict)."""
    chain_id = await chain.chain_id()
    if chain_id != deployment.chain_id:
        raise Conflict(
            f"the chain has id {chain_id}, the contract was deployed on {deployment.chain_id}", field="chain_id"
        )
    found = await chain.code_hash(deployment.market)
    if found is None:
        raise NotFound(f"no contract at {deployment.address}", field="address", fix="run the deploy command first")
    if "0x" + found.hex() != deployment.code_hash:
        raise Conflict(
            f"the contract at {deployment.address} has code hash 0x{found.hex()} instead of {deployment.code_hash}: other "
            "parameters or another version",
            field="code_hash",
        )


def write_deployment(path: Path, deployment: Deployment) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    text = msgspec.json.format(msgspec.json.encode(deployment), indent=2)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(text + b"\n")
    fresh.replace(path)


def read_deployment(path: Path) -> Deployment:
    """The deployment in a file. Raises NotFound or WireError, which name the file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no deployment file {path}", fix="run the deploy command first") from None
    try:
        return msgspec.json.decode(data, type=Deployment)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise WireError(f"{path}: {error}") from None
