"""Every attack of contracts.md 11, by name, against the deployed code."""

import msgspec
import pytest
from chain.certify import quorum_of
from chain.evm_world import CHAIN_ID, EXIT_DELAY_S, RICH, STAKE, START_S, Refused, World, hexed

from edgora.crypto.sign import HALF_ORDER, SigningKey
from edgora.wire.hashing import keccak, merkle_path, merkle_root
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
    ServerRow,
    TaskLeaf,
    certificate_arguments,
    encode_payload,
    line_amount,
    lock_key,
    payload_hash,
    settlement_output,
    split,
    task_root,
)

ORDER = 2 * HALF_ORDER + 1
ROWS = (ServerRow(0, 1_000, 900), ServerRow(1, 2_000, 2_500))
LINE = Line(0, 1, 10**6, 50)
AMOUNT = line_amount(LINE)
OFFER = keccak(b"offer")


@pytest.fixture
def world() -> World:
    return World()


def one_section(world: World, key: SigningKey, *lines: Line, **terms: int) -> Payload:
    return Payload(ROWS, (world.section(key, lines or (LINE,), **terms),))


def refused(world: World, rule: str, *arguments: object, **named: object) -> Refused:
    with pytest.raises(Refused) as caught:
        world.settle(*arguments, **named)  # type: ignore[arg-type]
    assert caught.value.rule == rule, caught.value
    return caught.value


# ---- replay ------------------------------------------------------------------------------------------------------------


def test_a_batch_pays_once_and_says_so(world: World) -> None:
    ue = world.ue("ue")
    certified = world.certified(one_section(world, ue))
    world.settle(certified)
    assert world.named("BatchSettled") == [(1, certified.task_root, AMOUNT)]
    assert world.view("account", ue.address)[:2] == (10**18 - AMOUNT, AMOUNT)
    fee, rest = split(AMOUNT, 1_000)
    assert [world.view("earned", id) for id in (0, 1)] == [(fee, 1_000, 900, 0), (rest, 2_000, 2_500, 1)]
    assert refused(world, "SettlementOutOfOrder", certified).values == (1, 2)


def test_replay_of_a_batch_under_another_number_is_refused(world: World) -> None:
    certified = world.certified(one_section(world, world.ue("ue")))
    world.settle(certified)
    refused(world, "SettlementBadReceipt", certified._replace(batch_id=2))


def test_batch_certified_for_another_deployment_is_refused(world: World) -> None:
    other = World(deployer="another deployer")
    payload = one_section(world, world.ue("ue"))
    refused(world, "SettlementBadReceipt", other.certified(payload))


def test_batch_certified_for_another_chain_is_refused(world: World) -> None:
    other = World(chain_id=1)
    assert other.market == world.market
    refused(world, "SettlementBadReceipt", other.certified(one_section(world, world.ue("ue"))))


def test_batch_of_a_fresh_dev_chain_with_equal_address_and_chain_id_is_refused(world: World) -> None:
    other = World(genesis=keccak(b"the dev chain was reset"))
    assert (other.market, other.chain_id) == (world.market, CHAIN_ID)
    refused(world, "LedgerProofBadSigner", other.certified(one_section(world, world.ue("ue"))))


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
    error = refused(world, "SettlementOutOfOrder", world.certified(one_section(world, ue), batch_id=batch_id))
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
    stale = world.certified(one_section(world, ue))
    world.advance(following)
    assert [values[:2] for values in world.named("EpochAdvanced")] == [(1, 2_048)]
    assert refused(world, "ConsortiumWrongEpoch", stale).values == (0, 1)
    forged = world.certified(one_section(world, ue), quorum=type(old)(old.keys, old.domain, 1))
    refused(world, "LedgerProofBadQuorum", forged)
    world.settle(one_section(world, ue))
    assert world.named("BatchSettled")


