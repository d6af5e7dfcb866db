"""Sealed envelopes: JWE that others open, typed failures, re-sealing, digests."""

import base64
import hashlib
import hmac
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe as jose
from joserfc.jwk import RSAKey

from edgora.crypto import seal as sealing
from edgora.crypto.keys import SealingKey, SealingPublicKey, key_id
from edgora.crypto.seal import (
    MAX_SEALED_OCTETS,
    ContentKey,
    Context,
    Envelope,
    KeyMismatch,
    NotRecipient,
    Recipient,
    Tampered,
    WrongContext,
    add_recipient,
    open_sealed,
    reseal,
    result_digest,
    seal,
    unwrap,
)
from edgora.wire.codec import decode, encode
from edgora.wire.errors import TooLarge, WireError
from edgora.wire.hashing import keccak
from edgora.wire.rest import JweEnvelope

ALGORITHMS = ["RSA-OAEP-256", "A256GCM"]
CONTEXT = Context(31337, b"\x11" * 32, b"\x22" * 20, 7, b"\x33" * 32)
SECRET = b"the patient's name is on this line"


class Entropy:
    """Random octets that repeat."""

    def __init__(self, seed=b"seed"):
        self.state = seed

    def __call__(self, count):
        self.state = hashlib.sha256(self.state).digest()
        return hashlib.shake_256(self.state).digest(count)


@pytest.fixture(scope="module")
def keys():
    return [SealingKey.generate() for _ in range(3)]


@pytest.fixture
def sealed(keys):
    return seal(SECRET, [keys[0].public], CONTEXT, Entropy())


def changed(envelope, **fields):
    return msgspec.structs.replace(envelope, **fields)


def flipped(octets, at=0):
    return octets[:at] + bytes((octets[at] ^ 1,)) + octets[at + 1 :]


# ---- opening ---------------------------------------------------------------------------------------------------------


def test_the_recipient_opens_and_gets_the_same_key(keys, sealed):
    envelope, key = sealed
    opened = open_sealed(envelope, keys[0], CONTEXT, key.commit)
    assert opened.plaintext == SECRET
    assert opened.key.octets == key.octets
    assert SECRET not in encode(envelope)


@settings(max_examples=30, deadline=None)
@given(plaintext=st.binary(max_size=5000), nonce=st.integers(0, 2**64 - 1), seed=st.binary(max_size=8))
def test_what_is_sealed_opens_through_both_forms(keys, plaintext, nonce, seed):
    context = Context(1, b"\xaa" * 32, b"\xbb" * 20, nonce, b"\xcc" * 32)
    envelope, key = seal(plaintext, [keys[0].public, keys[1].public], context, Entropy(seed))
    stored = decode(encode(envelope), Envelope)
    travelled = Envelope.from_jwe(msgspec.json.decode(msgspec.json.encode(envelope.to_jwe()), type=JweEnvelope))
    assert stored == travelled == envelope
    for own in keys[:2]:
        assert open_sealed(travelled, own, context, key.commit).plaintext == plaintext


def test_context_is_abi_encoded():
    aad = CONTEXT.aad()
    words = [aad[i : i + 32] for i in range(0, 160, 32)]
    assert words == [
        (31337).to_bytes(32, "big"), b"\x11" * 32, bytes(12) + b"\x22" * 20, (7).to_bytes(32, "big"), b"\x33" * 32,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "context",
    [
        Context(1, b"", b"\x22" * 20, 7, b"\x33" * 32),
        Context(1, b"\x11" * 32, b"\x22" * 32, 7, b"\x33" * 32),
        Context(1, b"\x11" * 32, b"\x22" * 20, 2**64, b"\x33" * 32),
        Context(2**256, b"\x11" * 32, b"\x22" * 20, 7, b"\x33" * 32),
        Context(1, b"\x11" * 32, b"\x22" * 20, -1, b"\x33" * 32),
    ],
)
def test_context_fields_keep_their_width(context):
    with pytest.raises((ValueError, OverflowError)):
        context.aad()


# ---- other tools -----------------------------------------------------------------------------------------------------


