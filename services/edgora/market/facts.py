"""Facts of the chain: what a quorum of validators has seen there, and nothing else, enters the state (contracts.md 9).

Rule 1: a fact takes effect in the transaction that brings the q-th equal attestation; equal means block hash,
transaction index, log index and content.
Rule 2: a validator that attests two things for one place is refused the second time, and an event says so: evidence.
Rule 3: a place takes effect at most once, for ever. What never reaches a quorum is bounded per validator: beyond
MAX_PENDING of its own, its oldest goes; it never pushes out anybody else's.

Validators attest in chain order, each in its own lane, so effects follow chain order but for what f liars can twist;
a debit that comes before its deposit is therefore kept as a shortfall of the account. Head needs no equality: the
newest of each validator is kept with the header time at which it came (`Core.chain_seen`).
"""

from msgspec.structs import replace

from edgora.market.core import Core
from edgora.market.lifecycle import lock_refunded
from edgora.market.receipts import MAX_WEI
from edgora.market.records import ENDED_UNPAID, Account, Attestation, FactRecord, HeadSeen, Lock, Server
from edgora.market.rules import Refusal
from edgora.market.settlement import close_batch
from edgora.wire.codec import encode, from_u96, to_u96
from edgora.wire.hashing import keccak
from edgora.wire.market import (
    MAX_SERVERS,
    BatchSettled,
    ChainFact,
    Code,
    Deposited,
    EpochAdvanced,
    Exited,
    ExitRequested,
    Fact,
    Head,
    OfferOpened,
    OfferRefunded,
    ServerMetaChanged,
    ServerRegistered,
    ServerSlashed,
    ServerUnbonding,
)
from edgora.wire.market_events import FactApplied, FactConflict, LockChanged
from edgora.wire.settlement import lock_key
from edgora.wire.units import Digest

__all__ = ["MAX_PENDING", "attest", "check_attestation", "place_of"]

MAX_PENDING = 256
"""Attestations of one validator that may wait for a quorum."""


def place_of(fact: ChainFact) -> Digest:
    """Key of a place of the chain: block hash, transaction index, log index."""
    return keccak(fact.block_hash + fact.tx_index.to_bytes(4, "big") + fact.log_index.to_bytes(4, "big"))


def _content(fact: ChainFact) -> Digest:
    return keccak(encode(fact.fact))


def check_attestation(core: Core, server: Server, fact: ChainFact) -> None:
    """Raises Refusal for what this validator has said already, or contradicts."""
    if isinstance(fact.fact, Head):
        return
    record = core.state.facts.get(place_of(fact)) or FactRecord()
    content = _content(fact)
    own = next((a.content for a in record.attestations if a.server == server.id), None)
    if own is not None and own == content:
        raise Refusal(Code.FACT_GIVEN)
    if (record.applied or own or content) != content:
        raise Refusal(Code.FACT_CONFLICT)


def attest(core: Core, server: Server, fact: ChainFact) -> None:
    """CHAIN_FACT of a validator."""
    if isinstance(fact.fact, Head):
        core.state.heads.put(server.id, HeadSeen(fact.fact.number, fact.fact.time_s, core.now_ms))
        return
    try:
        check_attestation(core, server, fact)
    except Refusal as refusal:
        if refusal.code == Code.FACT_CONFLICT:
            core.emit(FactConflict(server.id, fact.block_hash, fact.tx_index, fact.log_index))
        raise
    place, content = place_of(fact), _content(fact)
    record = core.state.facts.get(place) or FactRecord()
    if record.applied is not None:
        return
    equal = [a for a in record.attestations if a.content == content]
    if len(equal) + 1 >= core.q:
        _apply(core, fact.fact)
        core.state.put_fact(place, FactRecord(content))
        core.emit(FactApplied(fact.block_hash, fact.tx_index, fact.log_index, fact.fact))
        return
    new = Attestation(server.id, content, core.state.next_order())
    core.state.put_fact(place, replace(record, attestations=(*record.attestations, new)))
    pending = core.state.pending[server.id]
    if len(pending) > MAX_PENDING:
        oldest = pending[min(pending)]
        record = core.state.facts[oldest]
        rest = tuple(a for a in record.attestations if a.server != server.id)
        core.state.put_fact(oldest, replace(record, attestations=rest))