def test_block_of_the_old_epoch_is_proven_by_links_into_the_new_one(world: World) -> None:
    ue, old = world.ue("ue"), world.quorum
    world.advance(list(old.keys[::-1]))
    payload = one_section(world, ue)
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
    certified = world.certified(one_section(world, world.ue("ue")))
    last = certified.proof.headers[-1]
    other = world.quorum.certificate(last, view=1).signatures
    own = certified.proof.certificate
    mixed = msgspec.structs.replace(own, signatures=(own.signatures[0], own.signatures[1], other[2]))
    proof = msgspec.structs.replace(certified.proof, certificate=mixed)
    assert refused(world, "LedgerProofBadSigner", certified._replace(proof=proof)).values == (2,)


def test_prepare_votes_are_no_commit_certificate(world: World) -> None:
    certified = world.certified(one_section(world, world.ue("ue")))
    prepared = world.quorum.certificate(certified.proof.headers[-1], phase=Phase.PREPARE)
    proof = msgspec.structs.replace(certified.proof, certificate=prepared)
    refused(world, "LedgerProofBadSigner", certified._replace(proof=proof))


def twin(signature: bytes) -> bytes:
    """The other valid signature of the same key over the same digest: (r, n - s, v flipped)."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes((55 - signature[64],))


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
def test_malleable_signatures_are_nobodys(world: World, what: str, change) -> None:  # noqa: ANN001
    ue = world.ue("ue")
    certified = world.certified(one_section(world, ue))
    own = certified.proof.certificate
    malleated = msgspec.structs.replace(own, signatures=(change(own.signatures[0]), *own.signatures[1:]))
    proof = msgspec.structs.replace(certified.proof, certificate=malleated)
    assert refused(world, "LedgerProofBadSigner", certified._replace(proof=proof)).values == (0,), what
    section = world.section(ue, [LINE])
    world.settle(Payload(ROWS, (section._replace(signature=change(section.signature)),)))
    assert world.named("SectionSkipped") == [(1, bytes(20), AMOUNT)]
    exit_ = Exit(0, START_S + 60)
    with pytest.raises(Refused, match="BadSignature"):
        signature = change(ue.sign(exit_.digest(world.domain)))
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
    certified = world.certified(one_section(world, world.ue("ue")))
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
    payload = one_section(world, world.ue("ue"))
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
    payload = one_section(world, world.ue("ue"))
    refused(world, "LedgerProofBadHeader", world.certified(payload, links=64))
    world.settle(world.certified(payload, links=63))


# ---- imitated settlements ----------------------------------------------------------------------------------------------


def imitation(world: World, payload: Payload, output: bytes, *, code: int = 0) -> object:
    certified = world.certified(payload)
    return certified._replace(proof=world.quorum.receipt_proof(output, code=code))


def test_receipt_of_a_refused_settlement_pays_nothing(world: World) -> None:
    payload = one_section(world, world.ue("ue"))
    batch = Batch(CHAIN_ID, world.market, 1, task_root([]), payload_hash(encode_payload(payload))).struct_hash()
    for code in (1, 16, 2**16 - 1):
        refused(world, "SettlementBadReceipt", imitation(world, payload, settlement_output(batch), code=code))
    world.settle(imitation(world, payload, settlement_output(batch)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.SETTLEMENT])
def test_output_of_another_kind_is_no_settlement(world: World, kind: Kind) -> None:
    payload = one_section(world, world.ue("ue"))
    batch = Batch(CHAIN_ID, world.market, 1, task_root([]), payload_hash(encode_payload(payload))).struct_hash()
    refused(world, "SettlementBadReceipt", imitation(world, payload, kind.to_bytes(2, "big") + batch))


def test_transaction_in_a_block_is_no_receipt(world: World) -> None:
    """A proof against txRoot: the receipt's hash stands among the transactions of a certified block."""
    payload = one_section(world, world.ue("ue"))
    certified = world.certified(payload)
    receipt = certified.proof.receipt.struct_hash()
    header = msgspec.structs.replace(world.quorum.header(1_001), tx_root=merkle_root([receipt]), tx_count=1)
    proof = msgspec.structs.replace(
        certified.proof, headers=(header,), certificate=world.quorum.certificate(header), path=()
    )
    refused(world, "SettlementBadReceipt", certified._replace(proof=proof))


