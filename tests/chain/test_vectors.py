"""Python and the contract answer every vector alike, and as the vector says (contracts.md 5, ledger.md 15)."""

import pytest

from chain.evm_world import RICH, START_S, Refused, World, refusal_of
from chain.vectors import SIZES, CertificateVector, certificate_vectors, signature_vectors
from edgora.crypto.proof import check_receipt_proof
from edgora.crypto.sign import SigningKey, recover
from edgora.wire.hashing import keccak
from edgora.wire.settlement import (
    Batch,
    Exit,
    Line,
    Payload,
    Section,
    ServerRow,
    Voucher,
    certificate_arguments,
    lock_key,
    settlement_output,
)

EDGE_CAPS = (0, 1, 10**18, 2**64, 2**96 - 1)


@pytest.fixture(scope="module")
def worlds() -> dict[int, World]:
    return {size: World(validators=size, registered=2 if size == 4 else 0) for size in SIZES}


def test_there_are_enough_vectors_of_both_kinds(worlds: dict[int, World]) -> None:
    consortia = {size: world.quorum for size, world in worlds.items()}
    markets = {size: world.market for size, world in worlds.items()}
    answers = [v.valid for v in certificate_vectors(consortia, 31337, markets)]
    assert sum(answers) >= 30
    assert answers.count(False) >= 200


def contract_accepts(world: World, vector: CertificateVector) -> bool:
    """By verifyTask, with a batch whose one task is its root. A refusal must be one of the proof's own errors."""
    batch = vector.batch
    arguments = (batch.batch_id, batch.task_root, batch.payload_hash, certificate_arguments(vector.proof))
    refused = refusal_of(lambda: world.view("verifyTask", *arguments, batch.task_root, 0, 1, []))
    assert refused is None or refused.rule.startswith(("LedgerProof", "Settlement", "Consortium")), vector.name
    return refused is None and world.view("verifyTask", *arguments, batch.task_root, 0, 1, []) is True


def test_certificates(worlds: dict[int, World]) -> None:
    consortia = {size: world.quorum for size, world in worlds.items()}
    markets = {size: world.market for size, world in worlds.items()}
    for vector in certificate_vectors(consortia, 31337, markets):
        world, batch, proof = worlds[vector.size], vector.batch, vector.proof
        accepted = (
            check_receipt_proof(proof, world.quorum.addresses, world.quorum.domain) is None
            and proof.receipt.code == 0
            and proof.receipt.output == settlement_output(batch.struct_hash())
        )
        assert accepted is vector.valid, vector.name
        assert contract_accepts(world, vector) is vector.valid, vector.name


@pytest.mark.parametrize("cap", EDGE_CAPS)
@pytest.mark.parametrize("ahead", [0, 2**40 - 1 - START_S])
def test_vouchers(worlds: dict[int, World], cap: int, ahead: int) -> None:
    world = worlds[4]
    ue = world.ue(f"voucher ue {cap} {ahead}", wei=10**6)
    voucher = Voucher(cap, world.now + ahead)
    digest = voucher.digest(world.domain)
    for vector in signature_vectors(ue, digest):
        assert (recover(digest, vector.signature) == ue.address) is vector.valid, vector.name
        section = Section(vector.signature, cap, voucher.valid_until, (Line(0, 0, 0, 0), Line(0, 0, 1, 0)))
        world.settle(Payload((ServerRow(0, 1, 1),), (section,)))
        skipped = [ue_ for _, ue_, _ in world.named("SectionSkipped")]
        # Paid to the wei, nothing: only who signed decides here. A wrong recovery has no deposit, but owes nothing.
        signer = recover(digest, vector.signature)
        assert skipped == ([] if signer != bytes(20) else [bytes(20)]), vector.name
    before = world.view("account", ue.address)[1]
    for vector in signature_vectors(ue, digest):
        section = Section(vector.signature, cap, voucher.valid_until, (Line(0, 0, 1, 1),))
        world.settle(Payload((ServerRow(0, 1, 1),), (section,)))
        paid = vector.valid and cap >= 1_000
        assert (world.named("BatchSettled")[0][2] > 0) is paid, vector.name
        before += 1_000 * paid
        assert world.view("account", ue.address)[1] == before, vector.name


@pytest.mark.parametrize("nonce", [0, 1, 2**24 - 2])
def test_exits(worlds: dict[int, World], nonce: int) -> None:
    world = worlds[4]
    ue = world.ue(f"exit ue {nonce}", wei=1)
    slot = int.from_bytes(keccak(bytes(12) + ue.address + (5).to_bytes(32, "big")), "big")
    world.evm.insert_account_storage("0x" + world.market.hex(), slot, 1 | nonce << 232)
    exit_ = Exit(nonce, world.now + 100)
    digest = exit_.digest(world.domain)
    for vector in sorted(signature_vectors(ue, digest), key=lambda v: v.valid):
        assert (recover(digest, vector.signature) == ue.address) is vector.valid, vector.name
        arguments = (ue.address, exit_.valid_until, vector.signature)
        if vector.valid:
            world.send(RICH, "requestExitFor", *arguments)
            assert world.view("account", ue.address)[3] == nonce + 1
        else:
            with pytest.raises(Refused, match="BadSignature"):
                world.send(RICH, "requestExitFor", *arguments)


def test_hashes_without_signatures(worlds: dict[int, World]) -> None:
    for size, world in worlds.items():
        assert world.view("domainSeparator") == world.domain.separator
        for number in (0, 1, 2**64 - 1):
            root, payload = keccak(bytes([size])), keccak(number.to_bytes(8, "big"))
            batch = Batch(31337, world.market, number, root, payload)
            assert world.view("batchHash", number, root, payload) == batch.struct_hash()
    for label in ("a", "b"):
        ue = SigningKey.derived(label).address
        assert worlds[4].view("lockKey", ue, keccak(ue)) == lock_key(ue, keccak(ue))
