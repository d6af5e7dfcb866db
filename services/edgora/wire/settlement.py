"""What a batch of payments is, to the octet: signed structures, the packed payload, its limits and its price in gas.

Rule 1: the market core freezes batches with this module, the contract reads the same bytes (contracts.md 5, 6).
Rule 2: `decode_payload` refuses exactly the payloads on which the contract reverts, so validators that run it never
certify a batch that bricks the queue. What the contract *skips* (an expired voucher, a poor account) is not its matter.
Rule 3: limits that the contract does not know (octets, gas) are kept by whoever builds a payload: `fits`.

A batch travels as three hashes in a chain: payload -> Batch -> output of a code-0 SETTLEMENT receipt -> receipt root of
a header that a quorum signed. `certificate_arguments` turns that proof into the contract's Certificate.
"""

from collections.abc import Sequence
from typing import NamedTuple

from edgora.wire.codec import B20, B32, U40, U64
from edgora.wire.eip712 import Typed
from edgora.wire.errors import WireError
from edgora.wire.hashing import keccak, merkle_leaf, merkle_root
from edgora.wire.ledger import Certificate, Header, Kind, ReceiptProof, quorum
from edgora.wire.units import Address, Digest, Fuel, GweiPerMfuel, Wei, amount

__all__ = [
    "BURN", "GAS_BASE", "GAS_LINE", "GAS_LINK", "GAS_LOCK", "GAS_PENALTY", "GAS_SECTION", "GAS_SERVER",
    "GAS_VALIDATOR", "MAX_GAS", "MAX_LINES", "MAX_LINKS", "MAX_PAYLOAD", "MAX_PENALTIES", "MAX_SERVERS",
    "MAX_VALIDATORS", "MIN_VALIDATORS", "BadPayload", "Batch", "CertificateArguments", "Exit", "Line", "LockLine",
    "Payload", "Penalty", "Section", "ServerRow", "TaskLeaf", "Voucher", "certificate_arguments", "decode_payload",
    "encode_payload", "epoch_arguments", "exact_quorum", "fits", "line_amount", "lock_key", "market_address", "payload_gas",
    "payload_hash", "settlement_output", "split", "task_root",
]  # fmt: skip

# ---- limits (contracts.md 3, 6) ----------------------------------------------------------------------------------------

MIN_VALIDATORS = 4
MAX_VALIDATORS = 64
MAX_LINKS = 64
"""Packed headers in one certificate, the one that holds the receipt included."""
MAX_SERVERS = 255
MAX_LINES = 255
"""Lines of one section."""
MAX_PENALTIES = 255
MAX_PAYLOAD = 120 * 1024
"""Octets: nodes refuse transactions above 128 KiB."""
MAX_GAS = 14_000_000
"""By `payload_gas`: below the cap of a transaction of EIP-7825, 2^24."""
BURN = 255
"""Place of a beneficiary that is nobody: the penalty is burnt."""

BASIS_POINTS = 10_000
_U96 = 2**96 - 1

# ---- signed and hashed structures (contracts.md 5) ---------------------------------------------------------------------


