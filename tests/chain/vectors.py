"""Vectors of everything that is signed or certified, valid and broken, made from a seed (contracts.md 5, ledger.md 15).

The same list is shown to Python (`edgora.crypto.proof`, `recover`) and to the contract; each vector says what both must
answer. `python tests/chain/vectors.py` prints how many there are of each kind.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from edgora.crypto.sign import HALF_ORDER, SigningKey
from edgora.lab.certified import Quorum
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import keccak, merkle_path, merkle_root
from edgora.wire.ledger import Certificate, Header, Kind, Phase, Receipt, ReceiptProof, quorum
from edgora.wire.settlement import Batch, settlement_output

SIZES = (4, 5, 6, 7, 13)
EDGES = {8: (0, 1, 2**64 - 1), 4: (0, 1, 2**32 - 1)}


class CertificateVector(NamedTuple):
    name: str
    size: int
    """Validators of the world it is for."""
    batch: Batch
    proof: ReceiptProof
    valid: bool


class SignatureVector(NamedTuple):
    """A signature, and whom it must recover to: its signer if valid, nobody or somebody else if not."""

    name: str
    signature: bytes
    valid: bool


def _number(draw: random.Random, octets: int) -> int:
    """Edges of the width as often as something inside."""
    return draw.choice((*EDGES[octets], draw.getrandbits(8 * octets)))


def twin(signature: bytes) -> bytes:
    """The same key's other signature over the same digest: (r, n - s, v flipped)."""
    s = 2 * HALF_ORDER + 1 - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes((55 - signature[64],))


SIGNATURE_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "high s": twin,
    "v 0 or 1": lambda s: s[:64] + bytes((s[64] - 27,)),
    "v 29": lambda s: s[:64] + b"\x1d",
    "v flipped": lambda s: s[:64] + bytes((55 - s[64],)),
    "r zero": lambda s: bytes(32) + s[32:],
    "s zero": lambda s: s[:32] + bytes(32) + s[64:],
    "s at half the order plus one": lambda s: s[:32] + (HALF_ORDER + 1).to_bytes(32, "big") + s[64:],
    "r at the order": lambda s: (2 * HALF_ORDER + 1).to_bytes(32, "big") + s[32:],
    "all ones": lambda _: b"\xff" * 65,
    "one bit": lambda s: bytes((s[0] ^ 1,)) + s[1:],
}


def signature_vectors(key: SigningKey, digest: bytes) -> Iterator[SignatureVector]:
    """One valid signature of a digest and every way to spoil it."""
    good = key.sign(digest)
    yield SignatureVector("valid", good, True)
    for name, change in SIGNATURE_CHANGES.items():
        yield SignatureVector(name, change(good), False)


def _header(draw: random.Random, height: int, parent: bytes, root: bytes, count: int) -> Header:
    return Header(
        epoch=0, height=height, parent=parent, tx_root=draw.randbytes(32), tx_count=_number(draw, 4),
        exec_height=_number(draw, 8), state_root=draw.randbytes(32), receipt_root=root, receipt_count=count,
        next_epoch=draw.choice((bytes(32), draw.randbytes(32))), time_ms=_number(draw, 8), proposer=draw.randbytes(20),
    )  # fmt: skip


def _valid(draw: random.Random, consortium: Quorum, chain_id: int, market: bytes) -> tuple[Batch, ReceiptProof, int]:
    size = len(consortium.keys)
    batch = Batch(chain_id, market, _number(draw, 8), draw.randbytes(32), draw.randbytes(32))
    receipt = Receipt(draw.randbytes(32), _number(draw, 8), _number(draw, 4), 0, settlement_output(batch.struct_hash()))
    count = draw.choice((1, 2, 3, 5, 8, 21))
    leaf = draw.randrange(count)
    leaves = [draw.randbytes(32) for _ in range(count)]
    leaves[leaf] = receipt.struct_hash()
    height = draw.choice((0, 1, 2**63, 2**64 - 5))
    headers = [_header(draw, height, draw.randbytes(32), merkle_root(leaves), count)]
    for _ in range(draw.choice((0, 0, 1, 3))):
        headers.append(_header(draw, headers[-1].height + 1, headers[-1].hash, draw.randbytes(32), _number(draw, 4)))
    view = _number(draw, 8)
    signers = draw.sample(range(size), quorum(size))
    certificate = consortium.certificate(headers[-1], view=view, signers=signers)
    return batch, ReceiptProof(receipt, leaf, tuple(merkle_path(leaves, leaf)), tuple(headers), certificate), view


