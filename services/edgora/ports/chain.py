"""The EVM chain as Edgora sees it: one contract, its calls, its facts (contracts.md 7, ledger.md 22).

An implementation is bound to one contract address, which is known before it exists (`wire.settlement.market_address`).
Plain types only: addresses and hashes are bytes, money is wei as int, chain time is whole seconds.

Sends are signed with the given key, wait until the transaction is in a block, and return it. They raise
`wire.errors.RuleRefused` if the contract reverts (its `rule` is the Solidity error's name, e.g. SettlementOutOfOrder),
`wire.errors.Unavailable` if the chain cannot be reached, `wire.errors.Unknown` if the wait for the block ran out.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from edgora.crypto.sign import SigningKey
from edgora.wire.ledger import Certificate, Header, ReceiptProof
from edgora.wire.market import ChainFact

__all__ = [
    "AccountView", "Chain", "ChainBlock", "EarnedView", "FoundFact", "HeadView", "LockView", "Mined", "ServerView",
]  # fmt: skip


class ChainBlock(NamedTuple):
    number: int
    hash: bytes
    time_s: int


class Mined(NamedTuple):
    """A transaction that is in a block and did not revert."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    tx_index: int
    gas_used: int
    contract: bytes | None
    """The contract that it created, if it is a deployment."""


class AccountView(NamedTuple):
    """A UE's deposit. balance and spent in wei; exit_at_s is 0 while no exit is pending."""

    balance: int
    spent: int
    exit_at_s: int
    exit_nonce: int


class LockView(NamedTuple):
    """A lock. amount 0: there is none. deadline_s 0: a remainder, refundable at once."""

    amount: int
    deadline_s: int


class EarnedView(NamedTuple):
    """What a server can withdraw, in wei, and its reputation sums."""

    balance: int
    desired_ms: int
    actual_ms: int
    tasks: int


class HeadView(NamedTuple):
    """Where the contract stands: the last settled batch and the validator set that it believes."""

    page: bytes
    epoch: int
    batch_id: int


class ServerView(NamedTuple):
    """A registered server. unbond_at_s is 0 while it is bonded."""

    owner: bytes
    stake: int
    signer: bytes
    unbond_at_s: int
    meta_hash: bytes


class FoundFact(NamedTuple):
    """A fact with the number of the block that it stands in; the attestation itself names the block by hash."""

    block_number: int
    fact: ChainFact


class Chain(Protocol):
    market: bytes
    """Address of the contract."""

    # ---- the chain itself

    async def chain_id(self) -> int: ...

    async def latest(self) -> ChainBlock: ...

    async def block(self, number: int) -> ChainBlock | None:
        """The canonical block of that number; None if there is none yet."""
        ...

    async def balance(self, address: bytes) -> int:
        """Wei of an address."""
        ...

    async def code_hash(self, address: bytes) -> bytes | None:
        """Keccak of the runtime code there; None where no contract is."""
        ...

    async def events(self, from_block: int, to_block: int) -> Sequence[FoundFact]:
        """Facts of the contract in these blocks (both ends included), in chain order. Head facts are not among them."""
        ...

    # ---- sends

    async def deploy(self, key: SigningKey, initcode: bytes) -> Mined: ...

    async def transfer(self, key: SigningKey, to: bytes, wei: int) -> Mined:
        """Plain money, for the accounts that pay gas."""
        ...

    async def deposit_for(self, key: SigningKey, ue: bytes, wei: int) -> Mined: ...

    async def open(self, key: SigningKey, offer: bytes, deadline_s: int, wei: int) -> Mined: ...

    async def refund(self, key: SigningKey, ue: bytes, offer: bytes) -> Mined: ...

    async def request_exit(self, key: SigningKey) -> Mined: ...

    async def request_exit_for(self, key: SigningKey, ue: bytes, valid_until_s: int, signature: bytes) -> Mined: ...

    async def finish_exit(self, key: SigningKey, ue: bytes) -> Mined: ...

    async def register(self, key: SigningKey, owner: bytes, meta_hash: bytes, stake: int) -> Mined: ...

    async def set_meta(self, key: SigningKey, server: int, meta_hash: bytes) -> Mined: ...

    async def unbond(self, key: SigningKey, server: int) -> Mined: ...

    async def withdraw_stake(self, key: SigningKey, server: int) -> Mined: ...

    async def settle(
        self, key: SigningKey, batch_id: int, task_root: bytes, payload: bytes, proof: ReceiptProof
    ) -> Mined:
        """Pay a certified batch. Votes beyond a quorum are left out, as the contract wants exactly q."""
        ...

    async def advance_epoch(
        self, key: SigningKey, header: Header, certificate: Certificate, validators: Sequence[bytes], params_hash: bytes
    ) -> Mined: ...

    async def slash(
        self, key: SigningKey, phase: int, epoch: int, view: int, height: int,
        vote_a: tuple[bytes, bytes], vote_b: tuple[bytes, bytes],
    ) -> Mined:  # fmt: skip
        """Two (block hash, signature) of one validator for one place."""
        ...

    async def withdraw(self, key: SigningKey, server: int, to: bytes) -> Mined: ...

    # ---- views

    async def account(self, ue: bytes) -> AccountView: ...

    async def lock_of(self, key: bytes) -> LockView: ...

    async def earned(self, server: int) -> EarnedView: ...

    async def head(self) -> HeadView: ...

    async def validators(self) -> tuple[bytes, ...]:
        """The set whose certificates the contract takes now, in index order."""
        ...

    async def server(self, server: int) -> ServerView | None: ...

    async def server_of(self, signer: bytes) -> int | None:
        """Id of the server with this signer; None if it never registered."""
        ...

    async def server_count(self) -> int: ...

    async def close(self) -> None: ...
