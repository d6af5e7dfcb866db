"""A scripted Byzantine replica (ledger.md 19): a real core whose mouth somebody else controls.

Every message that the core sends passes `rewrite`, which may drop it, address it to a few, or replace it by lies signed
with the replica's own key; `tick` says things that no core would say. Lies are aimed: each behaviour is a known way to
break a PBFT that checks too little. Nobody else's signature can be forged (registry).
"""

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edgora.ledger.effects import ALL, Send
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import merkle_root
from edgora.wire.ledger import Block, Certificate, CheckpointBody, Header, Phase, SignedTx, Vote, quorum
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    GetBlocks,
    GetBody,
    GetChunk,
    Message,
    NewView,
    NewViewBody,
    Prepare,
    PrePrepare,
    PutBlocks,
    PutBody,
    PutCertificate,
    PutChunk,
    SnapshotOffer,
    Status,
    TxGossip,
    ViewChange,
    ViewChangeBody,
    encode_message,
    view_changes_hash,
)
from edgora.wire.units import Digest

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host
    from edgora.lab.sim.registry import Signer

__all__ = ["Byzantine", "Letter"]

Letter = tuple[int, bytes, int]
"""(receiver, octets, extra delay in ms)."""

TICK_MS = 250
_HUGE = (2**20, 2**40, 2**63, 2**64 - 1)


