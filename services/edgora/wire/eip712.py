"""EIP-712 structures: the one form in which Edgora hashes and signs (ledger.md 2).

A structure is a frozen msgspec array (its wire form) that also carries its EIP-712 type string. Field order in Python,
on the wire and in the type string is the same; only the spelling differs (snake_case here, camelCase there).

    digest(s, domain) = H(0x1901 || domain separator || hashStruct(s))
    hashStruct(s)     = H(typeHash || one 32-byte word a field), `bytes` fields as H(bytes)
"""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from edgora.wire.hashing import keccak
from edgora.wire.units import Digest

__all__ = ["Domain", "Typed"]

_Word = Callable[[Any], bytes]


def _uint(bits: int) -> _Word:
    limit = 1 << bits

    def word(value: int) -> bytes:
        if not 0 <= value < limit:
            raise ValueError(f"{value} does not fit uint{bits}")
        return value.to_bytes(32, "big")

    return word


def _fixed(length: int, left: bool) -> _Word:
    pad = bytes(32 - length)

    def word(value: bytes) -> bytes:
        if len(value) != length:
            raise ValueError(f"{len(value)} octets where {length} are fixed")
        return pad + value if left else value + pad

    return word


def _word_of(solidity: str) -> _Word:
    if solidity.startswith("uint"):
        return _uint(int(solidity[4:]))
    if solidity == "address":
        return _fixed(20, left=True)
    if solidity == "bytes":
        return keccak
    if solidity == "string":
        return lambda text: keccak(text.encode())
    if solidity.startswith("bytes"):
        return _fixed(int(solidity[5:]), left=False)
    raise TypeError(f"no EIP-712 word for {solidity}")


class Typed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A structure with an EIP-712 type. Subclasses set TYPE; the fields must follow it one by one."""

    TYPE: ClassVar[str]
    TYPE_HASH: ClassVar[bytes]
    _WORDS: ClassVar[tuple[_Word, ...]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        inner = cls.TYPE[cls.TYPE.index("(") + 1 : -1]
        cls.TYPE_HASH = keccak(cls.TYPE.encode())
        cls._WORDS = tuple(_word_of(field.split()[0]) for field in inner.split(","))

    def struct_hash(self) -> Digest:
        """hashStruct of EIP-712. Raises ValueError for a field that is out of its declared width."""
        words = [word(value) for word, value in zip(self._WORDS, msgspec.structs.astuple(self), strict=True)]
        return keccak(self.TYPE_HASH + b"".join(words))

    def digest(self, domain: "Domain") -> Digest:
        """What is signed: this structure within a domain."""
        return keccak(b"\x19\x01" + domain.separator + self.struct_hash())


class Domain:
    """An EIP-712 domain: which deployment a signature is for.

    The ledger's: name "EdgeLedger", version "1", chainId = consortium id, salt = genesis id.
    The market's: name "EdgoraMarket", version "1", chainId, verifyingContract, salt = genesis id (contracts.md 5).
    """

    __slots__ = ("separator",)

    def __init__(self, name: str, chain_id: int, salt: bytes, verifying_contract: bytes | None = None) -> None:
        head = "EIP712Domain(string name,string version,uint256 chainId,"
        words = [keccak(name.encode()), keccak(b"1"), chain_id.to_bytes(32, "big")]
        if verifying_contract is not None:
            head += "address verifyingContract,"
            words.append(bytes(12) + verifying_contract)
        self.separator = keccak(keccak((head + "bytes32 salt)").encode()) + b"".join(words) + salt)

    @classmethod
    def ledger(cls, consortium_id: int, genesis_id: bytes) -> "Domain":
        return cls("EdgeLedger", consortium_id, genesis_id)

    @classmethod
    def market(cls, chain_id: int, contract: bytes, genesis_id: bytes) -> "Domain":
        return cls("EdgoraMarket", chain_id, genesis_id, contract)
