"""Attacks of contracts.md 11 on what is certified: replay, order, validator sets, certificates, imitations."""

import msgspec
import pytest

from chain.certify import quorum_of
from chain.evm_world import (
    AMOUNT,
    CHAIN_ID,
    LINE,
    OFFER,
    RICH,
    ROWS,
    START_S,
    Refused,
    World,
)
from chain.vectors import twin
from edgora.crypto.sign import SigningKey
from edgora.wire.hashing import keccak, merkle_root
from edgora.wire.ledger import Kind, Phase, Receipt, Vote, quorum
from edgora.wire.settlement import (
    BURN,
    Batch,
    Exit,
    Line,
    LockLine,
    Payload,
    Penalty,
    Section,
    encode_payload,
    payload_hash,
    settlement_output,
    split,
    task_root,
)


@pytest.fixture
def world() -> World:
    return World()


def refused(world: World, rule: str, *arguments: object, **named: object) -> Refused:
    with pytest.raises(Refused) as caught:
        world.settle(*arguments, **named)  # type: ignore[arg-type]
    assert caught.value.rule == rule, caught.value
    return caught.value


# ---- replay ------------------------------------------------------------------------------------------------------------


def test_a_batch_pays_once_and_says_so(world: World) -> None:
    ue = world.ue("ue")
    certified = world.certified(world.one_section(ue))
    world.settle(certified)
    assert world.named("BatchSettled") == [(1, certified.task_root, AMOUNT)]
    assert world.view("account", ue.address)[:2] == (10**18 - AMOUNT, AMOUNT)
    fee, rest = split(AMOUNT, 1_000)
    assert [world.view("earned", id) for id in (0, 1)] == [(fee, 1_000, 900, 0), (rest, 2_000, 2_500, 1)]
    assert refused(world, "SettlementOutOfOrder", certified).values == (1, 2)


def test_replay_of_a_batch_under_another_number_is_refused(world: World) -> None:
    certified = world.certified(world.one_section(world.ue("ue")))
    world.settle(certified)
    refused(world, "SettlementBadReceipt", certified._replace(batch_id=2))


def test_batch_certified_for_another_deployment_is_refused(world: World) -> None:
    other = World(deployer="another deployer")
    payload = world.one_section(world.ue("ue"))
    refused(world, "SettlementBadReceipt", other.certified(payload))


def test_batch_certified_for_another_chain_is_refused(world: World) -> None:
    other = World(chain_id=1)
    assert other.market == world.market
    refused(world, "SettlementBadReceipt", other.certified(world.one_section(world.ue("ue"))))


def test_batch_of_a_fresh_dev_chain_with_equal_address_and_chain_id_is_refused(world: World) -> None:
    other = World(genesis=keccak(b"the dev chain was reset"))
    assert (other.market, other.chain_id) == (world.market, CHAIN_ID)
    refused(world, "LedgerProofBadSigner", other.certified(world.one_section(world.ue("ue"))))


def test_voucher_for_another_deployment_is_skipped(world: World) -> None:
    ue = world.ue("ue")
    other = World(genesis=keccak(b"the dev chain was reset"))
    world.settle(Payload(ROWS, (other.section(ue, [LINE]),)))
    assert len(world.named("SectionSkipped")) == 1
    assert world.view("account", ue.address)[0] == 10**18


def test_voucher_replayed_in_a_later_batch_pays_nothing_beyond_its_cap(world: World) -> None:
    ue = world.ue("ue")
    section = world.section(ue, [LINE], cap=AMOUNT)
    world.settle(Payload(ROWS, (section,)))
    world.settle(Payload(ROWS, (section,)))
    assert world.named("SectionSkipped") == [(2, ue.address, AMOUNT)]
    assert world.view("account", ue.address)[:2] == (10**18 - AMOUNT, AMOUNT)


# ---- duplicate claim, order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_id", [0, 2, 2**64 - 1])
def test_batch_out_of_order_is_refused(world: World, batch_id: int) -> None:
    ue = world.ue("ue")
    error = refused(world, "SettlementOutOfOrder", world.certified(world.one_section(ue), batch_id=batch_id))
    assert error.values == (batch_id, 1)