def test_inner_node_is_no_leaf(world: World) -> None:
    """A receipt tree whose root is H(0x01 || left || right) where left || right begins like a leaf would."""
    payload = one_section(world, world.ue("ue"))
    certified = world.certified(payload, receipts=4, leaf=0)
    proof = certified.proof
    for index, path in ((0, proof.path[1:]), (0, proof.path[:1]), (1, proof.path), (4, proof.path), (2, proof.path)):
        changed = msgspec.structs.replace(proof, leaf=index, path=tuple(path))
        refused(world, "SettlementBadReceipt", certified._replace(proof=changed))
    longer = msgspec.structs.replace(proof, path=(*proof.path, bytes(32)))
    refused(world, "SettlementBadReceipt", certified._replace(proof=longer))
    world.settle(certified)


def test_receipt_of_another_block_or_place_is_refused(world: World) -> None:
    certified = world.certified(one_section(world, world.ue("ue")))
    for change in ({"height": 999}, {"index": 1}, {"tx_hash": bytes(32)}):
        receipt = msgspec.structs.replace(certified.proof.receipt, **change)
        proof = msgspec.structs.replace(certified.proof, receipt=receipt)
        refused(world, "SettlementBadReceipt", certified._replace(proof=proof))


# ---- reentrancy --------------------------------------------------------------------------------------------------------


def reentering(market: bytes, data: bytes) -> bytes:
    """Code that calls the contract with `data` whenever it is called or paid.

    Whether that worked stands at the slot that the caller names: 1 it failed, 2 it did not.
    PUSH2 len PUSH1 43 0 CODECOPY | 0 0 PUSH2 len 0 0 PUSH20 market GAS CALL | PUSH1 1 ADD CALLER SSTORE STOP
    """
    size = len(data).to_bytes(2, "big").hex()
    code = bytes.fromhex(f"61{size}602b5f39" f"5f5f61{size}5f5f73{market.hex()}5af1" "6001013355" "00")
    assert len(code) == 43
    return code + data


@pytest.mark.parametrize("way", ["refund", "finishExit", "withdraw", "withdrawStake"])
def test_a_receiver_that_calls_back_is_paid_once(world: World, way: str) -> None:
    """The receiver is a contract that claims again while it is being paid."""
    thief = SigningKey.derived("thief").address
    other = SigningKey.derived("other")
    world.fund(thief)
    world.lock(other, OFFER, 3 * STAKE)
    world.ue("bystander")
    arguments: tuple[object, ...]
    if way == "refund":
        world.send(thief, "open", OFFER, world.now + 1, wei=STAKE)
        world.pass_time(2)
        arguments = (thief, OFFER)
    elif way == "finishExit":
        world.send(RICH, "depositFor", thief, wei=STAKE)
        world.send(thief, "requestExit")
        world.pass_time(EXIT_DELAY_S)
        arguments = (thief,)
    elif way == "withdraw":
        id = world.register(SigningKey.derived("thief's server"), owner=thief)
        ue = world.ue("ue")
        line = Line(0, 0, 10**6, 10**3)
        world.settle(Payload((ServerRow(id, 1, 1),), (world.section(ue, [line]),)))
        arguments = (id, thief)
    else:
        id = world.register(SigningKey.derived("thief's server"), owner=thief)
        world.send(thief, "unbond", id)
        world.pass_time(2 * EXIT_DELAY_S)
        arguments = (id,)
    due = STAKE if way != "withdraw" else line_amount(line)
    world.code_at(thief, reentering(world.market, world.abi.call(way, *arguments)))
    world.fund(thief, 0)
    held = world.balance(world.market)
    if way in ("withdraw", "withdrawStake"):  # the owner itself, which is the thief, has to ask
        world.evm.message_call(hexed(RICH.address), hexed(thief), b"")
        assert world.evm.storage(hexed(thief), int.from_bytes(RICH.address, "big")) == 2
    else:
        world.send(RICH, way, *arguments)
    assert world.balance(thief) == due
    assert world.balance(world.market) == held - due
    called_back = world.evm.storage(hexed(thief), int.from_bytes(world.market, "big"))
    assert called_back == 1, "the call back must have happened, and failed"