class Byzantine:
    """The will behind one faulty identity."""

    def __init__(
        self,
        seed: int,
        signer: "Signer",
        domain: Domain,
        n: int,
        index: int,
        behaviours: tuple[str, ...],
        timeout_ms: int,
        genesis: bytes,
    ) -> None:
        """genesis: the hash of its header."""
        self._rng = random.Random(f"byzantine:{seed}")
        self._signer = signer
        self._domain = domain
        self._n = n
        self._index = index
        self._others = [i for i in range(n) if i != index]
        self._does = frozenset(behaviours)
        self._timeout_ms = timeout_ms
        self._genesis = genesis
        self._favourite = seed % 9
        self._lies: dict[tuple[int, int], Header] = {}
        """(view, height) -> the second header that we proposed there."""
        self._believers: frozenset[int] = frozenset()
        self._old_view_changes: list[ViewChange] = []
        self._heard: list[Message] = []
        self._made_up: dict[bytes, Block] = {}
        self._proposed: deque[SignedTx] = deque(maxlen=200)
        """What we proposed before; most of it has been executed since."""
        self._rewriters: list[tuple[str, Callable[[Message, list[int]], list[Letter] | None]]] = [
            ("silent_primary", self._silent_primary),
            ("equivocate", self._equivocate),
            ("bad_blocks", self._bad_blocks),
            ("few_backups", self._few_backups),
            ("slow_drip", self._slow_drip),
            ("selective_commit", self._selective_commit),
            ("stale_view_change", self._stale_view_change),
            ("forged_view_change", self._forged_view_change),
            ("lying_sync", self._lying_sync),
            ("withhold", self._withhold),
            ("malleate", self._malleate),
        ]

    # ---- the two hooks -------------------------------------------------------------------------------------------------

    def rewrite(self, send: Send) -> list[Letter]:
        """What leaves the machine instead of this send."""
        targets = self._others if send.dest == ALL else [send.dest]
        for name, act in self._rewriters:
            if name in self._does:
                letters = act(send.message, targets)
                if letters is not None:
                    return letters
        return self._post(send.message, targets)

    def overhear(self, peer: int, message: Message) -> list[Letter]:
        """Something arrived: kept for replays; a question for a block that we made up is answered."""
        if len(self._heard) < 400 or self._rng.random() < 0.1:
            self._heard.append(message)
            del self._heard[: len(self._heard) - 400]
        if isinstance(message, GetBody) and message.block_hash in self._made_up:
            return self._post(PutBody(message.epoch, self._made_up[message.block_hash]), [peer])
        return []

    def tick(self, host: "Host") -> list[Letter]:
        """Unprompted talk."""
        if host.replica is None:
            return []
        status = host.replica.status(host.local_ms())
        letters: list[Letter] = []
        if "huge_views" in self._does:
            letters += self._huge_views(status.epoch, status.height)
        if "garbage" in self._does:
            letters += self._garbage()
        if "foreign" in self._does:
            letters += self._foreign(status.epoch, status.view, status.height)
        if "stale_view_change" in self._does and self._old_view_changes:
            letters += self._post(self._rng.choice(self._old_view_changes), self._others)
        if "lying_sync" in self._does:
            letters += self._false_status(status.epoch, status.view, status.height)
        if self._heard and self._rng.random() < 0.3:
            letters += self._post(self._rng.choice(self._heard), [self._rng.choice(self._others)])
        return letters

    # ---- tools -----------------------------------------------------------------------------------------------------------

    def _post(self, message: Message, targets: list[int], delay_ms: int = 0) -> list[Letter]:
        data = encode_message(message)
        return [(target, data, delay_ms) for target in targets]

    def _sign(self, body: Vote | ViewChangeBody | NewViewBody | CheckpointBody) -> bytes:
        return self._signer.sign(body.digest(self._domain))

    def _half(self) -> list[int]:
        return self._rng.sample(self._others, self._rng.randint(1, len(self._others) - 1))

    def _proposal(self, original: PrePrepare, header: Header, txs: tuple[SignedTx, ...]) -> PrePrepare:
        vote = Vote(Phase.PREPARE, original.epoch, original.view, header.height, header.struct_hash())
        return msgspec.structs.replace(original, header=header, txs=txs, hashes=(), signature=self._sign(vote))

    # ---- as primary ----------------------------------------------------------------------------------------------------

    def _silent_primary(self, message: Message, targets: list[int]) -> list[Letter] | None:
        if isinstance(message, PrePrepare) and self._rng.random() < 0.7:
            return []
        if isinstance(message, NewView) and self._rng.random() < 0.3:
            return self._post(message, self._rng.sample(targets, len(targets) // 2))
        return None

    def _equivocate(self, message: Message, targets: list[int]) -> list[Letter] | None:
        if isinstance(message, PrePrepare):
            header = message.header
            txs = message.txs[1:] if message.txs else ()
            leaves = [tx.tx.digest(self._domain) + tx.signature for tx in txs]
            lie = msgspec.structs.replace(
                header, time_ms=header.time_ms + 1, tx_count=len(txs), tx_root=merkle_root(leaves)
            )
            above = self._lies.get((message.view, header.height - 1))
            if above is not None:
                lie = msgspec.structs.replace(lie, parent=above.struct_hash())
            else:
                self._believers = frozenset(self._half())
            self._lies[message.view, header.height] = lie
            fooled = [t for t in targets if t in self._believers]
            rest = [t for t in targets if t not in self._believers]
            return self._post(self._proposal(message, lie, txs), fooled) + self._post(message, rest)
        if isinstance(message, Prepare | Commit):
            lied = self._lies.get((message.view, message.height))
            if lied is None:
                return None
            phase = Phase.PREPARE if isinstance(message, Prepare) else Phase.COMMIT
            lie_hash = lied.struct_hash()
            vote = Vote(phase, message.epoch, message.view, message.height, lie_hash)
            false = msgspec.structs.replace(message, block_hash=lie_hash, signature=self._sign(vote))
            fooled = [t for t in targets if t in self._believers]
            return self._post(false, fooled) + self._post(message, [t for t in targets if t not in self._believers])
        return None

    def _bad_blocks(self, message: Message, targets: list[int]) -> list[Letter] | None:
        if not isinstance(message, PrePrepare):
            return None
        header, txs, rng = message.header, message.txs, self._rng
        old = tuple(self._proposed)
        self._proposed.extend(txs)
        luck = rng.random()
        # Most lies cost us the view. A block with an old transaction does not: it must be voted for, and not run it again.
        # A liar has a favourite, so that among few seeds each lie is told before another one is found out.
        lie = 2 if luck < 0.6 else self._favourite if luck < 0.9 else rng.randrange(9)
        if luck < 0.3 or (lie < 2 and not txs) or (lie == 2 and not old):
            return None
        match lie:
            case 0:
                body = msgspec.structs.replace(txs[0].tx, seq=txs[0].tx.seq + 1)
                txs = (SignedTx(body, txs[0].signature), *txs[1:])
            case 1:
                txs = (*txs, txs[0])
            case 2:
                txs = (*txs, rng.choice(old))
            case 3:
                header = msgspec.structs.replace(header, state_root=rng.randbytes(32))
            case 4:
                header = msgspec.structs.replace(header, receipt_root=rng.randbytes(32))
            case 5:
                header = msgspec.structs.replace(header, parent=rng.randbytes(32))
            case 6:
                leap = rng.choice((10_000, 10**9))
                header = msgspec.structs.replace(header, time_ms=header.time_ms + leap)
            case 7:
                header = msgspec.structs.replace(header, exec_height=header.height)
            case _:
                header = msgspec.structs.replace(header, next_epoch=rng.randbytes(32))
        leaves = [tx.tx.digest(self._domain) + tx.signature for tx in txs]
        header = msgspec.structs.replace(header, tx_count=len(txs), tx_root=merkle_root(leaves))
        return self._post(self._proposal(message, header, txs), targets)

    def _few_backups(self, message: Message, targets: list[int]) -> list[Letter] | None:
        """Serve q-1 backups only (or even one fewer), so that one more voter must be found elsewhere."""
        if isinstance(message, PrePrepare | NewView):
            served = quorum(self._n) - 1 - self._rng.randrange(2)
            start = self._rng.randrange(2)
            return self._post(message, targets[start : start + served])
        return None

    def _slow_drip(self, message: Message, targets: list[int]) -> list[Letter] | None:
        """Propose just before the others lose patience."""
        if isinstance(message, PrePrepare):
            return self._post(message, targets, self._timeout_ms * 8 // 10)
        return None

    # ---- as voter ------------------------------------------------------------------------------------------------------

    def _selective_commit(self, message: Message, targets: list[int]) -> list[Letter] | None:
        if isinstance(message, Commit | PutCertificate):
            return self._post(message, [self._rng.choice(targets)] if self._rng.random() < 0.5 else [])
        return None

    def _stale_view_change(self, message: Message, targets: list[int]) -> list[Letter] | None:
        """Claim to know less than we do: no tip, and the commit of long ago."""
        if not isinstance(message, ViewChange) or message.signer != self._index:
            return None
        self._old_view_changes.append(message)
        base = self._rng.choice(self._old_view_changes)
        body = msgspec.structs.replace(
            base.body, new_view=message.body.new_view, tip_view=0, tip_height=0, tip_hash=bytes(32)
        )
        stale = msgspec.structs.replace(base, body=body, tip=None, headers=(), signature=self._sign(body))
        half = self._half()
        return self._post(stale, [t for t in targets if t in half]) + self._post(
            message, [t for t in targets if t not in half]
        )

    def _forged_view_change(self, message: Message, targets: list[int]) -> list[Letter] | None:
        """Claim a tip that no quorum prepared: ours in a higher view, or a block made up on the spot."""
        if not isinstance(message, ViewChange) or message.signer != self._index:
            return None
        rng, body = self._rng, message.body
        source, headers = message.tip, message.headers
        donor = next((m for m in reversed(self._heard) if isinstance(m, PrePrepare)), None)
        if donor is not None and (source is None or rng.random() < 0.7):
            header = msgspec.structs.replace(donor.header, parent=body.commit_hash, height=body.commit_height + 1)
            headers, height, block_hash = (header,), header.height, header.struct_hash()
            self._made_up[block_hash] = Block(header, donor.txs)
        elif source is not None:
            height, block_hash = source.vote.height, Digest(source.vote.block_hash)
        else:
            return None
        raised = Vote(Phase.PREPARE, body.epoch, body.new_view - 1, height, block_hash)
        signers = (1 << quorum(self._n)) - 1
        forged = Certificate(raised, signers, tuple(self._sign(raised) for _ in range(quorum(self._n))))
        false = msgspec.structs.replace(body, tip_view=raised.view, tip_height=height, tip_hash=block_hash)
        lie = msgspec.structs.replace(message, body=false, tip=forged, headers=headers, signature=self._sign(false))
        return self._post(lie, targets)

    def _malleate(self, message: Message, targets: list[int]) -> list[Letter] | None:
        """Change signature octets: another v, s in the upper half, or noise."""
        if not isinstance(message, Prepare | Commit) or self._rng.random() < 0.5:
            return None
        old, rng = message.signature, self._rng
        order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
        high = (order - int.from_bytes(old[32:64], "big")) % order
        signature = rng.choice((
            old[:64] + bytes((old[64] ^ 7,)),
            old[:32] + high.to_bytes(32, "big") + bytes((old[64] ^ 7,)),
            rng.randbytes(65),
            bytes(65),
        ))  # fmt: skip
        return self._post(msgspec.structs.replace(message, signature=signature), targets)

    # ---- as a source of blocks -------------------------------------------------------------------------------------------

    def _withhold(self, message: Message, _targets: list[int]) -> list[Letter] | None:
        if isinstance(message, PutBlocks | PutBody | PutChunk | SnapshotOffer | TxGossip):
            return []
        return None

    def _lying_sync(self, message: Message, targets: list[int]) -> list[Letter] | None:
        rng = self._rng
        if isinstance(message, PutBlocks) and message.blocks:
            blocks = list(message.blocks)
            where = rng.randrange(len(blocks))
            false = msgspec.structs.replace(blocks[where].header, state_root=rng.randbytes(32))
            blocks[where] = msgspec.structs.replace(blocks[where], header=false)
            return self._post(msgspec.structs.replace(message, blocks=tuple(blocks)), targets)
        if isinstance(message, PutBody):
            header = msgspec.structs.replace(message.block.header, time_ms=message.block.header.time_ms + 1)
            block = msgspec.structs.replace(message.block, header=header)
            return self._post(msgspec.structs.replace(message, block=block), targets)
        if isinstance(message, PutChunk) and message.buckets:
            buckets = (*message.buckets[:-1], ((b"n/x", rng.randbytes(8)),))
            return self._post(msgspec.structs.replace(message, buckets=buckets), targets)
        return None

    def _false_status(self, epoch: int, view: int, height: int) -> list[Letter]:
        """Claim to be far ahead, so that others sync from us."""
        rng = self._rng
        ahead = height + rng.choice((1, 100, 2**40))
        status = Status(
            epoch, view, True, ahead, ahead, rng.randbytes(32), ahead // 2, 0, rng.getrandbits(60), suspects=True
        )
        return self._post(status, [rng.choice(self._others)])

    # ---- noise -------------------------------------------------------------------------------------------------------------

    def _huge_views(self, epoch: int, height: int) -> list[Letter]:
        rng = self._rng
        view, zero = rng.choice(_HUGE), bytes(32)
        body = ViewChangeBody(epoch, view, 0, 0, self._genesis, 0, 0, zero)
        view_change = ViewChange(epoch, self._index, body, None, None, (), self._sign(body))
        vote = Vote(rng.choice((Phase.PREPARE, Phase.COMMIT)), epoch, view, height + 1, rng.randbytes(32))
        kind = Prepare if vote.phase == Phase.PREPARE else Commit
        inner = NewViewBody(epoch, view, view_changes_hash((view_change,), self._domain))
        return [
            *self._post(view_change, self._others),
            *self._post(kind(epoch, view, height + 1, vote.block_hash, self._sign(vote)), self._others),
            *self._post(Status(epoch, view, True, height, height, zero, 0, 0, 1, suspects=True), self._others),
            *self._post(NewView(epoch, view, (view_change,), self._sign(inner)), self._others),
        ]

    def _garbage(self) -> list[Letter]:
        """Octets that are no message, and messages that make no sense."""
        rng = self._rng
        data = rng.randbytes(rng.randint(0, 60))
        if self._heard and rng.random() < 0.7:
            whole = bytearray(encode_message(rng.choice(self._heard)))
            for _ in range(rng.randint(1, 3)):
                whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            data = bytes(whole[: rng.randint(1, len(whole))]) if rng.random() < 0.3 else bytes(whole)
        letters = [(target, data, 0) for target in self._half()]
        body = CheckpointBody(0, rng.choice((8, 16, 128, 2**50)), rng.randbytes(32), rng.randbytes(32))
        wanted: list[Message] = [
            GetBlocks(0, rng.choice((0, 1, 2**60))),
            GetBody(0, rng.randbytes(32)),
            GetChunk(0, rng.choice((0, 8, 2**60)), rng.choice((0, 4095, 65535))),
            CheckpointVote(0, body, self._sign(body)),
        ]
        return letters + self._post(rng.choice(wanted), [rng.choice(self._others)])

    def _foreign(self, epoch: int, view: int, height: int) -> list[Letter]:
        """Votes of other epochs and other chains, in our own hand."""
        rng = self._rng
        block_hash = rng.randbytes(32)
        vote = Vote(Phase.COMMIT, epoch, view, height + 1, block_hash)
        elsewhere = self._signer.sign(vote.digest(Domain.ledger(99, bytes(32))))
        later = Vote(Phase.COMMIT, epoch + 1, view, height + 1, block_hash)
        return [
            *self._post(Commit(epoch, view, height + 1, block_hash, elsewhere), self._others),
            *self._post(Commit(epoch + 1, view, height + 1, block_hash, self._sign(later)), self._others),
        ]
