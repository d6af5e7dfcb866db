"""A server's key document: what its metaHash on chain and in the genesis stands for (contracts.md 7, README.md 1).

The document itself is served by the server (`GET /v1/servers`); a client believes it only if its hash is the certified
metaHash.
"""

import msgspec

from edgora.wire.codec import encode
from edgora.wire.hashing import keccak
from edgora.wire.units import Digest

__all__ = ["ServerMetadata"]


class ServerMetadata(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    endpoint: str
    """REST base URL inside the consortium's network, e.g. http://node0:8000."""
    public_url: str
    """REST base URL for people on the host, e.g. http://127.0.0.1:8100 (container names do not resolve there)."""
    rsa_spki: bytes
    """SPKI DER of the RSA-3072 key that inputs are sealed to."""
    link_key: bytes
    """SPKI DER of the TLS key of this server's links."""

    @property
    def hash(self) -> Digest:
        """metaHash: keccak of the canonical document."""
        return keccak(encode(self))