def _broken(
    draw: random.Random, consortium: Quorum, proof: ReceiptProof, view: int
) -> Iterator[tuple[str, ReceiptProof]]:
    replace = msgspec.structs.replace
    own, last, receipt = proof.certificate, proof.headers[-1], proof.receipt
    signers = own.signers()

    def certified(certificate: Certificate) -> ReceiptProof:
        return replace(proof, certificate=certificate)

    def signatures(change: Callable[[bytes], bytes], place: int = 0) -> ReceiptProof:
        changed = list(own.signatures)
        changed[place] = change(changed[place])
        return certified(replace(own, signatures=tuple(changed)))

    def resigned(header: Header) -> ReceiptProof:
        certificate = consortium.certificate(header, view=view, signers=signers)
        return replace(proof, headers=(*proof.headers[:-1], header), certificate=certificate)

    def rooted(changed: Receipt) -> ReceiptProof:
        """Really certified, but another result."""
        header = replace(proof.headers[0], receipt_root=merkle_root([changed.struct_hash()]), receipt_count=1)
        return ReceiptProof(changed, 0, (), (header,), consortium.certificate(header, view=view, signers=signers))

    for name, change in SIGNATURE_CHANGES.items():
        yield name, signatures(change, draw.randrange(len(signers)))
    yield "repeated signature", certified(replace(own, signatures=(own.signatures[0],) * len(signers)))
    yield "signatures out of order", certified(replace(own, signatures=own.signatures[::-1]))
    yield "one vote short", certified(consortium.certificate(last, view=view, signers=signers[1:]))
    yield "votes of mixed views", certified(replace(
        own, signatures=(consortium.certificate(last, view=view ^ 1, signers=signers).signatures[0], *own.signatures[1:])
    ))  # fmt: skip
    yield (
        "prepare votes",
        certified(
            replace(consortium.certificate(last, view=view, signers=signers, phase=Phase.PREPARE), vote=own.vote)
        ),
    )
    elsewhere = Quorum(consortium.keys, Domain.ledger(8, keccak(b"another genesis")))
    yield "another domain", certified(elsewhere.certificate(last, view=view, signers=signers))
    strangers = Quorum(
        tuple(SigningKey.derived(f"stranger {i}") for i in range(len(consortium.keys))), consortium.domain
    )
    yield "strangers' votes", certified(strangers.certificate(last, view=view, signers=signers))
    yield "bitmap moved", certified(replace(own, bitmap=own.bitmap << 1))
    yield (
        "bitmap beyond the set",
        certified(replace(own, bitmap=own.bitmap & ~(1 << signers[-1]) | 1 << len(consortium.keys))),
    )
    yield "another epoch", resigned(replace(last, epoch=1))
    if len(proof.headers) > 1:
        yield "parent changed", resigned(replace(last, parent=draw.randbytes(32)))
        yield "height skipped", resigned(replace(last, height=last.height ^ 2))
        yield "link missing", replace(proof, headers=(proof.headers[0], *proof.headers[2:]))
    yield "header changed", replace(proof, headers=(*proof.headers[:-1], replace(last, time_ms=last.time_ms ^ 1)))
    for code in (1, 2**16 - 1):
        yield f"receipt code {code}", rooted(replace(receipt, code=code))
    for kind in (Kind.TASK, Kind.RESULT_HASH):
        yield f"output of kind {kind}", rooted(replace(receipt, output=kind.to_bytes(2, "big") + receipt.output[2:]))
    yield "output with a tail", rooted(replace(receipt, output=receipt.output + b"\0"))
    yield "receipt height", replace(proof, receipt=replace(receipt, height=receipt.height ^ 1))
    yield "receipt index", replace(proof, receipt=replace(receipt, index=receipt.index ^ 1))
    yield "leaf moved", replace(proof, leaf=proof.leaf ^ 1)
    yield "leaf beyond the count", replace(proof, leaf=proof.headers[0].receipt_count)
    yield "path too long", replace(proof, path=(*proof.path, draw.randbytes(32)))
    if proof.path:
        yield "path too short", replace(proof, path=proof.path[1:])
        yield "path changed", replace(proof, path=(draw.randbytes(32), *proof.path[1:]))


def certificate_vectors(
    consortia: dict[int, Quorum], chain_id: int, markets: dict[int, bytes], seed: int = 2
) -> Iterator[CertificateVector]:
    """For each size of consortium some valid proofs and every way to spoil each."""
    draw = random.Random(seed)
    for size, consortium in consortia.items():
        for number in range(2):
            batch, proof, view = _valid(draw, consortium, chain_id, markets[size])
            yield CertificateVector(f"valid {size}.{number}", size, batch, proof, True)
            for name, broken in _broken(draw, consortium, proof, view):
                yield CertificateVector(f"{name} {size}.{number}", size, batch, broken, False)
        for number in range(2, 12):
            batch, proof, _ = _valid(draw, consortium, chain_id, markets[size])
            yield CertificateVector(f"valid {size}.{number}", size, batch, proof, True)


if __name__ == "__main__":
    domain = Domain.ledger(7, keccak(b"edgora test genesis"))
    made = {size: Quorum(tuple(SigningKey.derived(f"validator {i}") for i in range(size)), domain) for size in SIZES}
    vectors = list(certificate_vectors(made, 31337, dict.fromkeys(SIZES, bytes(20))))
    print(sum(v.valid for v in vectors), "valid and", sum(not v.valid for v in vectors), "broken certificates")
