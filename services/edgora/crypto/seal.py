"""Sealed inputs and results: JWE General JSON that other tools can open (README.md, Sealing; market.md 2 and 5).

Content is encrypted once with a fresh AES-256-GCM key (the content key); the key is wrapped with RSA-OAEP-256 for each
recipient. The protected header is {"enc":"A256GCM"} and nothing else, so a recipient is added or replaced without
touching the ciphertext: the source re-seals the key to the executor, the executor to each auditor. What the envelope
is for stands in the additional data, so an envelope cannot be moved to another task:

    aad          = abi.encode(uint256 chainId, bytes32 genesisId, address ue, uint64 nonce, bytes32 moduleDigest)
    GCM's aad    = base64url(protected) || "." || base64url(aad)                              RFC 7516 5.1, step 14
    cipherDigest = H(iv || ciphertext || tag)                  an Offer's inputDigest, a ResultHash's cipherDigest
    keyCommit    = HMAC-SHA256(content key, "edgora key")
    salt         = HMAC-SHA256(content key of the input, "edgora result")
    resultDigest = H(salt || uint16 code, big endian || output)

AES-GCM does not commit to its key: one ciphertext can be made that opens under two keys to two texts. Whoever is handed
a key therefore compares keyCommit before anything is decrypted. A result is sealed like an input, with the same context
and a fresh key of its own; its plaintext is the output, and the UE compares resultDigest with the certified one.

Randomness comes from the caller (`entropy(n)` gives n octets); only OAEP's own padding is the library's. No error and
no repr of this module shows a plaintext or a content key.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgora.crypto.keys import SealingKey, SealingPublicKey, key_id
from edgora.wire.codec import B32
from edgora.wire.errors import Refused, TooLarge, WireError
from edgora.wire.hashing import keccak
from edgora.wire.rest import JweEnvelope, JweRecipient, JweRecipientHeader
from edgora.wire.units import Digest

__all__ = [
    "MAX_RECIPIENTS", "MAX_SEALED_OCTETS", "ContentKey", "Context", "Entropy", "Envelope", "KeyMismatch", "NotRecipient",
    "Opened", "Recipient", "SealError", "Tampered", "WrongContext", "add_recipient", "open_sealed", "reseal",
    "result_digest", "seal", "unwrap",
]  # fmt: skip

MAX_SEALED_OCTETS: Final = 16 * 1024 * 1024
"""Largest plaintext, and so ciphertext, of an input or a result (market.md 8)."""

MAX_RECIPIENTS: Final = 64
"""As many as a consortium may have servers (market.md 8)."""

Entropy = Callable[[int], bytes]
"""Gives so many random octets: `secrets.token_bytes` in production, a seeded source in tests."""

_PROTECTED: Final = base64.urlsafe_b64encode(b'{"enc":"A256GCM"}').rstrip(b"=")
_ALG: Final = "RSA-OAEP-256"
_KEY_OCTETS, _IV_OCTETS, _TAG_OCTETS = 32, 12, 16


class SealError(Refused):
    """An envelope that cannot be opened, or not for this purpose."""

    code = "bad_seal"


class NotRecipient(SealError):
    """Nobody wrapped the content key for this RSA key."""


class KeyMismatch(SealError):
    """The wrapped key is damaged or is not the one the offer commits to: UNAVAILABLE, an auditor's NO_KEY."""


class WrongContext(SealError):
    """The envelope was made for another task, UE, module, chain or consortium."""


class Tampered(SealError):
    """Ciphertext, iv, tag or additional data were changed."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an envelope is for; the offer's fields and the consortium's."""

    chain_id: int
    genesis_id: bytes
    ue: bytes
    nonce: int
    module_digest: bytes

    def aad(self) -> bytes:
        """abi.encode of the five, 160 octets. Raises OverflowError or ValueError for a field out of its width."""
        if len(self.genesis_id) != 32 or len(self.ue) != 20 or len(self.module_digest) != 32 or self.nonce >= 2**64:
            raise ValueError("a field of the sealing context is out of its width")
        return b"".join((
            self.chain_id.to_bytes(32, "big"),
            self.genesis_id,
            bytes(12) + self.ue,
            self.nonce.to_bytes(32, "big"),
            self.module_digest,
        ))  # fmt: skip


class ContentKey:
    """An AES-256 key of one envelope, and what follows from it. Hidden from repr."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        if len(octets) != _KEY_OCTETS:
            raise ValueError("a content key has 32 octets")
        self._octets = octets

    @property
    def octets(self) -> bytes:
        return self._octets

    @property
    def commit(self) -> Digest:
        """What an Offer carries as keyCommit."""
        return Digest(hmac.digest(self._octets, b"edgora key", "sha256"))

    @property
    def result_salt(self) -> bytes:
        """Makes equal results comparable and small ones not guessable, for those who hold the input's key."""
        return hmac.digest(self._octets, b"edgora result", "sha256")

    def __repr__(self) -> str:
        return "ContentKey(hidden)"


