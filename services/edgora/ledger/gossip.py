"""New transactions: from our own API to all replicas, from peers into the pool (ledger.md 6.1, 8).

Every correct replica must know a transaction, not the primary only: then each can complain if it is not ordered.
What our API admitted is gossiped at once, or with its neighbours of the next two milliseconds; what is still waiting
after T goes out again, since a link may have lost it.
"""

from edgora.ledger.effects import ALL, Answer, ClientTx, Verify
from edgora.ledger.pool import Admission
from edgora.ledger.state import Core
from edgora.wire.codec import encode
from edgora.wire.ledger import SignedTx, tx_hash
from edgora.wire.pbft import MAX_BLOCK_TXS, TxGossip

__all__ = ["flush", "on_client_tx", "on_gossip", "on_gossip_verified", "repeat"]

_GATHER_MS = 2
_MESSAGE_OCTETS = 2**20
_PENDING = 256
"""Messages of gossip whose signatures may be under way at once; more are dropped, their senders repeat them."""
_REPEATED = 256
"""Transactions that one turn of repetition sends at most."""


def on_client_tx(core: Core, event: ClientTx) -> None:
    """Take a transaction of our own API process, which checked its signature."""
    octets = len(encode(event.tx))
    admission = core.pool.add(event.tx, event.hash, octets, core.now, core.chain.head.height + 1, own=True)
    if admission is Admission.ADMITTED:
        core.gossip.append(event.hash)
    elif admission is Admission.KNOWN:
        entry = core.pool.get(event.hash)
        if entry is not None:
            entry.own = True
    admitted = admission in {Admission.ADMITTED, Admission.KNOWN}
    core.out.answers.append(Answer(event.hash, admitted, admission.name))


def flush(core: Core) -> None:
    """Send what was gathered, or set the timer for it."""
    if not core.gossip:
        core.set_timer("gossip", None)
    elif core.now >= core.gossiped_ms + _GATHER_MS or len(core.gossip) >= MAX_BLOCK_TXS:
        _spread(core, core.gossip)
        core.gossip = []
        core.gossiped_ms = core.now
        core.set_timer("gossip", None)
    else:
        core.set_timer("gossip", core.gossiped_ms + _GATHER_MS)


def repeat(core: Core) -> None:
    """Send our own transactions again that have been waiting for T."""
    due = core.now - core.params.timeout_ms
    waiting: list[bytes] = []
    for entry in core.pool.entries():
        if entry.own and entry.gossiped_ms <= due:
            entry.gossiped_ms = core.now
            waiting.append(entry.hash)
            if len(waiting) == _REPEATED:
                break
    _spread(core, waiting)


def _spread(core: Core, hashes: list[bytes]) -> None:
    part: list[SignedTx] = []
    octets = 0
    for name in hashes:
        entry = core.pool.get(name)
        if entry is None:
            continue
        if part and (len(part) == MAX_BLOCK_TXS or octets + entry.octets > _MESSAGE_OCTETS):
            core.send(ALL, TxGossip(core.config.epoch, tuple(part)))
            part, octets = [], 0
        part.append(entry.signed)
        octets += entry.octets
    if part:
        core.send(ALL, TxGossip(core.config.epoch, tuple(part)))


def on_gossip(core: Core, peer: int, message: TxGossip) -> None:
    """Have the signatures checked of what is new here and could enter the pool."""
    if len(core.verifying) >= _PENDING:
        return
    height = core.chain.head.height + 1
    fresh = [
        (signed, tx_hash(signed.tx, core.config.domain))
        for signed in message.txs
        if core.pool.same(signed) is None and core.pool.refusal(signed, 0, height) is None
    ]
    if not fresh:
        return
    token = core.new_token()
    core.verifying[token] = (peer, tuple(fresh))
    core.out.verify.append(Verify(token, tuple((s.tx.sender, name, s.signature) for s, name in fresh)))


def on_gossip_verified(core: Core, peer: int, txs: tuple[tuple[SignedTx, bytes], ...], ok: tuple[bool, ...]) -> None:
    """Pool what is properly signed."""
    height = core.chain.head.height + 1
    for (signed, name), good in zip(txs, ok, strict=True):
        if good:
            core.pool.add(signed, name, len(encode(signed)), core.now, height)
        else:
            core.fault(peer, "a gossiped transaction with a bad signature")