def test_a_lock_pays_once_and_its_remainder_only_goes_back(world: World) -> None:
    ue = SigningKey.derived("lock ue")
    key = world.lock(ue, OFFER, AMOUNT + 7)
    world.settle(Payload(ROWS, (), (LockLine(key, LINE), LockLine(key, Line(0, 0, 0, 0)))))
    assert world.named("LockSkipped") == [(1, key)]
    assert world.view("lockOf", key) == (7, 0)
    world.settle(Payload(ROWS, (), (LockLine(key, Line(0, 0, 0, 1)),)))
    assert world.named("LockSkipped") == [(2, key)]
    before = world.balance(ue.address)
    world.send(RICH, "refund", ue.address, OFFER)
    assert world.balance(ue.address) == before + 7
    with pytest.raises(Refused, match="OfferUnknown"):
        world.send(RICH, "refund", ue.address, OFFER)


def test_a_lock_used_up_is_gone(world: World) -> None:
    key = world.lock(SigningKey.derived("lock ue"), OFFER, AMOUNT)
    world.settle(Payload(ROWS, (), (LockLine(key, LINE), LockLine(key, LINE))))
    assert world.view("lockOf", key) == (0, 0)
    assert world.named("LockSkipped") == [(1, key)]
    assert world.named("BatchSettled")[0][2] == AMOUNT


def test_open_never_overwrites_a_lock(world: World) -> None:
    ue = SigningKey.derived("lock ue")
    key = world.lock(ue, OFFER, AMOUNT)
    with pytest.raises(Refused, match="OfferOpen"):
        world.send(ue, "open", OFFER, world.now + 600, wei=1)
    assert world.view("lockOf", key)[0] == AMOUNT


# ---- validator sets ----------------------------------------------------------------------------------------------------


def test_certificate_of_the_old_validators_is_dead_after_the_hand_over(world: World) -> None:
    ue, old = world.ue("ue"), world.quorum
    following = [SigningKey.derived(f"newcomer {index}") for index in range(5)]
    for key in following:
        world.register(key)
    stale = world.certified(world.one_section(ue))
    world.advance(following)
    assert [values[:2] for values in world.named("EpochAdvanced")] == [(1, 2_048)]
    assert refused(world, "ConsortiumWrongEpoch", stale).values == (0, 1)
    forged = world.certified(world.one_section(ue), quorum=type(old)(old.keys, old.domain, 1))
    refused(world, "LedgerProofBadQuorum", forged)
    world.settle(world.one_section(ue))
    assert world.named("BatchSettled")


def test_block_of_the_old_epoch_is_proven_by_links_into_the_new_one(world: World) -> None:
    ue, old = world.ue("ue"), world.quorum
    world.advance(list(old.keys[::-1]))
    payload = world.one_section(ue)
    batch = Batch(CHAIN_ID, world.market, 1, task_root([]), payload_hash(encode_payload(payload)))
    proof = old.settlement(batch, height=2_045)
    child = world.quorum.header(proof.headers[0].height + 1, parent=proof.headers[0].hash)
    linked = msgspec.structs.replace(
        proof, headers=(*proof.headers, child), certificate=world.quorum.certificate(child)
    )
    world.settle(world.certified(payload)._replace(proof=linked))


def test_validators_must_be_registered_staked_and_staying(world: World) -> None:
    keys = [SigningKey.derived(f"newcomer {index}") for index in range(4)]
    with pytest.raises(Refused, match="UnknownServer"):
        world.advance(keys)
    ids = [world.register(key) for key in keys]
    with pytest.raises(Refused, match="BadValidators"):
        world.advance([*keys[:3], keys[0]])
    with pytest.raises(Refused, match="BadValidators"):
        world.advance(keys[:3])
    world.send(keys[1], "unbond", ids[1])
    with pytest.raises(Refused, match="BadStake"):
        world.advance(keys)
    liar = keys[2]
    votes = [(block, liar.sign(Vote(2, 0, 1, 9, block).digest(world.quorum.domain))) for block in (OFFER, bytes(32))]
    world.send(RICH, "slash", 2, 0, 1, 9, *votes[0], *votes[1])
    with pytest.raises(Refused, match="BadStake"):
        world.advance([keys[0], liar, *world.quorum.keys[:2]])
    world.advance([keys[0], *world.quorum.keys[:3]])