# ---- griefing ----------------------------------------------------------------------------------------------------------


def test_no_gas_limit_makes_a_valid_section_skip(world: World) -> None:
    """A relayer picks the gas: either the batch pays in full or nothing has happened."""
    ue = world.ue("ue")
    certified = world.certified(one_section(world, ue))
    outcomes = set()
    for gas in range(32_000, 140_000, 500):
        checkpoint = world.evm.snapshot()
        try:
            world.settle(certified, gas=gas)
        except Refused as error:
            outcomes.add(error.rule)
            assert world.view("head")[2] == 0
            assert world.view("account", ue.address)[:2] == (10**18, 0)
        else:
            outcomes.add("paid")
            assert world.view("account", ue.address)[:2] == (10**18 - AMOUNT, AMOUNT)
        world.evm.revert(checkpoint)
    assert "paid" in outcomes
    assert outcomes <= {"paid", "OutOfGas", "LedgerProofPrecompile"}


def test_receiver_that_refuses_money_harms_only_itself(world: World) -> None:
    stubborn, other = SigningKey.derived("stubborn").address, SigningKey.derived("other")
    world.fund(stubborn)
    world.send(stubborn, "open", OFFER, world.now + 1, wei=STAKE)
    world.lock(other, OFFER, STAKE, deadline=world.now + 1)
    world.pass_time(2)
    world.code_at(stubborn, bytes.fromhex("5f5ffd"))
    with pytest.raises(Refused, match="SendFailed"):
        world.send(RICH, "refund", stubborn, OFFER)
    assert world.view("lockOf", lock_key(stubborn, OFFER))[0] == STAKE
    world.send(RICH, "refund", other.address, OFFER)


def test_dust_deposit_does_not_cancel_an_exit(world: World) -> None:
    ue = world.ue("ue")
    world.send(ue, "requestExit")
    when = world.view("account", ue.address)[2]
    world.pass_time(EXIT_DELAY_S - 1)
    world.send(RICH, "depositFor", ue.address, wei=1)
    assert world.view("account", ue.address)[2] == when
    with pytest.raises(Refused, match="TooEarly"):
        world.send(RICH, "finishExit", ue.address)
    world.pass_time(1)
    before = world.balance(ue.address)
    world.send(RICH, "finishExit", ue.address)
    assert world.balance(ue.address) == before + 10**18 + 1
    assert world.named("Exited") == [(ue.address, 10**18 + 1)]


def test_only_one_exit_is_pending(world: World) -> None:
    ue = world.ue("ue")
    signature = ue.sign(Exit(0, START_S + 60).digest(world.domain))
    world.send(RICH, "requestExitFor", ue.address, START_S + 60, signature)
    with pytest.raises(Refused, match="Exiting"):
        world.send(ue, "requestExit")
    with pytest.raises(Refused, match="BadSignature"):
        world.send(RICH, "requestExitFor", ue.address, START_S + 60, signature)
    world.pass_time(EXIT_DELAY_S)
    world.send(RICH, "finishExit", ue.address)
    assert world.view("account", ue.address) == (0, 0, 0, 1)
    world.send(ue, "requestExit")


def test_stale_exit_of_a_ue_that_came_back_is_refused(world: World) -> None:
    ue = world.ue("ue")
    signature = ue.sign(Exit(0, START_S + 10**6).digest(world.domain))
    world.send(RICH, "requestExitFor", ue.address, START_S + 10**6, signature)
    world.pass_time(EXIT_DELAY_S)
    world.send(RICH, "finishExit", ue.address)
    with pytest.raises(Refused, match="BadSignature"):
        world.send(RICH, "requestExitFor", ue.address, START_S + 10**6, signature)


def test_exit_order_ends_with_its_time(world: World) -> None:
    ue = world.ue("ue")
    signature = ue.sign(Exit(0, START_S + 60).digest(world.domain))
    world.pass_time(61)
    with pytest.raises(Refused, match="BadDeadline"):
        world.send(RICH, "requestExitFor", ue.address, START_S + 60, signature)


