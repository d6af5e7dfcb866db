"""The packed payload of a batch, its strict decoder, its limits, and the hashes around it (contracts.md 2, 5, 6, 10)."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from edgora.crypto.proof import check_certificate
from edgora.crypto.sign import SigningKey
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import EMPTY_ROOT, keccak, merkle_path, merkle_verify
from edgora.wire.ledger import Certificate, Header, Phase, Receipt, ReceiptProof, Vote, quorum
from edgora.wire.settlement import (
    BURN,
    MAX_GAS,
    MAX_PAYLOAD,
    BadPayload,
    Batch,
    Exit,
    Line,
    LockLine,
    Payload,
    Penalty,
    Section,
    ServerRow,
    TaskLeaf,
    Voucher,
    certificate_arguments,
    decode_payload,
    encode_payload,
    epoch_arguments,
    exact_quorum,
    fits,
    line_amount,
    lock_key,
    market_address,
    payload_gas,
    payload_hash,
    settlement_output,
    split,
    task_root,
)


def payloads() -> st.SearchStrategy[Payload]:
    def of(ids: list[int]) -> st.SearchStrategy[Payload]:
        place = st.integers(0, max(0, len(ids) - 1))
        line = st.builds(Line, place, place, st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1))
        lines = st.lists(line, max_size=4 if ids else 0).map(tuple)
        u32 = st.integers(0, 2**32 - 1)
        section = st.builds(
            Section, st.binary(min_size=65, max_size=65), st.integers(0, 2**96 - 1), st.integers(0, 2**40 - 1), lines
        )
        lock = st.builds(LockLine, st.binary(min_size=32, max_size=32), line)
        burn = st.sampled_from([BURN, *range(len(ids))])
        penalty = st.builds(Penalty, st.integers(0, 9), burn, st.integers(0, 2**96 - 1))
        return st.builds(
            Payload,
            st.tuples(*(st.builds(ServerRow, st.just(id), u32, u32) for id in ids)),
            st.lists(section, max_size=3).map(tuple),
            st.lists(lock, max_size=3 if ids else 0).map(tuple),
            st.lists(penalty, max_size=3).map(tuple),
        )

    return st.lists(st.integers(0, 9), max_size=4).flatmap(of)


ONE = Payload(
    (ServerRow(3, 0x01020304, 5),),
    (Section(bytes(range(65)), 0x0A0B, 0x0C0D, (Line(0, 0, 0x0E0F, 0x1011),)),),
    (LockLine(b"\x22" * 32, Line(0, 0, 1, 2)),),
    (Penalty(3, BURN, 0x33),),
)
PACKED = (
    "01" "0001" "0001" "01"
    "0003" "01020304" "00000005"
    + bytes(range(65)).hex() + "000000000000000000000a0b" "0000000c0d" "01" "00" "00" "000000000e0f" "00001011"
    + "22" * 32 + "00" "00" "000000000001" "00000002"
    + "0003" "ff" "000000000000000000000033"
)  # fmt: skip


def test_layout_is_the_specifications() -> None:
    assert encode_payload(ONE).hex() == PACKED
    assert decode_payload(bytes.fromhex(PACKED), 4) == ONE
    assert encode_payload(Payload()) == bytes(6)


@given(payloads())
def test_what_is_encoded_decodes_to_itself(payload: Payload) -> None:
    assert decode_payload(encode_payload(payload), 10) == payload


@given(payloads(), st.data())
def test_decoding_is_strict(payload: Payload, data: st.DataObject) -> None:
    """Whatever octets decode at all are the one encoding of what they decode to."""
    packed = bytearray(encode_payload(payload))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_payload(bytes(packed), 10)
    except BadPayload:
        return
    assert encode_payload(decoded) == bytes(packed)


@given(payloads(), st.data())
def test_every_prefix_and_every_tail_is_refused(payload: Payload, data: st.DataObject) -> None:
    packed = encode_payload(payload)
    for other in (packed[: data.draw(st.integers(0, len(packed) - 1))], packed + data.draw(st.binary(min_size=1))):
        with pytest.raises(BadPayload):
            decode_payload(other, 10)


@pytest.mark.parametrize(
    ("at", "octets", "offset"),
    [
        (99 + 0, "01", 99), (99 + 1, "01", 99), (111 + 32, "05", 143), (155 + 2, "01", 155), (155, "0004", 155),
        (6, "0004", 6), (0, "02", 141), (82 + 16, "ff", 16), (1, "ffff", 111), (3, "0002", 155), (5, "02", 170),
        (5, "00", 155),
    ],
)  # fmt: skip
def test_refusal_names_the_record(at: int, octets: str, offset: int) -> None:
    packed = bytearray.fromhex(PACKED)
    packed[at : at + len(octets) // 2] = bytes.fromhex(octets)
    with pytest.raises(BadPayload) as bad:
        decode_payload(bytes(packed), 4)
    assert bad.value.offset == offset


def test_fields_out_of_width_do_not_encode() -> None:
    row = (ServerRow(0, 0, 0),)
    for broken in (
        Payload(row, (Section(bytes(64), 0, 0, ()),)),
        Payload(row, (Section(bytes(65), 0, 0, (Line(0, 1, 0, 0),)),)),
        Payload(row, (), (LockLine(bytes(31), Line(0, 0, 0, 0)),)),
        Payload(row, (), (), (Penalty(0, 1, 0),)),
    ):
        with pytest.raises(ValueError, match=r"octets|place"):
            encode_payload(broken)
    for wide in (
        Payload((ServerRow(2**16, 0, 0),)), Payload(row * 256), Payload(row, (Section(bytes(65), 2**96, 0, ()),)),
        Payload(row, (Section(bytes(65), 0, 0, (Line(0, 0, 0, 0),) * 256),)),
    ):  # fmt: skip
        with pytest.raises(OverflowError):
            encode_payload(wide)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_shares_add_up_to_the_amount(fuel: int, price: int, lambda_bps: int) -> None:
    wei = line_amount(Line(0, 0, fuel, price))
    fee, rest = split(wei, lambda_bps)
    assert wei == fuel * price * 1000 < 2**90
    assert fee + rest == wei
    assert 10_000 * fee <= wei * lambda_bps < 10_000 * (fee + 1)


def test_limits_hold_octets_and_gas() -> None:
    row, line = ServerRow(0, 1, 1), Line(0, 0, 1, 1)
    full = Section(bytes(65), 1, 1, (line,) * 255)
    most = Payload((row,), (full,) * 39)
    assert len(encode_payload(most)) <= MAX_PAYLOAD
    assert fits(most)
    assert not fits(Payload((row,), (full,) * 40))
    alone = Section(bytes(65), 1, 1, (line,))
    many = Payload((row,), (alone,) * 1_254)
    assert payload_gas(many) <= MAX_GAS < payload_gas(Payload((row,), (alone,) * 1_261))
    assert fits(Payload((row,), (alone,) * 1_200)) is fits(many)
    assert payload_gas(Payload(), validators=13) - payload_gas(Payload()) == 27_900


# ---- hashes ------------------------------------------------------------------------------------------------------------


def test_types_are_the_normative_ones() -> None:
    assert Voucher.TYPE == "Voucher(uint96 cap,uint40 validUntil)"
    assert Exit.TYPE == "Exit(uint24 nonce,uint40 validUntil)"
    assert Batch.TYPE == "Batch(uint256 chainId,address market,uint64 batchId,bytes32 taskRoot,bytes32 payloadHash)"
    word = (7).to_bytes(32, "big")
    assert Voucher(7, 7).struct_hash() == keccak(keccak(Voucher.TYPE.encode()) + word + word)
    with pytest.raises(ValueError, match="uint96"):
        Voucher(2**96, 0).struct_hash()


def test_settlement_output_is_kind_and_batch() -> None:
    batch = Batch(31337, bytes(20), 1, EMPTY_ROOT, payload_hash(b""))
    assert settlement_output(batch.struct_hash()) == b"\x00\x05" + batch.struct_hash()


def test_lock_key_and_address_are_the_chains() -> None:
    ue, offer = bytes.fromhex("11" * 20), bytes.fromhex("22" * 32)
    assert lock_key(ue, offer) == keccak(bytes(12) + ue + offer)
    # The first contract of the first account of every fresh anvil.
    anvil = bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266")
    assert market_address(anvil).hex() == "5fbdb2315678afecb367f032d93f642f64180aa3"


def test_task_leaf_is_the_abi_encoding_of_its_fields() -> None:
    task = TaskLeaf(b"\x01" * 32, b"\x02" * 20, 3, 4, 5, 6, 7, 8, b"\x09" * 32)
    words = [task.encoded()[at : at + 32] for at in range(0, 288, 32)]
    assert words[1] == bytes(12) + b"\x02" * 20
    assert [int.from_bytes(word, "big") for word in words[2:8]] == [3, 4, 5, 6, 7, 8]
    assert (words[0], words[8]) == (task.offer, task.result_digest)
    tasks = [task, task._replace(fuel=50), task._replace(fuel=60)]
    data = [one.encoded() for one in tasks]
    assert merkle_verify(data[1], 1, 3, merkle_path(data, 1), task_root(tasks))
    assert task.leaf() == keccak(b"\0" + data[0])


# ---- arguments ---------------------------------------------------------------------------------------------------------

KEYS = [SigningKey.derived(f"validator {index}") for index in range(7)]
DOMAIN = Domain.ledger(1, bytes(32))
HEADER = Header(1, 2, b"\x03" * 32, b"\x04" * 32, 5, 6, b"\x07" * 32, b"\x08" * 32, 9, b"\x0a" * 32, 11, b"\x0c" * 20)


def certificate(signers: list[int]) -> Certificate:
    vote = Vote(Phase.COMMIT, HEADER.epoch, 12, HEADER.height, HEADER.hash)
    signatures = tuple(KEYS[index].sign(vote.digest(DOMAIN)) for index in signers)
    return Certificate(vote, sum(1 << index for index in signers), signatures)


@given(st.sets(st.integers(0, 6), min_size=5))
def test_trimmed_certificate_has_exactly_a_quorum_and_still_holds(signers: set[int]) -> None:
    trimmed = exact_quorum(certificate(sorted(signers)), 7)
    assert trimmed.signers() == sorted(signers)[: quorum(7)]
    assert check_certificate(trimmed, [key.address for key in KEYS], DOMAIN) is None


def test_certificate_arguments_are_the_proofs_fields() -> None:
    own = certificate([0, 2, 3, 5, 6])
    receipt = Receipt(b"\x0d" * 32, 14, 15, 0, b"")
    arguments = certificate_arguments(ReceiptProof(receipt, 16, (b"\x11" * 32,), (HEADER, HEADER), own))
    assert arguments == (
        12, 14, 15, 16, 0b1101101, receipt.tx_hash, HEADER.packed() * 2, [b"\x11" * 32], b"".join(own.signatures),
    )  # fmt: skip
    assert len(HEADER.packed()) == 220
    assert HEADER.packed()[:16] == (1).to_bytes(8, "big") + (2).to_bytes(8, "big")
    addresses = [key.address for key in KEYS]
    assert epoch_arguments(HEADER, own, addresses, b"\x12" * 32) == (
        HEADER.packed(), 12, own.bitmap, b"".join(own.signatures), 3, b"".join(addresses), b"\x12" * 32,
    )  # fmt: skip