class Recipient(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The content key, wrapped for one RSA key."""

    key: B32
    """Digest of the RSA key; its hex is the kid."""
    wrapped: Annotated[bytes, msgspec.Meta(min_length=384, max_length=512)]


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sealed input or result.

    As it stands it is what nodes store and send among themselves (canonical MessagePack through wire.codec);
    `to_jwe` and `from_jwe` are its form in REST.
    """

    aad: Annotated[bytes, msgspec.Meta(min_length=160, max_length=160)]
    iv: Annotated[bytes, msgspec.Meta(min_length=_IV_OCTETS, max_length=_IV_OCTETS)]
    ciphertext: Annotated[bytes, msgspec.Meta(max_length=MAX_SEALED_OCTETS)]
    tag: Annotated[bytes, msgspec.Meta(min_length=_TAG_OCTETS, max_length=_TAG_OCTETS)]
    recipients: Annotated[tuple[Recipient, ...], msgspec.Meta(min_length=1, max_length=MAX_RECIPIENTS)]

    @property
    def cipher_digest(self) -> Digest:
        """H(iv || ciphertext || tag); recipients are not part of it."""
        return keccak(self.iv + self.ciphertext + self.tag)

    def to_jwe(self) -> JweEnvelope:
        """JWE General JSON (RFC 7516 7.2.1); any JOSE library opens it."""
        return JweEnvelope(
            protected=_PROTECTED.decode(),
            aad=_b64(self.aad),
            iv=_b64(self.iv),
            ciphertext=_b64(self.ciphertext),
            tag=_b64(self.tag),
            recipients=[
                JweRecipient(header=JweRecipientHeader(alg=_ALG, kid=key_id(r.key)), encrypted_key=_b64(r.wrapped))
                for r in self.recipients
            ],
        )

    @classmethod
    def from_jwe(cls, jwe: JweEnvelope) -> "Envelope":
        """Read a JWE. Raises TooLarge, or WireError naming the member that is not as this module makes it."""
        if len(jwe.ciphertext) > -(-MAX_SEALED_OCTETS * 4 // 3):
            raise TooLarge(f"sealed content is over {MAX_SEALED_OCTETS} octets", field="ciphertext")
        if jwe.protected != _PROTECTED.decode():
            raise WireError('the protected header must be {"enc":"A256GCM"} and nothing else', field="protected")
        aad = cls._part(jwe.aad, "aad", 160, 160)
        iv = cls._part(jwe.iv, "iv", _IV_OCTETS, _IV_OCTETS)
        ciphertext = cls._part(jwe.ciphertext, "ciphertext", 0, MAX_SEALED_OCTETS)
        tag = cls._part(jwe.tag, "tag", _TAG_OCTETS, _TAG_OCTETS)
        if not 1 <= len(jwe.recipients) <= MAX_RECIPIENTS:
            raise WireError(f"{len(jwe.recipients)} recipients; 1 to {MAX_RECIPIENTS} may be", field="recipients")
        recipients = []
        for r in jwe.recipients:
            digest = _kid_digest(r.header.kid)
            if digest is None:
                raise WireError("a recipient's kid must be its key digest, 0x first", field="recipients.header.kid")
            recipients.append(Recipient(digest, cls._part(r.encrypted_key, "recipients.encrypted_key", 384, 512)))
        return cls(aad, iv, ciphertext, tag, tuple(recipients))

    @staticmethod
    def _part(text: str, name: str, least: int, most: int) -> bytes:
        try:
            octets = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            octets = None
        if octets is None or _b64(octets) != text:
            raise WireError(f"{name} is not base64url without padding", field=name)
        if not least <= len(octets) <= most:
            raise WireError(f"{name} has {len(octets)} octets; {least} to {most} may be", field=name)
        return octets

    def __repr__(self) -> str:
        kids = ", ".join(key_id(r.key)[:10] for r in self.recipients)
        return f"Envelope({len(self.ciphertext)} octets for {kids})"


class Opened:
    """A plaintext with the content key that it was under. Hidden from repr."""

    __slots__ = ("key", "plaintext")

    def __init__(self, plaintext: bytes, key: ContentKey) -> None:
        self.plaintext = plaintext
        self.key = key

    def __repr__(self) -> str:
        return f"Opened({len(self.plaintext)} octets, hidden)"


def seal(
    plaintext: bytes, recipients: Sequence[SealingPublicKey], context: Context, entropy: Entropy
) -> tuple[Envelope, ContentKey]:
    """Encrypt once, wrap the fresh key for each recipient. The key comes back for keyCommit and the result's salt.

    Raises TooLarge before any work; ValueError for no or too many recipients.
    """
    if len(plaintext) > MAX_SEALED_OCTETS:
        raise TooLarge(f"{len(plaintext)} octets to seal; at most {MAX_SEALED_OCTETS} may be")
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise ValueError(f"{len(recipients)} recipients; 1 to {MAX_RECIPIENTS} may be")
    key, iv, aad = ContentKey(entropy(_KEY_OCTETS)), entropy(_IV_OCTETS), context.aad()
    if len(iv) != _IV_OCTETS:
        raise ValueError("the entropy source gave too few octets")
    sealed = AESGCM(key.octets).encrypt(iv, plaintext, _associated(aad))
    wrapped = tuple(_wrap(key, r) for r in recipients)
    return Envelope(aad, iv, sealed[:-_TAG_OCTETS], sealed[-_TAG_OCTETS:], wrapped), key


def unwrap(envelope: Envelope, own: SealingKey, commit: bytes | None) -> ContentKey:
    """The content key that was wrapped for us, checked against keyCommit.

    Raises NotRecipient, or KeyMismatch if the wrapped key is damaged or not the committed one.
    """
    mine = [r.wrapped for r in envelope.recipients if r.key == own.public.digest]
    if not mine:
        raise NotRecipient(f"the envelope is not sealed to {own.public.kid}")
    octets = own.unwrap(mine[0])
    if octets is None or len(octets) != _KEY_OCTETS:
        raise KeyMismatch(f"the content key for {own.public.kid} does not unwrap")
    key = ContentKey(octets)
    if commit is not None and not hmac.compare_digest(key.commit, commit):
        raise KeyMismatch("the content key is not the one that the offer commits to")
    return key


def open_sealed(envelope: Envelope, own: SealingKey, context: Context, commit: bytes | None) -> Opened:
    """Open an envelope that is for us and for this context.

    commit is the Offer's keyCommit; None only for a result, whose digest is certified instead. Checks in this order:
    size, recipient, commit, context, tag. Raises TooLarge or a SealError that says which failed.
    """
    if len(envelope.ciphertext) > MAX_SEALED_OCTETS:
        raise TooLarge(f"{len(envelope.ciphertext)} sealed octets; at most {MAX_SEALED_OCTETS} may be")
    key = unwrap(envelope, own, commit)
    if envelope.aad != context.aad():
        raise WrongContext("the envelope was sealed for another task, UE, module, chain or consortium")
    try:
        plaintext = AESGCM(key.octets).decrypt(
            envelope.iv, envelope.ciphertext + envelope.tag, _associated(envelope.aad)
        )
    except InvalidTag:
        raise Tampered("the sealed content was changed: its tag does not fit") from None
    return Opened(plaintext, key)


def reseal(envelope: Envelope, own: SealingKey, recipient: SealingPublicKey, commit: bytes | None) -> Envelope:
    """The same ciphertext for one other recipient, and only for it. Raises what `unwrap` raises."""
    return _with(envelope, (_wrap(unwrap(envelope, own, commit), recipient),))


def add_recipient(envelope: Envelope, own: SealingKey, recipient: SealingPublicKey, commit: bytes | None) -> Envelope:
    """The same ciphertext with one recipient more; an older entry for that key is replaced."""
    others = tuple(r for r in envelope.recipients if r.key != recipient.digest)
    if len(others) >= MAX_RECIPIENTS:
        raise TooLarge(f"the envelope has {MAX_RECIPIENTS} recipients already")
    return _with(envelope, (*others, _wrap(unwrap(envelope, own, commit), recipient)))


def result_digest(input_key: ContentKey, code: int, output: bytes) -> Digest:
    """H(salt || code || output) with the salt of the input's content key: what executor and auditors file."""
    return keccak(input_key.result_salt + code.to_bytes(2, "big") + output)


def _wrap(key: ContentKey, recipient: SealingPublicKey) -> Recipient:
    return Recipient(recipient.digest, recipient.wrap(key.octets))


def _with(envelope: Envelope, recipients: tuple[Recipient, ...]) -> Envelope:
    return msgspec.structs.replace(envelope, recipients=recipients)


def _associated(aad: bytes) -> bytes:
    return _PROTECTED + b"." + _b64(aad).encode()


def _b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _kid_digest(kid: str) -> bytes | None:
    try:
        digest = bytes.fromhex(kid[2:])
    except ValueError:
        return None
    return digest if len(digest) == 32 and kid == key_id(digest) else None