# ---- sections that are not payable -------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["cap", "balance", "time"])
def test_section_pays_all_its_lines_or_none_and_can_be_certified_again(world: World, why: str) -> None:
    ue, other = world.ue("ue", wei=2 * AMOUNT - (why == "balance")), world.ue("other")
    terms = {"cap": 2 * AMOUNT - (why == "cap"), "valid_until": world.now - (why == "time")}
    section = world.section(ue, [LINE, LINE], **terms)
    world.settle(Payload(ROWS, (section, world.section(other, [LINE]))))
    assert world.named("SectionSkipped") == [(1, ue.address, 2 * AMOUNT)]
    assert world.named("BatchSettled")[0][2] == AMOUNT
    fee, rest = split(AMOUNT, 1_000)
    assert [world.view("earned", id)[0] for id in (0, 1)] == [fee, rest]
    assert world.view("account", ue.address)[:2] == (2 * AMOUNT - (why == "balance"), 0)
    world.send(RICH, "depositFor", ue.address, wei=1)
    world.settle(Payload(ROWS, (world.section(ue, [LINE, LINE], cap=2 * AMOUNT),)))
    assert world.named("SectionSkipped") == []
    assert world.view("earned", 1)[0] == 3 * rest


def test_skipped_section_leaves_no_trace_in_what_later_lines_earn(world: World) -> None:
    poor, rich = world.ue("poor", wei=1), world.ue("rich")
    lines = [Line(0, 1, 10**6 + n, 50 + n) for n in range(7)]
    key = world.lock(SigningKey.derived("lock ue"), OFFER, 1)
    world.settle(Payload(
        ROWS, (world.section(poor, lines), world.section(rich, [LINE])), (LockLine(key, lines[3]),)
    ))  # fmt: skip
    fee, rest = split(AMOUNT, 1_000)
    assert [world.view("earned", id) for id in (0, 1)] == [(fee, 1_000, 900, 0), (rest, 2_000, 2_500, 1)]


# ---- front running, deadlines ------------------------------------------------------------------------------------------


def test_outcome_is_the_same_whoever_settles() -> None:
    states = []
    for sender in ("a stranger", "validator 0"):
        world = World()
        ue, key = world.ue("ue"), SigningKey.derived(sender)
        world.fund(key.address)
        world.settle(world.certified(one_section(world, ue)), sender=key)
        states.append((world.view("account", ue.address), world.view("earned", 0), world.view("earned", 1)))
    assert states[0] == states[1]


@pytest.mark.parametrize("late", [0, 1])
def test_settle_and_refund_share_no_second(world: World, late: int) -> None:
    ue = SigningKey.derived("lock ue")
    deadline = world.now + 100
    key = world.lock(ue, OFFER, AMOUNT, deadline=deadline)
    certified = world.certified(Payload(ROWS, (), (LockLine(key, LINE),)))
    world.pass_time(100 + late)
    if late:
        world.settle(certified)
        assert world.named("LockSkipped") == [(1, key)]
        world.send(RICH, "refund", ue.address, OFFER)
        assert world.named("OfferRefunded") == [(OFFER, ue.address, AMOUNT)]
    else:
        with pytest.raises(Refused, match="TooEarly"):
            world.send(RICH, "refund", ue.address, OFFER)
        world.settle(certified)
        assert world.named("LockSkipped") == []


@pytest.mark.parametrize("late", [0, 1])
def test_voucher_holds_through_its_last_second(world: World, late: int) -> None:
    ue = world.ue("ue")
    certified = world.certified(one_section(world, ue, valid_until=world.now + 50))
    world.pass_time(50 + late)
    world.settle(certified)
    assert len(world.named("SectionSkipped")) == late


@pytest.mark.parametrize(("ahead", "good"), [(0, False), (1, True), (30 * 86_400, True), (30 * 86_400 + 1, False)])
def test_lock_deadlines_are_bounded(world: World, ahead: int, good: bool) -> None:
    ue = SigningKey.derived("lock ue")
    if good:
        world.lock(ue, OFFER, 1, deadline=world.now + ahead)
    else:
        with pytest.raises(Refused, match="BadDeadline"):
            world.lock(ue, OFFER, 1, deadline=world.now + ahead)


