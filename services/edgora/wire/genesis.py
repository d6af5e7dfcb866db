"""The genesis document: everything that is known before anything runs (ledger.md 22).

Its hash is the genesis id, the salt of both signature domains. Consensus parameters live here and nowhere else, so no
node's own setting can stall or split the consortium.
"""

import msgspec

from edgora.wire.codec import B20, B32, U8, U16, U32, U64, encode
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Epoch, validators_hash
from edgora.wire.market import MarketParams
from edgora.wire.settlement import market_address
from edgora.wire.units import Address, Digest

__all__ = ["ConsensusParams", "Genesis", "GenesisServer", "GenesisValidator", "LinkEndpoint"]


class ConsensusParams(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Ledger parameters (ledger.md; each name's section in brackets)."""

    window: int = 4
    """W: heights in flight [7]."""
    block_txs: int = 500
    block_octets: int = 512 * 1024
    block_gap_ms: int = 25
    first_tx_delay_ms: int = 5
    seal_delay_ms: int = 50
    """[3]"""
    timeout_ms: int = 1_000
    """T, the progress timer [10]."""
    timeout_cap_ms: int = 16_000
    checkpoint_every: int = 128
    """K [9]."""
    valid_blocks: int = 5_000
    """V_max [8]."""
    clock_skew_ms: int = 2_000
    """Tolerance of a proposal's time [3]."""


class GenesisValidator(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    address: B20
    link_key: bytes
    """SPKI DER of the TLS key that this validator's links present."""


class GenesisServer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A server; in version 1 its id is its validator's index."""

    id: U16
    signer: B20
    meta_hash: B32
    """keccak of the canonical metadata document (REST endpoint, RSA key, link key)."""


class LinkEndpoint(msgspec.Struct, frozen=True, array_like=True):
    """Where a validator's links listen; deployment matter, not part of the genesis document."""

    host: str
    port: U16


class Genesis(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: U8
    consortium_id: U64
    chain_id: U64
    validators: tuple[GenesisValidator, ...]
    servers: tuple[GenesisServer, ...]
    deployer: B20
    consensus: ConsensusParams
    market: MarketParams
    engine: str
    """WASM engine version and configuration; fuel may differ between versions, so all servers run this one."""
    time_ms: U64 = 0
    """Header time of block 0."""
    min_stake_gwei: U32 = 0
    unbond_delay_s: U32 = 14_400

    @property
    def id(self) -> Digest:
        return keccak(encode(self))

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(Address(v.address) for v in self.validators)

    @property
    def params_hash(self) -> Digest:
        params = [[self.consensus, self.market], self.engine, [v.link_key for v in self.validators]]
        return keccak(encode(params))

    @property
    def market_address(self) -> Address:
        """CREATE(deployer, nonce 0)."""
        return market_address(self.deployer)

    def ledger_domain(self) -> Domain:
        return Domain.ledger(self.consortium_id, self.id)

    def market_domain(self) -> Domain:
        return Domain.market(self.chain_id, self.market_address, self.id)

    def epoch(self) -> Epoch:
        """Epoch 0."""
        return Epoch(0, 1, validators_hash(self.addresses), self.params_hash)