class Voucher(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The UE lets the contract pay its tasks until the sum of all payments ever reaches cap. Market domain.

    Cumulative: a newer voucher with a larger cap replaces an older one, and replaying either pays nothing twice.
    It travels as `wire.market.VoucherPart`; this is the form that is signed.
    """

    TYPE = "Voucher(uint96 cap,uint40 validUntil)"
    cap: int
    """wei"""
    valid_until: U40
    """Unix seconds, inclusive, in chain time."""


class Exit(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The UE wants its balance back; anybody may carry it to the contract. Market domain."""

    TYPE = "Exit(uint24 nonce,uint40 validUntil)"
    nonce: int
    """The account's exitNonce before this exit."""
    valid_until: U40


class Batch(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the quorum certifies; only its hashStruct is used. Names contract and chain, because ledger votes do not."""

    TYPE = "Batch(uint256 chainId,address market,uint64 batchId,bytes32 taskRoot,bytes32 payloadHash)"
    chain_id: U64
    market: B20
    batch_id: U64
    task_root: B32
    payload_hash: B32


def settlement_output(batch_hash: bytes) -> bytes:
    """Output of the SETTLEMENT receipt: uint16 kind || hashStruct(Batch), 34 octets."""
    return Kind.SETTLEMENT.to_bytes(2, "big") + batch_hash


def lock_key(ue: bytes, offer: bytes) -> Digest:
    """Key of a lock: keccak(abi.encode(ue, offer))."""
    return keccak(bytes(12) + ue + offer)


def market_address(deployer: bytes) -> Address:
    """Where the deployer's first transaction creates the contract: keccak(rlp([deployer, 0]))[12:]."""
    return Address(keccak(b"\xd6\x94" + deployer + b"\x80")[12:])


class TaskLeaf(NamedTuple):
    """A task as it stands under a batch's taskRoot: for audit by people and `verifyTask`; payment does not need it."""

    offer: bytes
    ue: bytes
    receiver: int
    """Server id."""
    executor: int
    fuel: int
    price: int
    desired_ms: int
    actual_ms: int
    result_digest: bytes

    def encoded(self) -> bytes:
        """Leaf data: abi.encode of the fields in order, 288 octets."""
        numbers = (self.receiver, self.executor, self.fuel, self.price, self.desired_ms, self.actual_ms)
        words = b"".join(number.to_bytes(32, "big") for number in numbers)
        return self.offer + bytes(12) + self.ue + words + self.result_digest

    def leaf(self) -> Digest:
        """The leaf as `verifyTask` takes it: H(0x00 || data)."""
        return merkle_leaf(self.encoded())


def task_root(leaves: Sequence[TaskLeaf]) -> Digest:
    """Root over a batch's tasks, in their order."""
    return merkle_root([leaf.encoded() for leaf in leaves])


# ---- the payload (contracts.md 6) --------------------------------------------------------------------------------------


class ServerRow(NamedTuple):
    """A server that a batch names, with what the batch adds to its reputation sums. Lines name it by its place."""

    id: int
    desired_ms: int
    actual_ms: int


class Line(NamedTuple):
    """One task's pay: fuel x price x 1000 wei, of which the receiver gets lambda and the executor the rest."""

    receiver: int
    """Place in the server table, not an id."""
    executor: int
    fuel: int
    price: int


class Section(NamedTuple):
    """One UE's tasks under its voucher. Pays all its lines or none. The UE is whoever the signature recovers to."""

    signature: bytes
    cap: int
    valid_until: int
    lines: tuple[Line, ...]


class LockLine(NamedTuple):
    """One task paid from a lock, named by its key."""

    key: bytes
    line: Line


class Penalty(NamedTuple):
    """A lost dispute: stake of a server goes to another one, or is burnt."""

    server: int
    """Server id."""
    beneficiary: int
    """Place in the server table, or BURN."""
    wei: int


class Payload(NamedTuple):
    """All payments of a batch. hash = keccak of the packed octets, UE signatures included."""

    servers: tuple[ServerRow, ...] = ()
    sections: tuple[Section, ...] = ()
    locks: tuple[LockLine, ...] = ()
    penalties: tuple[Penalty, ...] = ()


class BadPayload(WireError):
    """Octets on which the contract reverts with SettlementBadPayload(offset) or ConsortiumUnknownServer."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"payload octet {offset}: {why}")
        self.offset = offset


_HEAD, _SERVER, _SECTION, _LINE, _LOCK, _PENALTY = 6, 10, 83, 12, 44, 15


def _packed_line(line: Line) -> bytes:
    receiver, executor, fuel, price = line
    return bytes((receiver, executor)) + fuel.to_bytes(6, "big") + price.to_bytes(4, "big")


def encode_payload(payload: Payload) -> bytes:
    """The packed form. Raises ValueError or OverflowError for a field out of its width or a place not in the table."""
    places = len(payload.servers)
    lines = [line for section in payload.sections for line in section.lines]
    lines += [lock.line for lock in payload.locks]
    for line in lines:
        if line.receiver >= places or line.executor >= places:
            raise ValueError(f"{line} names a place beyond the {places} servers of the table")
    parts = [
        len(payload.servers).to_bytes(1, "big"), len(payload.sections).to_bytes(2, "big"),
        len(payload.locks).to_bytes(2, "big"), len(payload.penalties).to_bytes(1, "big"),
    ]  # fmt: skip
    parts += [s.id.to_bytes(2, "big") + s.desired_ms.to_bytes(4, "big") + s.actual_ms.to_bytes(4, "big")
              for s in payload.servers]  # fmt: skip
    for section in payload.sections:
        if len(section.signature) != 65:
            raise ValueError(f"a signature has 65 octets, this one {len(section.signature)}")
        parts.append(section.signature + section.cap.to_bytes(12, "big") + section.valid_until.to_bytes(5, "big"))
        parts.append(len(section.lines).to_bytes(1, "big"))
        parts += [_packed_line(line) for line in section.lines]
    for key, line in payload.locks:
        if len(key) != 32:
            raise ValueError(f"a lock key has 32 octets, this one {len(key)}")
        parts.append(key + _packed_line(line))
    for penalty in payload.penalties:
        if penalty.beneficiary >= places and penalty.beneficiary != BURN:
            raise ValueError(f"{penalty} names a place beyond the {places} servers of the table")
        parts.append(
            penalty.server.to_bytes(2, "big") + bytes((penalty.beneficiary,)) + penalty.wei.to_bytes(12, "big")
        )
    return b"".join(parts)


def _read_line(data: bytes, at: int, places: int) -> Line:
    receiver, executor = data[at], data[at + 1]
    if receiver >= places or executor >= places:
        raise BadPayload(at, f"place {max(receiver, executor)} of {places} servers")
    return Line(receiver, executor, int.from_bytes(data[at + 2 : at + 8], "big"),
                int.from_bytes(data[at + 8 : at + 12], "big"))  # fmt: skip


class _Reader:
    """Walks the octets; `take` is the place of the next record, which must lie inside."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, octets: int) -> int:
        start = self.at
        if start + octets > len(self.data):
            raise BadPayload(start, f"cut off: {octets} octets are due, {len(self.data) - start} are there")
        self.at = start + octets
        return start

    def number(self, at: int, octets: int) -> int:
        return int.from_bytes(self.data[at : at + octets], "big")


def _read_section(reader: _Reader, places: int) -> Section:
    at = reader.take(_SECTION)
    data = reader.data
    count = data[at + 82]
    first = at + _SECTION
    if first + count * _LINE > len(data):
        raise BadPayload(at, f"cut off within the section's {count} lines")
    lines = tuple(_read_line(data, reader.take(_LINE), places) for _ in range(count))
    return Section(data[at : at + 65], reader.number(at + 65, 12), reader.number(at + 77, 5), lines)


def decode_payload(data: bytes, server_count: int) -> Payload:
    """The payload in these octets, for a registry of server_count servers. Raises BadPayload where the contract reverts.

    Errors come in the contract's order: structure from front to back, then octets behind the end, then ids of the table.
    """
    reader = _Reader(data)
    reader.take(_HEAD)
    places, sections, locks, penalties = data[0], reader.number(1, 2), reader.number(3, 2), data[5]
    table = reader.take(places * _SERVER)
    servers = tuple(
        ServerRow(reader.number(at, 2), reader.number(at + 2, 4), reader.number(at + 6, 4))
        for at in range(table, table + places * _SERVER, _SERVER)
    )
    read_sections = tuple(_read_section(reader, places) for _ in range(sections))
    read_locks = []
    for _ in range(locks):
        at = reader.take(_LOCK)
        read_locks.append(LockLine(data[at : at + 32], _read_line(data, at + 32, places)))
    read_penalties = []
    for _ in range(penalties):
        at = reader.take(_PENALTY)
        penalty = Penalty(reader.number(at, 2), data[at + 2], reader.number(at + 3, 12))
        if penalty.beneficiary >= places and penalty.beneficiary != BURN:
            raise BadPayload(at, f"place {penalty.beneficiary} of {places} servers")
        if penalty.server >= server_count:
            raise BadPayload(at, f"server {penalty.server} of {server_count} registered")
        read_penalties.append(penalty)
    if reader.at != len(data):
        raise BadPayload(reader.at, f"{len(data) - reader.at} octets behind the end")
    for place, server in enumerate(servers):
        if server.id >= server_count:
            raise BadPayload(table + place * _SERVER, f"server {server.id} of {server_count} registered")
    return Payload(servers, read_sections, tuple(read_locks), tuple(read_penalties))


def payload_hash(data: bytes) -> Digest:
    """Keccak of the packed octets: the Batch's payloadHash."""
    return keccak(data)


def line_amount(line: Line) -> Wei:
    return amount(Fuel(line.fuel), GweiPerMfuel(line.price))


def split(wei: int, lambda_bps: int) -> tuple[Wei, Wei]:
    """(receiver's fee, executor's rest): floor to the receiver, the remainder to the executor, sum exact."""
    fee = wei * lambda_bps // BASIS_POINTS
    return Wei(fee), Wei(wei - fee)


# ---- price in gas (contracts.md 10) ------------------------------------------------------------------------------------

GAS_BASE = 64_000
"""One settle of 4 validators with one header and up to 256 receipts in the block."""
GAS_SECTION = 10_600
GAS_LINE = 456
GAS_LOCK = 6_900
"""One whose lock keeps a remainder; clearing the word earns up to 4,800 back."""
GAS_SERVER = 5_500
GAS_PENALTY = 9_000
"""A server's cold word, read and written, and a log."""
GAS_VALIDATOR = 3_100
"""Each validator above 4."""
GAS_LINK = 4_200
"""Each header behind the first one: 220 octets and their hash."""


def payload_gas(payload: Payload, validators: int = 4, links: int = 0) -> int:
    """What settling this payload costs by the model, within a few per cent of what a chain charges."""
    lines = sum(len(section.lines) for section in payload.sections)
    return (
        GAS_BASE
        + GAS_VALIDATOR * max(0, validators - MIN_VALIDATORS)
        + GAS_LINK * links
        + GAS_SERVER * len(payload.servers)
        + GAS_SECTION * len(payload.sections)
        + GAS_LINE * lines
        + GAS_LOCK * len(payload.locks)
        + GAS_PENALTY * len(payload.penalties)
    )


def fits(payload: Payload, validators: int = 4, links: int = 0) -> bool:
    """Whether nodes take the transaction: octets and gas within the limits of contracts.md 6."""
    octets = (
        _HEAD + _SERVER * len(payload.servers) + _LOCK * len(payload.locks) + _PENALTY * len(payload.penalties)
        + sum(_SECTION + _LINE * len(section.lines) for section in payload.sections)
    )  # fmt: skip
    return octets <= MAX_PAYLOAD and payload_gas(payload, validators, links) <= MAX_GAS


# ---- arguments of contract calls ---------------------------------------------------------------------------------------


def exact_quorum(certificate: Certificate, validators: int) -> Certificate:
    """The certificate with the votes of its q lowest signers only: the contract takes exactly q, a ledger may hold more."""
    spare = len(certificate.signatures) - quorum(validators)
    if spare <= 0:
        return certificate
    bitmap = certificate.bitmap
    for index in reversed(certificate.signers()[-spare:]):
        bitmap ^= 1 << index
    return Certificate(certificate.vote, bitmap, certificate.signatures[:-spare])


class CertificateArguments(NamedTuple):
    """The contract's struct Certificate, in its order; an ABI encoder takes it as it is."""

    view: int
    receipt_height: int
    receipt_index: int
    leaf_index: int
    bitmap: int
    tx_hash: bytes
    headers: bytes
    path: list[bytes]
    signatures: bytes


def certificate_arguments(proof: ReceiptProof) -> CertificateArguments:
    """A receipt's proof as `settle` and `verifyTask` take it; `exact_quorum` trims its certificate before."""
    return CertificateArguments(
        view=proof.certificate.vote.view,
        receipt_height=proof.receipt.height,
        receipt_index=proof.receipt.index,
        leaf_index=proof.leaf,
        bitmap=proof.certificate.bitmap,
        tx_hash=proof.receipt.tx_hash,
        headers=b"".join(header.packed() for header in proof.headers),
        path=list(proof.path),
        signatures=b"".join(proof.certificate.signatures),
    )


def epoch_arguments(
    header: Header, certificate: Certificate, validators: Sequence[bytes], params_hash: bytes
) -> tuple[bytes, int, int, bytes, int, bytes, bytes]:
    """Arguments of `advanceEpoch` for the last header of an epoch and the next validator list."""
    return (
        header.packed(), certificate.vote.view, certificate.bitmap, b"".join(certificate.signatures), header.height + 1,
        b"".join(validators), params_hash,
    )  # fmt: skip