# ---- double spending ---------------------------------------------------------------------------------------------------


def test_one_cap_at_two_servers_is_spent_once(world: World) -> None:
    """Two batches carry the same UE's voucher to two servers; the cap is one cumulative limit."""
    ue = world.ue("ue")
    world.settle(Payload(ROWS, (world.section(ue, [Line(0, 0, 10**6, 50)], cap=AMOUNT + 1),)))
    world.settle(Payload(ROWS, (world.section(ue, [Line(1, 1, 10**6, 50)], cap=AMOUNT + 1),)))
    assert len(world.named("SectionSkipped")) == 1
    assert world.view("account", ue.address)[1] == AMOUNT


def test_ue_on_its_way_out_still_pays_what_it_signed(world: World) -> None:
    ue = world.ue("ue")
    section = world.section(ue, [LINE], valid_until=world.now + EXIT_DELAY_S - 60)
    world.send(ue, "requestExit")
    world.pass_time(EXIT_DELAY_S - 60)
    world.settle(Payload(ROWS, (section,)))
    assert world.named("SectionSkipped") == []
    world.pass_time(60)
    world.send(RICH, "finishExit", ue.address)
    assert world.named("Exited") == [(ue.address, 10**18 - AMOUNT)]
    assert world.view("account", ue.address) == (0, AMOUNT, 0, 1)


# ---- arithmetic --------------------------------------------------------------------------------------------------------


def test_widest_line_neither_wraps_nor_rounds(world: World) -> None:
    widest = Line(0, 1, 2**48 - 1, 2**32 - 1)
    wei = line_amount(widest)
    ue = world.ue("ue", wei=60 * wei)
    world.settle(Payload(ROWS, (world.section(ue, [widest] * 60, cap=2**96 - 1),)))
    fee, rest = split(wei, 1_000)
    assert [world.view("earned", id)[0] for id in (0, 1)] == [60 * fee, 60 * rest]
    world.settle(Payload(ROWS, (world.section(ue, [widest] * 255, cap=2**96 - 1),)))
    assert world.named("SectionSkipped") == [(2, ue.address, 255 * wei)]


@pytest.mark.parametrize("lambda_bps", [0, 1, 1_000, 3_333, 9_999, 10_000])
def test_lambda_dust_goes_to_the_executor(lambda_bps: int) -> None:
    world = World(lambda_bps=lambda_bps)
    lines = [Line(0, 1, 7, 1), Line(0, 1, 3, 7), Line(1, 1, 1, 1)]
    world.settle(Payload(ROWS, (world.section(world.ue("ue"), lines),)))
    shares = [split(line_amount(line), lambda_bps) for line in lines]
    assert world.view("earned", 0)[0] == shares[0][0] + shares[1][0]
    assert world.view("earned", 1)[0] == shares[0][1] + shares[1][1] + sum(shares[2])


def test_reputation_sums_saturate(world: World) -> None:
    assert world.view("reputation", 0) == 0
    world.settle(Payload((ServerRow(0, 3_000, 2_000),)))
    assert world.view("reputation", 0) == 15 * 10**17
    slot = int.from_bytes(keccak(bytes(32) + (4).to_bytes(32, "big")), "big")
    full = (2**56 - 5) << 96 | (2**56 - 5) << 152 | (2**40 - 1) << 208 | 1 << 248
    world.evm.insert_account_storage(hexed(world.market), slot, full)
    world.settle(Payload((ServerRow(0, 4, 2**32 - 1),), (world.section(world.ue("ue"), [Line(0, 0, 1, 1)]),)))
    assert world.view("earned", 0) == (1_000, 2**56 - 1, 2**56 - 1, 2**40 - 1)


def test_deposit_beyond_the_width_is_refused(world: World) -> None:
    ue = world.ue("ue", wei=2**96 - 1)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(RICH, "depositFor", ue.address, wei=1)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(RICH, "depositFor", RICH.address)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(RICH, "open", OFFER, world.now + 1, wei=2**96)


