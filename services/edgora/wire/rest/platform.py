"""REST resources of the platform and its parties: GET /v1/info, /v1/servers and /v1/accounts (wire.rest has the table).

What a client reads before its first offer: by which constants the platform works, who runs its servers, what they ask
and how they kept their word, and what the ledger knows of an address. Constants and limits are those of genesis and of
market.md 8; everything else is what the answering node's ledger said at `height`.
"""

from dataclasses import dataclass

from edgora.wire.rest.shapes import Hex, Hex20, Hex32, Wei

__all__ = [
    "Account", "Advert", "ConsensusParams", "Info", "KeyDocument", "Lane", "Limits", "MarketParams", "Reputation",
    "Server", "ServerList", "Voucher",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketParams:
    """wire.market.MarketParams; audit_pay in wei."""

    round_ms: int
    proposal_ms: int
    solve_ms: int
    slack_ms: int
    file_ms: int
    batch_ms: int
    floor_bps: int
    prefer: str
    credit0: int
    probe: int
    audit_bps: int
    auditors: int
    audit_max_ms: int
    draw_ms: int
    audit_pay: Wei
    keep_ms: int
    lambda_bps: int
    margin_ms: int
    exit_delay_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusParams:
    """wire.genesis.ConsensusParams."""

    window: int
    block_txs: int
    block_octets: int
    block_gap_ms: int
    first_tx_delay_ms: int
    seal_delay_ms: int
    timeout_ms: int
    timeout_cap_ms: int
    checkpoint_every: int
    valid_blocks: int
    clock_skew_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """market.md 8 and ledger.md 16, so that a client need not guess."""

    fuel: int
    desired_ms: int
    input_octets: int
    output_octets: int
    memory_pages: int
    module_octets: int
    deadline_ms: int
    tasks_per_ue: int
    tx_octets: int
    txs_per_request: int
    requests_per_s: int
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a client needs before its first offer. Compute deadlines from time_ms, not from your own clock."""

    version: str
    time_ms: int
    """This node's clock now."""
    height: int
    header_time_ms: int
    """Ledger time: header time of `height`."""
    epoch: int
    server: int
    """Which server answers."""
    consortium_id: int
    genesis_id: Hex32
    genesis: Hex
    """The genesis document, canonical MessagePack; keccak of it is genesis_id."""
    chain_id: int
    market_address: Hex20
    validators: list[Hex20]
    quorum: int
    chain_seen: bool
    """Whether voucher tasks are admitted now (contracts.md 9)."""
    development: bool
    """Whether POST /v1/dev/faucet is there."""
    params: MarketParams
    consensus: ConsensusParams
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDocument:
    """A server's metadata document. document is its canonical form: keccak of it is the certified meta_hash."""

    document: Hex
    meta_hash: Hex32
    signer: Hex20
    rsa_spki: Hex
    """RSA public key, SubjectPublicKeyInfo DER: seal inputs to it."""
    link_key: Hex
    public_url: str
    """Where clients reach the server's REST."""
    network_url: str
    """Where it is reached inside the deployment's own network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    speed: int
    """fuel per second and slot"""
    capacity: int
    slots: int
    ask: int
    """gwei per Mfuel"""
    uplink: int
    """octets per second"""
    forward: Wei
    """wei per KiB forwarded"""
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reputation:
    desired_ms: int
    actual_ms: int
    done: int
    late: int
    failed: int
    disputed: int
    score: float | None
    """desired_ms / actual_ms; 1 is exactly as desired; null before the first task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    id: int
    signer: Hex20
    meta_hash: Hex32
    live: bool
    bonded: bool
    """Registered on the contract and not unbonding."""
    advert: Advert | None
    credit: int
    used: int
    tasks: int
    """Assigned to it now."""
    earned: Wei
    """Over the settled tasks that this node has seen."""
    reputation: Reputation
    keys: KeyDocument | None
    """Null while this node has not obtained a document that fits meta_hash."""
    position_m: list[float] | None
    """Where it stands, x and y, as it says itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerList:
    items: list[Server]
    height: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    lane: int
    next_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    cap: Wei
    valid_until_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the ledger knows of an address. known false: no deposit, lock or server, a stranger (UNKNOWN_SENDER)."""

    address: Hex20
    known: bool
    balance: Wei
    spent: Wei
    reserved: Wei
    free: Wei
    """balance - reserved: the largest maximum price that a next voucher task may have."""
    voucher: Voucher | None
    exit_at_ms: int | None
    """Null: no exit pending."""
    unfinished: int
    lanes: list[Lane]
    height: int
    time_ms: int