def test_joserfc_opens_our_envelope(keys, sealed):
    document = json.loads(msgspec.json.encode(sealed[0].to_jwe()))
    opened = jose.decrypt_json(document, RSAKey.import_key(keys[0].to_pem()), algorithms=ALGORITHMS)
    assert opened.plaintext == SECRET
    assert opened.protected == {"enc": "A256GCM"}
    assert opened.recipients[0].header == {"alg": "RSA-OAEP-256", "kid": keys[0].public.kid}
    assert opened.aad == CONTEXT.aad()


def test_we_open_joserfcs_envelope(keys):
    obj = jose.GeneralJSONEncryption({"enc": "A256GCM"}, SECRET, aad=CONTEXT.aad())
    for own in keys[:2]:
        header = {"alg": "RSA-OAEP-256", "kid": own.public.kid}
        obj.add_recipient(header, RSAKey.import_key(own.to_pem()))
    document = jose.encrypt_json(obj, None, algorithms=ALGORITHMS)
    envelope = Envelope.from_jwe(msgspec.convert(document, JweEnvelope))
    for own in keys[:2]:
        assert open_sealed(envelope, own, CONTEXT, None).plaintext == SECRET


# ---- failures --------------------------------------------------------------------------------------------------------


def test_a_stranger_is_told_that_it_is_not_for_it(keys, sealed):
    with pytest.raises(NotRecipient):
        open_sealed(sealed[0], keys[1], CONTEXT, sealed[1].commit)


def test_another_commitment_is_refused_before_anything_is_decrypted(keys, sealed, monkeypatch):
    class NoCipher:
        def __init__(self, *_):
            raise AssertionError("decrypted before the commitment was checked")

    monkeypatch.setattr(sealing, "AESGCM", NoCipher)
    with pytest.raises(KeyMismatch, match="commits"):
        open_sealed(sealed[0], keys[0], CONTEXT, b"\x00" * 32)


def test_an_attacker_who_rewraps_another_key_is_caught_by_the_commitment(keys, sealed):
    envelope, key = sealed
    other = ContentKey(b"\x05" * 32)
    swapped = changed(envelope, recipients=(Recipient(keys[0].public.digest, keys[0].public.wrap(other.octets)),))
    with pytest.raises(KeyMismatch):
        open_sealed(swapped, keys[0], CONTEXT, key.commit)
    with pytest.raises(Tampered):
        open_sealed(swapped, keys[0], CONTEXT, None)


@pytest.mark.parametrize("secret", [b"", b"short", bytes(33)])
def test_a_wrapped_key_of_another_length_is_refused(keys, sealed, secret):
    odd = changed(sealed[0], recipients=(Recipient(keys[0].public.digest, keys[0].public.wrap(secret)),))
    with pytest.raises(KeyMismatch):
        unwrap(odd, keys[0], None)


@pytest.mark.parametrize("field", ["iv", "ciphertext", "tag"])
def test_changed_content_is_tampered(keys, sealed, field):
    envelope, key = sealed
    for at in (0, len(getattr(envelope, field)) - 1):
        bad = changed(envelope, **{field: flipped(getattr(envelope, field), at)})
        with pytest.raises(Tampered):
            open_sealed(bad, keys[0], CONTEXT, key.commit)


def test_a_changed_wrapped_key_is_a_mismatch(keys, sealed):
    envelope, key = sealed
    entry = envelope.recipients[0]
    bad = changed(envelope, recipients=(Recipient(entry.key, flipped(entry.wrapped, 9)),))
    with pytest.raises(KeyMismatch):
        open_sealed(bad, keys[0], CONTEXT, key.commit)