def test_forced_money_changes_nothing(world: World) -> None:
    ue = world.ue("ue")
    world.fund(world.market, world.balance(world.market) + 10**30)
    world.settle(one_section(world, ue))
    world.send(ue, "requestExit")
    world.pass_time(EXIT_DELAY_S)
    world.send(RICH, "finishExit", ue.address)
    assert world.named("Exited") == [(ue.address, 10**18 - AMOUNT)]
    with pytest.raises(Refused):
        world.raw(RICH.address, b"", wei=1)
    with pytest.raises(Refused):
        world.raw(RICH.address, b"\x12\x34\x56\x78", wei=1)


# ---- stakes ------------------------------------------------------------------------------------------------------------


def test_a_batch_fines_at_most_a_tenth_of_the_stake(world: World) -> None:
    """A lying quorum names one server in every penalty line."""
    lines = tuple(Penalty(2, place, STAKE) for place in (0, BURN, 1, 0))
    world.settle(Payload(ROWS, (), (), lines))
    assert world.view("server", 2)[1] == STAKE - STAKE // 10
    assert [values[1] for values in world.named("ServerPenalised")] == [STAKE // 10, 0, 0, 0]
    assert world.view("earned", 0)[0] == STAKE // 10
    world.settle(Payload(ROWS, (), (), (Penalty(2, BURN, 7), Penalty(3, 1, 5), Penalty(2, 1, STAKE))))
    left = STAKE - STAKE // 10
    assert world.view("server", 2)[1] == left - left // 10
    assert world.view("server", 3)[1] == STAKE - 5
    assert world.view("counters")[1] == 7
    assert world.view("earned", 1)[0] == 5 + left // 10 - 7


def two_votes(world: World, key: SigningKey, *, phase: int = 2, other: tuple[int, int, int] | None = None) -> tuple:
    place = (0, 3, 77)
    blocks = keccak(b"a"), keccak(b"b")
    signatures = [
        key.sign(Vote(phase, *where, block).digest(world.quorum.domain))
        for where, block in zip((place, other or place), blocks, strict=True)
    ]
    return (phase, *place, blocks[0], signatures[0], blocks[1], signatures[1])


@pytest.mark.parametrize("phase", [1, 2])
def test_two_votes_for_one_place_cost_the_stake(world: World, phase: int) -> None:
    accused = world.quorum.keys[1]
    reporter = SigningKey.derived("reporter")
    world.fund(reporter.address)
    before = world.balance(reporter.address)
    arguments = two_votes(world, accused, phase=phase)
    world.send(reporter, "slash", *arguments)
    assert world.balance(reporter.address) == before + STAKE // 10
    assert world.view("counters") == (4, STAKE - STAKE // 10)
    assert world.named("ServerSlashed") == [(1, reporter.address, STAKE)]
    with pytest.raises(Refused, match="BadStake"):
        world.send(reporter, "slash", *arguments)


def test_slashing_needs_the_victims_own_two_votes(world: World) -> None:
    accused, other = world.quorum.keys[1], world.quorum.keys[2]
    good = list(two_votes(world, accused))
    equal = [*good[:6], good[4], good[5]]
    third = [*two_votes(world, accused, phase=3)]
    mixed = [*good[:7], two_votes(world, other)[7]]
    elsewhere = [*two_votes(world, accused, other=(0, 4, 77))]
    later = [*two_votes(world, accused, other=(1, 3, 77))]
    high = [*good[:5], twin(good[5]), *good[6:]]
    for bad in (equal, third, mixed, elsewhere, later, high):
        with pytest.raises(Refused, match="NoFault"):
            world.send(RICH, "slash", *bad)
    with pytest.raises(Refused, match="UnknownServer"):
        world.send(RICH, "slash", *two_votes(world, SigningKey.derived("a stranger")))
    assert world.view("server", 1)[1] == STAKE


def test_stake_comes_back_only_late_and_off_duty(world: World) -> None:
    key = world.quorum.keys[0]
    newcomers = [SigningKey.derived(f"newcomer {index}") for index in range(4)]
    for newcomer in newcomers:
        world.register(newcomer)
    with pytest.raises(Refused, match="StakeLocked"):
        world.send(key, "withdrawStake", 0)
    with pytest.raises(Refused, match="NotOwner"):
        world.send(RICH, "unbond", 0)
    world.send(key, "unbond", 0)
    with pytest.raises(Refused, match="TooEarly"):
        world.send(key, "unbond", 0)
    world.pass_time(2 * EXIT_DELAY_S)
    with pytest.raises(Refused, match="StakeLocked"):
        world.send(key, "withdrawStake", 0)
    world.advance(newcomers)
    world.send(key, "withdrawStake", 0)
    assert world.named("StakeReturned") == [(0, key.address, STAKE)]
    early = World()
    spare = SigningKey.derived("spare")
    id = early.register(spare)
    early.send(spare, "unbond", id)
    early.pass_time(2 * EXIT_DELAY_S - 1)
    with pytest.raises(Refused, match="TooEarly"):
        early.send(spare, "withdrawStake", id)


def test_registration_is_once_a_signer_and_needs_the_stake(world: World) -> None:
    key = SigningKey.derived("newcomer")
    world.fund(key.address)
    with pytest.raises(Refused, match="BadStake"):
        world.send(key, "register", key.address, bytes(32), wei=STAKE - 1)
    with pytest.raises(Refused, match="NotOwner"):
        world.send(key, "register", bytes(20), bytes(32), wei=STAKE)
    assert world.register(key) == 4
    with pytest.raises(Refused, match="SignerTaken"):
        world.register(key)
    world.send(key, "setMeta", 4, keccak(b"new"))
    assert world.view("server", 4)[4] == keccak(b"new")
    with pytest.raises(Refused, match="NotOwner"):
        world.send(RICH, "setMeta", 4, bytes(32))
    with pytest.raises(Refused, match="UnknownServer"):
        world.send(RICH, "setMeta", 9, bytes(32))


def test_earnings_go_where_the_owner_says_and_to_nobody_elses_order(world: World) -> None:
    world.settle(one_section(world, world.ue("ue")))
    owner, purse = world.quorum.keys[1], SigningKey.derived("purse").address
    with pytest.raises(Refused, match="NotOwner"):
        world.send(RICH, "withdraw", 1, purse)
    world.send(owner, "withdraw", 1, purse)
    _, rest = split(AMOUNT, 1_000)
    assert world.balance(purse) == rest
    assert world.view("earned", 1) == (0, 2_000, 2_500, 1)
    with pytest.raises(Refused, match="BadAmount"):
        world.send(owner, "withdraw", 1, purse)


# ---- audit -------------------------------------------------------------------------------------------------------------


def test_a_task_can_be_shown_to_stand_in_a_certified_batch(world: World) -> None:
    ue = world.ue("ue")
    tasks = [
        TaskLeaf(keccak(bytes([n])), ue.address, 0, 1, 10**6, 50, 1_000, 900 + n, keccak(b"result")) for n in range(5)
    ]
    certified = world.certified(one_section(world, ue), tasks=tasks, links=1)
    arguments = (1, certified.task_root, payload_hash(certified.payload), certificate_arguments(certified.proof))
    data = [task.encoded() for task in tasks]
    for place, task in enumerate(tasks):
        path = merkle_path(data, place)
        assert world.view("verifyTask", *arguments, task.leaf(), place, 5, path)
        assert not world.view("verifyTask", *arguments, task.leaf(), (place + 1) % 5, 5, path)
        assert not world.view("verifyTask", *arguments, task._replace(fuel=1).leaf(), place, 5, path)
        assert not world.view("verifyTask", *arguments, task.leaf(), place, 5, [*path, bytes(32)])
    with pytest.raises(Refused, match="BadReceipt"):
        wrong = (2, *arguments[1:])
        world.view("verifyTask", *wrong, tasks[0].leaf(), 0, 5, merkle_path(data, 0))


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
