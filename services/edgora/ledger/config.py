"""What a replica is told at birth: its consortium, its place in it, and the parameters of ledger.md.

Everything is frozen. Two replicas of one consortium differ in `index` and `voting` only; that is checked by the
genesis id, which is the parent of block 0 and part of the signature domain.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from edgora.wire.eip712 import Domain
from edgora.wire.hashing import EMPTY_ROOT
from edgora.wire.ledger import Header, faulty, quorum
from edgora.wire.units import NOBODY, Address

__all__ = ["LedgerConfig", "Params", "Recover", "Signer", "genesis_header"]

Recover = Callable[[bytes, bytes], bytes]
"""(digest, signature) -> address of the signer, the zero address for anything malformed. `crypto.sign.recover` is one."""


class Signer(Protocol):
    """The replica's own key. `crypto.sign.SigningKey` is one; simulations may register signatures instead."""

    @property
    def address(self) -> Address: ...

    def sign(self, digest: bytes) -> bytes:
        """65 octets; equal digests MUST give equal signatures (RFC 6979)."""
        ...


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """The [param]s of ledger.md with their defaults. Times in milliseconds, sizes in octets."""

    window: int = 4
    """W: uncommitted heights that a primary may have in flight; W_buf = 3 W is what a receiver keeps."""
    checkpoint_interval: int = 128
    """K."""
    timeout_ms: int = 1_000
    """T: how long a duty may wait for a commit before the view is left."""
    timeout_cap_ms: int = 16_000
    """Back-off doubles T up to here."""
    inclusion_factor: int = 8
    """T_incl = this many T."""
    batch_delay_ms: int = 5
    block_gap_ms: int = 25
    seal_delay_ms: int = 50
    clock_tolerance_ms: int = 2_000
    status_interval_ms: int = 500
    resend_view_change_ms: int = 1_000
    fetch_timeout_ms: int = 500
    """How long one peer may take to answer a fetch before the next one is asked; at least 100."""
    block_txs: int = 500
    block_octets: int = 512 * 1024
    tx_octets: int = 16 * 1024
    validity_window: int = 5_000
    """V_max, in blocks."""
    pool_txs: int = 10_000
    pool_octets: int = 32 * 2**20
    pool_per_sender: int = 256
    lane_gap: int = 64
    lanes_per_sender: int = 16
    sync_octets: int = 2**20
    """Octets of one answer to a fetch; one is in flight at a time, so below the 4 MiB bound."""
    retained_octets: int = 32 * 2**20
    """Committed blocks at or below the stable checkpoint that stay in memory to serve peers a little behind."""
    compact: bool = False
    """Propose transaction hashes instead of bodies."""

    @property
    def buffer(self) -> int:
        """W_buf."""
        return 3 * self.window


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of one consortium.

    Raises ValueError for a set that cannot work: no validator, more than 64, duplicates, index out of range.
    """

    validators: tuple[bytes, ...]
    """Addresses in index order: the set of `epoch`."""
    index: int
    """Our place in it."""
    domain: Domain
    genesis: Header
    """Header of height 0: `genesis_header(...)`. It is committed by definition."""
    epoch: int = 0
    params: Params = Params()
    voting: bool = True
    """False: observe and sync only, sign nothing (a replica that lost its log, ledger.md 12)."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.validators) <= 64:
            raise ValueError(f"{len(self.validators)} validators; 1 to 64 can work together")
        if len(set(self.validators)) != len(self.validators):
            raise ValueError("a validator address stands in the set twice")
        if not 0 <= self.index < len(self.validators):
            raise ValueError(f"index {self.index} is not one of {len(self.validators)} validators")
        if not 1 <= self.params.window <= 16:
            raise ValueError(f"window {self.params.window}; 1 to 16 is allowed")

    @property
    def n(self) -> int:
        return len(self.validators)

    @property
    def f(self) -> int:
        return faulty(self.n)

    @property
    def q(self) -> int:
        return quorum(self.n)

    def primary(self, view: int) -> int:
        """Index of the primary of a view. The offset of epoch 0 is 0 (ledger.md 22)."""
        return (view + self.epoch) % self.n


def genesis_header(genesis_id: bytes, time_ms: int) -> Header:
    """Header of height 0: its parent is the genesis id, so every block hash depends on the genesis document."""
    zero = bytes(32)
    return Header(
        epoch=0, height=0, parent=genesis_id, tx_root=EMPTY_ROOT, tx_count=0, exec_height=0, state_root=zero,
        receipt_root=EMPTY_ROOT, receipt_count=0, next_epoch=zero, time_ms=time_ms, proposer=NOBODY,
    )  # fmt: skip