@pytest.mark.parametrize(
    "other",
    [
        Context(31338, b"\x11" * 32, b"\x22" * 20, 7, b"\x33" * 32),
        Context(31337, b"\x12" * 32, b"\x22" * 20, 7, b"\x33" * 32),
        Context(31337, b"\x11" * 32, b"\x23" * 20, 7, b"\x33" * 32),
        Context(31337, b"\x11" * 32, b"\x22" * 20, 8, b"\x33" * 32),
        Context(31337, b"\x11" * 32, b"\x22" * 20, 7, b"\x34" * 32),
    ],
)
def test_an_envelope_cannot_be_moved_to_another_task(keys, sealed, other):
    envelope, key = sealed
    with pytest.raises(WrongContext):
        open_sealed(envelope, keys[0], other, key.commit)
    with pytest.raises(Tampered):  # not even with its additional data rewritten
        open_sealed(changed(envelope, aad=other.aad()), keys[0], other, key.commit)


def test_nothing_secret_in_errors_and_reprs(keys, sealed):
    envelope, key = sealed
    opened = open_sealed(envelope, keys[0], CONTEXT, key.commit)
    shown = f"{envelope!r} {key!r} {opened!r}"
    for bad in (changed(envelope, tag=bytes(16)), changed(envelope, iv=bytes(12))):
        with pytest.raises(Tampered) as failure:
            open_sealed(bad, keys[0], CONTEXT, key.commit)
        assert failure.value.__cause__ is None
        shown += repr(failure.value)
    assert "patient" not in shown
    assert key.octets.hex() not in shown


def test_sizes_are_checked_before_work(keys, sealed):
    def no_entropy(_):
        raise AssertionError("worked on what is too large")

    with pytest.raises(TooLarge):
        seal(bytes(MAX_SEALED_OCTETS + 1), [keys[0].public], CONTEXT, no_entropy)
    with pytest.raises(ValueError, match="recipients"):
        seal(b"", [], CONTEXT, no_entropy)
    large = changed(sealed[0], ciphertext=bytes(MAX_SEALED_OCTETS + 1))
    with pytest.raises(TooLarge):
        open_sealed(large, keys[0], CONTEXT, None)
    with pytest.raises(TooLarge):
        Envelope.from_jwe(msgspec.structs.replace(large).to_jwe())
    with pytest.raises(WireError):
        decode(encode(large), Envelope)


def test_the_largest_input_fits(keys):
    plaintext = bytes(MAX_SEALED_OCTETS)
    envelope, key = seal(plaintext, [keys[0].public], CONTEXT, Entropy())
    again = Envelope.from_jwe(envelope.to_jwe())
    assert open_sealed(again, keys[0], CONTEXT, key.commit).plaintext == plaintext


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("protected", base64.urlsafe_b64encode(b'{"enc":"A128GCM"}').decode().rstrip("=")),
        ("protected", base64.urlsafe_b64encode(b'{"enc": "A256GCM"}').decode().rstrip("=")),
        ("protected", base64.urlsafe_b64encode(b'{"enc":"A256GCM","zip":"DEF"}').decode().rstrip("=")),
        ("aad", "AAAA"),
        ("iv", "AAAA"),
        ("iv", "AAAAAAAAAAAAAAA*"),
        ("tag", "AAAAAAAAAAAAAAAAAAAAAB"),  # stray bits in the last digit: a second spelling of the same octets
        ("tag", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("tag", "\u00e4AAAAAAAAAAAAAAAAAAAAA"),
        ("ciphertext", "A"),
        ("recipients", []),
    ],
)
def test_a_jwe_that_is_not_ours_is_refused_by_member(sealed, member, value):
    jwe = sealed[0].to_jwe()
    fields = {name: getattr(jwe, name) for name in ("protected", "aad", "iv", "ciphertext", "tag", "recipients")}
    with pytest.raises(WireError) as failure:
        Envelope.from_jwe(JweEnvelope(**{**fields, member: value}))
    assert failure.value.field == member


@pytest.mark.parametrize("kid", ["", "0x", "0x" + "zz" * 32, "0x" + "AB" * 32, "ab" * 32, "0x" + "ab" * 31])
def test_a_kid_is_a_key_digest(sealed, kid):
    document = json.loads(msgspec.json.encode(sealed[0].to_jwe()))
    document["recipients"][0]["header"]["kid"] = kid
    with pytest.raises(WireError) as failure:
        Envelope.from_jwe(msgspec.convert(document, JweEnvelope))
    assert failure.value.field == "recipients.header.kid"