def test_hand_over_needs_the_announced_epoch(world: World) -> None:
    keys = list(world.quorum.keys[::-1])
    addresses = [key.address for key in keys]
    header, certificate = world.quorum.hand_over(2_047, addresses, keccak(b"params"))
    good = [
        header.packed(), 0, certificate.bitmap, b"".join(certificate.signatures), 2_048, b"".join(addresses),
        keccak(b"params"),
    ]  # fmt: skip
    for place, wrong in ((4, 2_049), (5, b"".join(addresses[::-1])), (6, bytes(32))):
        changed = [*good]
        changed[place] = wrong
        with pytest.raises(Refused, match="ConsortiumBadHeader"):
            world.send(RICH, "advanceEpoch", *changed)
    world.send(RICH, "advanceEpoch", *good)
    assert world.view("head")[1] == 1
    with pytest.raises(Refused, match="WrongEpoch"):
        world.send(RICH, "advanceEpoch", *good)


# ---- certificates ------------------------------------------------------------------------------------------------------


def test_votes_of_mixed_views_never_add_up(world: World) -> None:
    certified = world.certified(world.one_section(world.ue("ue")))
    last = certified.proof.headers[-1]
    other = world.quorum.certificate(last, view=1).signatures
    own = certified.proof.certificate
    mixed = msgspec.structs.replace(own, signatures=(own.signatures[0], own.signatures[1], other[2]))
    proof = msgspec.structs.replace(certified.proof, certificate=mixed)
    assert refused(world, "LedgerProofBadSigner", certified._replace(proof=proof)).values == (2,)


def test_prepare_votes_are_no_commit_certificate(world: World) -> None:
    certified = world.certified(world.one_section(world.ue("ue")))
    prepared = world.quorum.certificate(certified.proof.headers[-1], phase=Phase.PREPARE)
    proof = msgspec.structs.replace(certified.proof, certificate=prepared)
    refused(world, "LedgerProofBadSigner", certified._replace(proof=proof))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("high s", twin),
        ("v of 0 or 1", lambda signature: signature[:64] + bytes((signature[64] - 27,))),
        ("v of EIP-155", lambda signature: signature[:64] + bytes((signature[64] + 10,))),
        ("r of zero", lambda signature: bytes(32) + signature[32:]),
        ("s of zero", lambda signature: signature[:32] + bytes(32) + signature[64:]),
    ],
)
def test_malleable_signatures_are_nobodys(world: World, what: str, change) -> None:
    ue = world.ue("ue")
    certified = world.certified(world.one_section(ue))
    own = certified.proof.certificate
    malleated = msgspec.structs.replace(own, signatures=(change(own.signatures[0]), *own.signatures[1:]))
    proof = msgspec.structs.replace(certified.proof, certificate=malleated)
    assert refused(world, "LedgerProofBadSigner", certified._replace(proof=proof)).values == (0,), what
    section = world.section(ue, [LINE])
    world.settle(Payload(ROWS, (section._replace(signature=change(section.signature)),)))
    assert world.named("SectionSkipped") == [(1, bytes(20), AMOUNT)]
    exit_ = Exit(0, START_S + 60)
    signature = change(ue.sign(exit_.digest(world.domain)))
    with pytest.raises(Refused, match="BadSignature"):
        world.send(RICH, "requestExitFor", ue.address, exit_.valid_until, signature)


def test_short_and_long_signatures_are_nobodys(world: World) -> None:
    ue = world.ue("ue")
    exit_ = Exit(0, START_S + 60)
    signature = ue.sign(exit_.digest(world.domain))
    for bad in (signature[:64], signature + b"\0", b""):
        with pytest.raises(Refused, match="BadSignature"):
            world.send(RICH, "requestExitFor", ue.address, exit_.valid_until, bad)
    world.send(RICH, "requestExitFor", ue.address, exit_.valid_until, signature)


