"""What a node keeps of a task's bulk, as stored: ciphertext and what belongs to it, canonical MessagePack."""

from dataclasses import dataclass

import msgspec

from edgora.crypto.keys import SealingKey
from edgora.crypto.seal import Context, Envelope
from edgora.crypto.sign import SigningKey
from edgora.wire.codec import B32, U8
from edgora.wire.genesis import Genesis
from edgora.wire.market import Offer
from edgora.wire.metadata import ServerMetadata

__all__ = ["InputRecord", "NodeKeys", "ResultRecord", "context_of"]


class InputRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sealed input that this node keeps: as its source from the upload, or fetched to run or audit it."""

    offer: Offer
    envelope: Envelope
    """With a recipient that is us."""
    result_key: bytes
    """SPKI DER that the result is to be sealed to."""


class ResultRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sealed result: ours, or one that we hold for its executor."""

    offer_id: B32
    code: U8
    result_digest: B32
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """A node's secrets. signer: votes, Held, Stored, duties and the chain account; sealing: inputs are sealed to it."""

    signer: SigningKey
    sealing: SealingKey
    link_spki: bytes
    faucet: SigningKey | None = None
    """Development only: pays deposits for whoever asks."""

    def document(self, network_url: str, public_url: str) -> ServerMetadata:
        """The key document whose hash is the certified metaHash."""
        return ServerMetadata(network_url, public_url, self.sealing.public.spki, self.link_spki)


def context_of(genesis: Genesis, offer: Offer) -> Context:
    """What the envelopes of a task are bound to."""
    return Context(genesis.chain_id, genesis.id, offer.ue, offer.nonce, offer.module_digest)