# ---- handing on ------------------------------------------------------------------------------------------------------


def test_resealing_replaces_the_recipient_and_keeps_the_ciphertext(keys, sealed):
    envelope, key = sealed
    handed = reseal(envelope, keys[0], keys[1].public, key.commit)
    assert [r.key for r in handed.recipients] == [keys[1].public.digest]
    assert (handed.iv, handed.ciphertext, handed.tag, handed.aad) == (
        envelope.iv, envelope.ciphertext, envelope.tag, envelope.aad,
    )  # fmt: skip
    assert handed.cipher_digest == envelope.cipher_digest
    assert open_sealed(handed, keys[1], CONTEXT, key.commit).plaintext == SECRET
    with pytest.raises(NotRecipient):
        open_sealed(handed, keys[0], CONTEXT, key.commit)


def test_adding_a_recipient_keeps_the_others_and_never_doubles(keys, sealed):
    envelope, key = sealed
    two = add_recipient(envelope, keys[0], keys[1].public, key.commit)
    again = add_recipient(two, keys[1], keys[1].public, key.commit)
    assert [r.key for r in again.recipients] == [keys[0].public.digest, keys[1].public.digest]
    for own in keys[:2]:
        assert open_sealed(again, own, CONTEXT, key.commit).plaintext == SECRET


def test_nobody_reseals_what_is_not_sealed_to_it_or_not_committed(keys, sealed):
    envelope, key = sealed
    with pytest.raises(NotRecipient):
        reseal(envelope, keys[1], keys[2].public, key.commit)
    with pytest.raises(KeyMismatch):
        reseal(envelope, keys[0], keys[2].public, bytes(32))


def test_an_envelope_holds_at_most_a_consortium(keys, sealed):
    envelope, key = sealed
    crowd = (*envelope.recipients, *(Recipient(keccak(bytes((i,))), bytes(384)) for i in range(63)))
    with pytest.raises(TooLarge):
        add_recipient(changed(envelope, recipients=crowd), keys[0], keys[1].public, key.commit)


# ---- digests ---------------------------------------------------------------------------------------------------------


def test_commitment_salt_and_digests_follow_the_specification(sealed):
    envelope, key = sealed
    assert key.commit == hmac.new(key.octets, b"edgora key", hashlib.sha256).digest()
    assert envelope.cipher_digest == keccak(envelope.iv + envelope.ciphertext + envelope.tag)
    salt = hmac.new(key.octets, b"edgora result", hashlib.sha256).digest()
    assert result_digest(key, 3, b"out") == keccak(salt + b"\x00\x03" + b"out")


def test_equal_results_compare_and_others_differ():
    one, two = ContentKey(b"\x01" * 32), ContentKey(b"\x02" * 32)
    digests = {
        result_digest(one, 0, b"a"),
        result_digest(one, 0, b"b"),
        result_digest(one, 1, b"a"),
        result_digest(two, 0, b"a"),
    }
    assert len(digests) == 4
    assert result_digest(one, 0, b"a") == result_digest(ContentKey(b"\x01" * 32), 0, b"a")


def test_fresh_entropy_gives_a_fresh_key_and_ciphertext(keys):
    entropy = Entropy()
    first, second = (seal(SECRET, [keys[0].public], CONTEXT, entropy) for _ in range(2))
    assert first[1].octets != second[1].octets
    assert first[0].ciphertext != second[0].ciphertext


def test_a_short_entropy_source_is_refused(keys):
    with pytest.raises(ValueError, match="32 octets"):
        seal(SECRET, [keys[0].public], CONTEXT, lambda _: b"")
    with pytest.raises(ValueError, match="entropy"):
        seal(SECRET, [keys[0].public], CONTEXT, lambda n: bytes(32) if n == 32 else b"")


def test_kids_name_the_recipient_keys(keys, sealed):
    jwe = sealed[0].to_jwe()
    assert jwe.recipients[0].header.kid == key_id(SealingPublicKey(keys[0].public.spki).digest)
