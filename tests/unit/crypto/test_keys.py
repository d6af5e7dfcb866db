"""RSA keys: names, forms, refusals."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgora.crypto.keys import BadKey, SealingKey, SealingPublicKey, key_digest, key_id
from edgora.wire.hashing import keccak


@pytest.fixture(scope="module")
def key():
    return SealingKey.generate()


def spki(public):
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_key_is_named_by_the_hash_of_its_spki(key):
    assert key.public.digest == key_digest(key.public.spki) == keccak(key.public.spki)
    assert key.public.kid == key_id(key.public.digest) == "0x" + keccak(key.public.spki).hex()


def test_pem_round_trip_keeps_the_key(key):
    again = SealingKey.from_pem(key.to_pem())
    assert again.public.spki == key.public.spki
    assert again.unwrap(key.public.wrap(b"secret")) == b"secret"


def test_public_half_from_bytes_wraps_for_the_private_half(key):
    assert key.unwrap(SealingPublicKey(key.public.spki).wrap(b"x" * 32)) == b"x" * 32


def test_a_damaged_or_foreign_wrap_unwraps_to_nothing(key):
    wrapped = bytearray(key.public.wrap(b"secret"))
    wrapped[7] ^= 1
    assert key.unwrap(bytes(wrapped)) is None
    assert key.unwrap(b"") is None


@pytest.mark.parametrize("bits", [2048])
def test_short_keys_are_refused(bits):
    with pytest.raises(BadKey, match="RSA-2048"):
        SealingPublicKey(spki(rsa.generate_private_key(65537, bits).public_key()))


def test_other_kinds_of_keys_and_noise_are_refused(key):
    with pytest.raises(BadKey, match="not RSA"):
        SealingPublicKey(spki(ec.generate_private_key(ec.SECP256R1()).public_key()))
    for noise in (b"", b"\x30\x00", bytes(500), bytes(2000), key.public.spki[:-1]):
        with pytest.raises(BadKey):
            SealingPublicKey(noise)
    with pytest.raises(BadKey):
        SealingPublicKey(key.public.spki + b"\x00")
    with pytest.raises(BadKey):
        SealingKey.from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_an_ec_private_key_is_refused():
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(BadKey, match="not RSA"):
        SealingKey.from_pem(pem)


def test_repr_shows_the_name_only(key):
    assert repr(key) == f"SealingKey({key.public.kid})"
    assert repr(key.public) == f"SealingPublicKey({key.public.kid})"