# ---- effects -----------------------------------------------------------------------------------------------------------


def _apply(core: Core, fact: Fact) -> None:
    if isinstance(fact, Deposited):
        _deposit(core, fact)
    elif isinstance(fact, OfferOpened):
        _lock(core, fact)
    elif isinstance(fact, OfferRefunded):
        _refund(core, fact)
    elif isinstance(fact, ExitRequested):
        core.put_account(_account(core, fact.ue)._replace(exit_at_s=fact.when_s))
    elif isinstance(fact, Exited):
        account = _account(core, fact.ue)
        left = account.balance - from_u96(fact.wei)
        core.put_account(account._replace(
            balance=max(left, 0), shortfall=account.shortfall + max(-left, 0), exit_at_s=0,
        ))  # fmt: skip
    elif isinstance(fact, BatchSettled):
        close_batch(core, fact)
    elif isinstance(fact, ServerRegistered):
        _register(core, fact)
    elif isinstance(fact, ServerMetaChanged):
        core.state.put_server(replace(_server(core, fact.id), meta_hash=fact.meta_hash))
    elif isinstance(fact, ServerUnbonding | ServerSlashed):
        core.state.put_server(replace(_server(core, fact.id), leaving=True))
    elif isinstance(fact, EpochAdvanced):
        epoch = max(core.state.meta.chain_epoch, fact.epoch)
        core.state.meta = replace(core.state.meta, chain_epoch=epoch)


def _account(core: Core, ue: bytes) -> Account:
    return core.state.accounts.get(ue) or Account(ue)


def _server(core: Core, server_id: int) -> Server:
    server = core.state.servers.get(server_id)
    if server is None:
        raise Refusal(Code.FACT_UNFIT)
    return server


def _deposit(core: Core, fact: Deposited) -> None:
    account = _account(core, fact.ue)
    wei = from_u96(fact.wei)
    filled = min(wei, account.shortfall)
    balance = account.balance + wei - filled
    if balance > MAX_WEI:
        raise Refusal(Code.FACT_UNFIT)
    core.put_account(account._replace(balance=balance, shortfall=account.shortfall - filled))


def _lock(core: Core, fact: OfferOpened) -> None:
    core.state.put_lock(lock_key(fact.ue, fact.offer), Lock(fact.ue, fact.offer, from_u96(fact.wei), fact.deadline_s))
    core.emit(LockChanged(fact.offer, fact.ue, fact.wei, fact.deadline_s))


def _refund(core: Core, fact: OfferRefunded) -> None:
    key = lock_key(fact.ue, fact.offer)
    if key not in core.state.locks:
        raise Refusal(Code.FACT_UNFIT)
    core.state.delete_lock(key)
    core.emit(LockChanged(fact.offer, fact.ue, to_u96(0), 0))
    task = core.state.tasks.get(fact.offer)
    if task is not None and task.offer.ue == fact.ue and task.state in ENDED_UNPAID:
        lock_refunded(core, task)


def _register(core: Core, fact: ServerRegistered) -> None:
    """A genesis server must register with its genesis signer; further servers get the next ids, up to the limit."""
    server = core.state.servers.get(fact.id)
    if server is None:
        if fact.id >= MAX_SERVERS or fact.signer in core.state.signers:
            raise Refusal(Code.FACT_UNFIT)
        server = Server(fact.id, fact.signer, fact.meta_hash, credit=core.params.credit0)
    elif server.signer != fact.signer:
        raise Refusal(Code.FACT_UNFIT)
    core.state.put_server(replace(server, registered=True, meta_hash=fact.meta_hash))