def test_exit_for_the_zero_address_cannot_be_forged_with_garbage(world: World) -> None:
    world.send(RICH, "depositFor", bytes(20), wei=5)
    with pytest.raises(Refused, match="BadSignature"):
        world.send(RICH, "requestExitFor", bytes(20), START_S + 60, bytes(65))
    world.settle(Payload(ROWS, (Section(bytes(65), 10**18, START_S + 60, (Line(0, 0, 0, 1),)),)))
    assert world.named("SectionSkipped") == [(1, bytes(20), 0)]


@pytest.mark.parametrize("size", [4, 5, 6, 7, 13])
def test_exactly_a_quorum_of_distinct_signers(size: int) -> None:
    world = World(validators=size, registered=2)
    needed = quorum(size)
    certified = world.certified(world.one_section(world.ue("ue")))
    header = certified.proof.headers[-1]

    def with_signers(*signers: int) -> object:
        certificate = world.quorum.certificate(header, signers=signers)
        return certified._replace(proof=msgspec.structs.replace(certified.proof, certificate=certificate))

    for count in (needed - 1, needed + 1):
        if count <= size:
            refused(world, "LedgerProofBadQuorum", with_signers(*range(count)))
    own = certified.proof.certificate
    repeated = msgspec.structs.replace(own, signatures=(own.signatures[0],) * needed)
    refused(world, "LedgerProofBadSigner", certified._replace(
        proof=msgspec.structs.replace(certified.proof, certificate=repeated)))  # fmt: skip
    for bitmap in (own.bitmap << 1, own.bitmap | 1 << size, own.bitmap & ~1, own.bitmap | 1 << (size - 1)):
        changed = msgspec.structs.replace(own, bitmap=bitmap)
        with pytest.raises(Refused, match="LedgerProof"):
            world.settle(certified._replace(proof=msgspec.structs.replace(certified.proof, certificate=changed)))
    world.settle(with_signers(*range(size - needed, size)))  # type: ignore[arg-type]


def test_header_links_must_hold(world: World) -> None:
    payload = world.one_section(world.ue("ue"))
    certified = world.certified(payload, links=2)
    proof = certified.proof
    stranger = world.quorum.header(proof.headers[1].height)
    broken = msgspec.structs.replace(proof, headers=(proof.headers[0], stranger, proof.headers[2]))
    assert refused(world, "LedgerProofBadLink", certified._replace(proof=broken)).values == (1,)
    for wrong in ((), proof.headers * 22):
        headers = msgspec.structs.replace(proof, headers=wrong)
        with pytest.raises(Refused, match="LedgerProofBad"):
            world.settle(certified._replace(proof=headers))
    # A child that skips a height, although it names its parent's hash and a quorum signed it.
    gap = world.quorum.header(proof.headers[0].height + 2, parent=proof.headers[0].hash)
    skipping = msgspec.structs.replace(
        proof, headers=(proof.headers[0], gap), certificate=world.quorum.certificate(gap)
    )
    refused(world, "LedgerProofBadLink", certified._replace(proof=skipping))
    world.settle(certified)


def test_as_many_links_as_the_contract_takes(world: World) -> None:
    payload = world.one_section(world.ue("ue"))
    refused(world, "LedgerProofBadHeader", world.certified(payload, links=64))
    world.settle(world.certified(payload, links=63))


# ---- imitated settlements ----------------------------------------------------------------------------------------------


def imitation(world: World, payload: Payload, output: bytes, *, code: int = 0) -> object:
    certified = world.certified(payload)
    return certified._replace(proof=world.quorum.receipt_proof(output, code=code))


def test_receipt_of_a_refused_settlement_pays_nothing(world: World) -> None:
    payload = world.one_section(world.ue("ue"))
    batch = Batch(CHAIN_ID, world.market, 1, task_root([]), payload_hash(encode_payload(payload))).struct_hash()
    for code in (1, 16, 2**16 - 1):
        refused(world, "SettlementBadReceipt", imitation(world, payload, settlement_output(batch), code=code))
    world.settle(imitation(world, payload, settlement_output(batch)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.SETTLEMENT])
def test_output_of_another_kind_is_no_settlement(world: World, kind: Kind) -> None:
    payload = world.one_section(world.ue("ue"))
    batch = Batch(CHAIN_ID, world.market, 1, task_root([]), payload_hash(encode_payload(payload))).struct_hash()
    refused(world, "SettlementBadReceipt", imitation(world, payload, kind.to_bytes(2, "big") + batch))


def test_transaction_in_a_block_is_no_receipt(world: World) -> None:
    """A proof against txRoot: the receipt's hash stands among the transactions of a certified block."""
    payload = world.one_section(world.ue("ue"))
    certified = world.certified(payload)
    receipt = certified.proof.receipt.struct_hash()
    header = msgspec.structs.replace(world.quorum.header(1_001), tx_root=merkle_root([receipt]), tx_count=1)
    proof = msgspec.structs.replace(
        certified.proof, headers=(header,), certificate=world.quorum.certificate(header), path=()
    )
    refused(world, "SettlementBadReceipt", certified._replace(proof=proof))


def test_inner_node_is_no_leaf(world: World) -> None:
    """A receipt tree whose root is H(0x01 || left || right) where left || right begins like a leaf would."""
    payload = world.one_section(world.ue("ue"))
    certified = world.certified(payload, receipts=4, leaf=0)
    proof = certified.proof
    for index, path in ((0, proof.path[1:]), (0, proof.path[:1]), (1, proof.path), (4, proof.path), (2, proof.path)):
        changed = msgspec.structs.replace(proof, leaf=index, path=tuple(path))
        refused(world, "SettlementBadReceipt", certified._replace(proof=changed))
    alone = world.certified(payload)
    beyond = msgspec.structs.replace(alone.proof, leaf=1)
    refused(world, "SettlementBadReceipt", alone._replace(proof=beyond))
    longer = msgspec.structs.replace(proof, path=(*proof.path, bytes(32)))
    refused(world, "SettlementBadReceipt", certified._replace(proof=longer))
    world.settle(certified)


def test_receipt_of_another_block_or_place_is_refused(world: World) -> None:
    certified = world.certified(world.one_section(world.ue("ue")))
    for change in ({"height": 999}, {"index": 1}, {"tx_hash": bytes(32)}):
        receipt = msgspec.structs.replace(certified.proof.receipt, **change)
        proof = msgspec.structs.replace(certified.proof, receipt=receipt)
        refused(world, "SettlementBadReceipt", certified._replace(proof=proof))


# ---- malformed payloads ------------------------------------------------------------------------------------------------


def test_malformed_payload_reverts_whole_and_another_may_take_its_number(world: World) -> None:
    ue = world.ue("ue")
    good = encode_payload(world.one_section(ue))
    lines = 26 + 83
    broken = {
        "a tail": (good + b"\0", len(good)),
        "cut off": (good[:-1], 26),
        "a place beyond the table": (good[: lines + 1] + b"\x02" + good[lines + 2 :], lines),
        "a server that never registered": (good[:16] + b"\x00\x04" + good[18:], 16),
        "no counts": (good[:5], 0),
        "no table": (good[:20], 6),
    }
    for what, (packed, offset) in broken.items():
        error = refused(world, "SettlementBadPayload", packed)
        assert error.values == (offset,), what
        assert world.view("account", ue.address)[:2] == (10**18, 0)
    fined = encode_payload(Payload(ROWS, (), (), (Penalty(4, BURN, 1),)))
    assert refused(world, "SettlementBadPayload", fined).values == (26,)
    world.settle(good)


# ---- construction ------------------------------------------------------------------------------------------------------


def test_constructor_refuses_what_would_never_work() -> None:
    for broken in ({"validators": 3}, {"validators": 65}, {"lambda_bps": 10_001}):
        with pytest.raises(RuntimeError):
            World(**broken, registered=0)
    assert World(validators=64, registered=0).view("head")[1:] == (0, 0)


def test_receipt_struct_is_the_ledgers() -> None:
    """The literal in the contract and the type in Python are one; this pins the field order that both use."""
    assert Receipt.TYPE == "Receipt(bytes32 txHash,uint64 height,uint32 index,uint16 code,bytes output)"
    assert quorum_of(4, World(registered=0).quorum.domain).addresses[0] == SigningKey.derived("validator 0").address
