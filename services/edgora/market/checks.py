"""What each operation must satisfy (market.md 3, 8; contracts.md 9). Pure: reads a Core, raises Refusal, changes nothing.

Rule 1: `precheck` runs exactly these, so its advice is what execution would answer in the same state.
Rule 2: cheap checks first, signatures last; the first rule that is broken names the refusal.
"""

from typing import NamedTuple

from edgora.crypto.sign import recover
from edgora.market.core import Core
from edgora.market.receipts import MAX_WEI, auditable, gwei_down, gwei_up, lock_lane, maximum
from edgora.market.records import Auditor, Server, Task
from edgora.market.rules import Refusal, ceil_div, run_ms
from edgora.wire.codec import from_u96
from edgora.wire.hashing import keccak
from edgora.wire.market import (
    AUDITOR_CODES,
    EXECUTOR_CODES,
    MAX_DEADLINE_MS,
    MAX_DESIRED_MS,
    MAX_FUEL,
    MAX_INPUT,
    MAX_OPEN,
    MAX_OPEN_PER_UE,
    MAX_OUTPUT,
    MAX_PAGES,
    PAID_CODES,
    Advert,
    Cancel,
    Code,
    Draw,
    Held,
    Offer,
    OfferFlag,
    ResultHash,
    SettlementPayload,
    Stored,
    TaskPayload,
    TaskState,
    VoucherPart,
)  # fmt: skip
from edgora.wire.settlement import Voucher, lock_key

__all__ = [
    "Admission", "AuditFiling", "ExecutorFiling", "advert", "audit_time_ms", "cancel", "draw", "result", "sender_server",
    "sender_validator", "settlement", "task", "waiting_for",
]  # fmt: skip

ADVERT_GAP_MS = 100
_U96_MAX = MAX_WEI
_ALL_FLAGS = int(OfferFlag.AUDITABLE | OfferFlag.LOCK_LANE)


class Admission(NamedTuple):
    """A TASK that may open."""

    offer_id: bytes
    offer: Offer
    voucher: VoucherPart | None


class ExecutorFiling(NamedTuple):
    task: Task
    filing: ResultHash
    done_ms: int
    holders: tuple[int, ...]


class AuditFiling(NamedTuple):
    task: Task
    filing: ResultHash
    auditor: Auditor


def sender_server(core: Core, sender: bytes) -> Server:
    server = core.server_of(sender)
    if server is None:
        raise Refusal(Code.NOT_A_SERVER)
    return server


def sender_validator(core: Core, sender: bytes) -> Server:
    server = core.validator_of(sender)
    if server is None:
        raise Refusal(Code.NOT_A_VALIDATOR)
    return server


# ---- ADVERT ----------------------------------------------------------------------------------------------------------


def advert(core: Core, sender: bytes, advert: Advert) -> Server:
    server = sender_server(core, sender)
    if not server.registered:
        raise Refusal(Code.SERVER_UNREGISTERED, server.id)
    if server.leaving:
        raise Refusal(Code.SERVER_UNBONDING, server.id)
    if not (advert.speed and advert.slots and advert.ask and advert.uplink):
        raise Refusal(Code.ADVERT_ZERO)
    if not core.now_ms < advert.until_ms <= core.now_ms + MAX_DEADLINE_MS:
        raise Refusal(Code.ADVERT_UNTIL, advert.until_ms, core.now_ms)
    if server.advert is not None and core.now_ms - server.advert_ms < ADVERT_GAP_MS:
        raise Refusal(Code.ADVERT_TOO_SOON, core.now_ms - server.advert_ms)
    if advert.tip is None:
        if server.tip is None:
            raise Refusal(Code.TIP_MISSING)
    elif server.tip is not None and (waiting := waiting_for(core, server.id)):
        raise Refusal(Code.TIP_BUSY, len(waiting))
    return server


def waiting_for(core: Core, server_id: int) -> list[Task]:
    """DONE tasks whose result waits for this witness's DRAW, in ledger order."""
    waiting = []
    for offer_id in core.state.done:
        task = core.state.tasks[offer_id]
        if task.audit is not None and task.audit.number == 0 and task.audit.witness == server_id:
            waiting.append(task)
    return sorted(waiting, key=lambda task: task.result.order if task.result else 0)


# ---- TASK ------------------------------------------------------------------------------------------------------------


def task(core: Core, sender: bytes, payload: TaskPayload) -> Admission:
    offer = payload.offer
    if sender != offer.ue:
        raise Refusal(Code.WRONG_UE)
    _limits(core, offer)
    offer_id = offer.digest(core.market_domain)
    if offer_id in core.state.tasks:
        raise Refusal(Code.OFFER_SEEN)
    source = core.state.servers.get(offer.source)
    if source is None or not source.registered:
        raise Refusal(Code.SOURCE_UNKNOWN, offer.source)
    if len(core.state.open) >= MAX_OPEN:
        raise Refusal(Code.TASKS_FULL, len(core.state.open))
    if (mine := core.state.open_of.get(offer.ue, 0)) >= MAX_OPEN_PER_UE:
        raise Refusal(Code.UE_TASKS_FULL, mine)
    _settlement_in_time(core)
    _placeable(core, offer)
    if auditable(offer):
        _auditable(core, offer)
    if lock_lane(offer):
        _lock(core, offer, offer_id, payload.voucher)
    else:
        _voucher(core, offer, payload.voucher)
    if recover(Stored(offer_id).digest(core.ledger_domain), payload.stored) != source.signer:
        raise Refusal(Code.STORED_INVALID, offer.source)
    if payload.voucher is not None:
        signed = Voucher(from_u96(payload.voucher.cap), payload.voucher.valid_until_s)
        if recover(signed.digest(core.market_domain), payload.voucher.signature) != offer.ue:
            raise Refusal(Code.VOUCHER_SIGNATURE)
    return Admission(offer_id, offer, payload.voucher)


def _limits(core: Core, offer: Offer) -> None:
    if not 1 <= offer.fuel_limit <= MAX_FUEL:
        raise Refusal(Code.FUEL_LIMIT, offer.fuel_limit, MAX_FUEL)
    if not 1 <= offer.desired_ms <= MAX_DESIRED_MS:
        raise Refusal(Code.DESIRED_TIME, offer.desired_ms)
    if not 1 <= offer.input_octets <= MAX_INPUT:
        raise Refusal(Code.INPUT_SIZE, offer.input_octets)
    if offer.output_octets > MAX_OUTPUT:
        raise Refusal(Code.OUTPUT_SIZE, offer.output_octets)
    if offer.memory_pages > MAX_PAGES:
        raise Refusal(Code.MEMORY, offer.memory_pages)
    if offer.flags & ~_ALL_FLAGS:
        raise Refusal(Code.FLAGS, offer.flags)
    if offer.deadline_ms > core.now_ms + MAX_DEADLINE_MS:
        raise Refusal(Code.DEADLINE_TOO_FAR, offer.deadline_ms, core.now_ms + MAX_DEADLINE_MS)
    least = core.least_ms(offer.fuel_limit, offer.input_octets, offer.output_octets, offer.source)
    earliest = core.now_ms + core.params.slack_ms + least
    if offer.deadline_ms < earliest:  # it would be EXPIRED at once
        raise Refusal(Code.DEADLINE_TOO_SOON, offer.deadline_ms, earliest)


def _settlement_in_time(core: Core) -> None:
    oldest = core.state.finals.next_ms()
    limit = core.params.margin_ms // 2 + core.params.batch_ms
    if oldest is not None and core.now_ms - oldest > limit:
        raise Refusal(Code.SETTLEMENT_BEHIND, core.now_ms - oldest)


def _placeable(core: Core, offer: Offer) -> None:
    """An advert is live and every ask is above the price, or nobody may hold that much fuel."""
    sellers = core.sellers()
    if not sellers:
        return
    if all(seller.ask > offer.price for seller in sellers):
        by_id = {seller.id: seller for seller in sellers}
        source = by_id.get(offer.source)
        kib = ceil_div(offer.input_octets, 1024)
        prices = [
            seller.ask + (0 if seller.id == offer.source or source is None
                          else ceil_div(source.forward * kib, 1000 * offer.fuel_limit))
            for seller in sellers if source is not None or seller.id == offer.source
        ]  # fmt: skip
        raise Refusal(Code.PRICE_TOO_LOW, offer.price, min(prices or [seller.ask for seller in sellers]))
    largest = max(min(seller.capacity, seller.credit) for seller in sellers)
    if offer.fuel_limit > largest:
        raise Refusal(Code.FUEL_TOO_LARGE, offer.fuel_limit, largest)


def _auditable(core: Core, offer: Offer) -> None:
    adverts = (server.advert for server in core.state.servers.values() if not server.leaving)
    able = sum(a is not None and run_ms(offer.fuel_limit, a.speed) <= core.params.audit_max_ms for a in adverts)
    if able < core.f + 1:
        raise Refusal(Code.NOT_AUDITABLE, able, core.f + 1)


def _lock(core: Core, offer: Offer, offer_id: bytes, voucher: VoucherPart | None) -> None:
    if voucher is not None:
        raise Refusal(Code.VOUCHER_UNEXPECTED)
    lock = core.state.locks.get(lock_key(offer.ue, offer_id))
    if lock is None:
        raise Refusal(Code.LOCK_UNKNOWN)
    if lock.wei < maximum(offer):
        raise Refusal(Code.LOCK_SHORT, gwei_down(lock.wei), gwei_up(maximum(offer)))
    needed = core.end_ms(offer.deadline_ms) + core.params.margin_ms
    if lock.deadline_s * 1000 < needed:
        raise Refusal(Code.LOCK_DEADLINE, lock.deadline_s, ceil_div(needed, 1000))


def _voucher(core: Core, offer: Offer, voucher: VoucherPart | None) -> None:
    """contracts.md 9: the deposit covers what is reserved and this, and so does the voucher, for long enough."""
    if voucher is None:
        raise Refusal(Code.VOUCHER_MISSING)
    if not core.chain_seen():
        raise Refusal(Code.CHAIN_NOT_SEEN, core.now_ms - core.chain_seen_ms())
    account = core.state.accounts.get(offer.ue)
    if account is None:
        raise Refusal(Code.DEPOSIT_SHORT, 0, gwei_up(maximum(offer)))
    if account.exit_at_s:
        raise Refusal(Code.EXIT_PENDING, account.exit_at_s)
    needed = account.reserved + maximum(offer)
    if account.spent + needed > _U96_MAX:
        raise Refusal(Code.OVERFLOW)
    if account.balance < needed:
        raise Refusal(Code.DEPOSIT_SHORT, gwei_down(account.balance), gwei_up(needed))
    cap, until = from_u96(voucher.cap), voucher.valid_until_s
    kept = account.voucher.valid_until_s if account.voucher is not None and account.unfinished else 0
    if cap < account.spent + needed or until < kept:
        raise Refusal(Code.VOUCHER_SHORT, gwei_down(cap), until, gwei_up(account.spent + needed), kept)
    payable_until = core.end_ms(offer.deadline_ms) + core.params.margin_ms
    if until * 1000 < payable_until:
        raise Refusal(Code.VOUCHER_TOO_EARLY, until, ceil_div(payable_until, 1000))
    latest = core.now_ms + core.params.exit_delay_s * 1000 - core.params.margin_ms
    if until * 1000 > latest:
        raise Refusal(Code.VOUCHER_TOO_LATE, until, latest // 1000)


# ---- RESULT_HASH -----------------------------------------------------------------------------------------------------


def result(core: Core, sender: bytes, filing: ResultHash) -> ExecutorFiling | AuditFiling:
    """Whose filing it is and what it amounts to. Its executor files while ASSIGNED, auditors while their time runs."""
    server = sender_server(core, sender)
    task = core.state.tasks.get(filing.offer_id)
    if task is None:
        raise Refusal(Code.TASK_UNKNOWN)
    if filing.fuel_used > task.offer.fuel_limit:
        raise Refusal(Code.FUEL_OVER, filing.fuel_used, task.offer.fuel_limit)
    if task.executor == server.id:
        return _executor_filing(core, server, task, filing)
    return _audit_filing(core, server, task, filing)


def _executor_filing(core: Core, server: Server, task: Task, filing: ResultHash) -> ExecutorFiling:
    if task.result is not None:
        raise Refusal(Code.RESULT_GIVEN, server.id)
    if filing.code not in EXECUTOR_CODES:
        raise Refusal(Code.RESULT_CODE, filing.code)
    closes_ms = task.offer.deadline_ms + core.params.file_ms
    if task.state != TaskState.ASSIGNED or core.now_ms > closes_ms:
        raise Refusal(Code.FILING_CLOSED, closes_ms)
    if filing.code not in PAID_CODES:  # there is no result that others could hold
        return ExecutorFiling(task, filing, core.now_ms, ())
    if filing.cipher_digest is None:
        raise Refusal(Code.AUDIT_FORM)
    seen = _held(core, server, filing, filing.cipher_digest)
    if len(seen) < core.f + 1:
        raise Refusal(Code.HELD_SHORT, len(seen), core.f + 1)
    return ExecutorFiling(task, filing, min(core.now_ms, max(seen.values())), tuple(sorted(seen)))


def _held(core: Core, executor: Server, filing: ResultHash, cipher_digest: bytes) -> dict[int, int]:
    """SeenMs of each other server whose Held over this very result is valid; a server's first word counts."""
    seen: dict[int, int] = {}
    tried = {executor.id}
    for part in filing.held:
        holder = core.state.servers.get(part.server)
        if holder is None or holder.id in tried or not holder.registered:
            continue
        tried.add(holder.id)
        held = Held(filing.offer_id, filing.result_digest, cipher_digest, part.seen_ms)
        if recover(held.digest(core.ledger_domain), part.signature) == holder.signer:
            seen[holder.id] = part.seen_ms
    return seen


def _audit_filing(core: Core, server: Server, task: Task, filing: ResultHash) -> AuditFiling:
    drawn = [a for a in task.audit.auditors if a.server == server.id] if task.audit is not None else []
    if not drawn:
        raise Refusal(Code.NOT_YOURS, server.id)
    if any(auditor.filing is not None for auditor in drawn):
        raise Refusal(Code.RESULT_GIVEN, server.id)
    if filing.code not in AUDITOR_CODES:
        raise Refusal(Code.RESULT_CODE, filing.code)
    if filing.cipher_digest is not None or filing.held:
        raise Refusal(Code.AUDIT_FORM)
    for auditor in drawn:
        if not auditor.closed and core.now_ms <= auditor.by_ms:
            return AuditFiling(task, filing, auditor)
    raise Refusal(Code.AUDIT_CLOSED)


def audit_time_ms(core: Core, fuel: int, speed: int) -> int:
    """How long an auditor of this speed has from its draw."""
    return min(4 * run_ms(fuel, speed) + 5_000, core.params.audit_max_ms)


# ---- DRAW, CANCEL, SETTLEMENT --------------------------------------------------------------------------------------------


def draw(core: Core, sender: bytes, payload: Draw, height: int) -> Server:
    """A preimage that opens the sender's tip. That no result waits is no reason to refuse: the preimage is known now."""
    server = sender_server(core, sender)
    if server.tip is None or keccak(payload.preimage) != server.tip:
        raise Refusal(Code.BAD_PREIMAGE)
    if payload.up_to >= height:
        raise Refusal(Code.UP_TO, payload.up_to, height)
    return server


def cancel(core: Core, sender: bytes, payload: Cancel) -> Task:
    task = core.state.tasks.get(payload.offer_id)
    if task is None:
        raise Refusal(Code.TASK_UNKNOWN)
    if task.offer.ue != sender:
        raise Refusal(Code.NOT_YOUR_TASK)
    if task.state != TaskState.OPEN:
        raise Refusal(Code.NOT_OPEN, task.state)
    return task


def settlement(core: Core, sender: bytes, payload: SettlementPayload) -> None:
    """Names the frozen batch by equality; again only once the contract's epoch has moved on (market.md 6)."""
    sender_validator(core, sender)
    batch = core.state.batch
    if batch is None:
        raise Refusal(Code.NO_BATCH)
    if payload.batch_id != batch.id or payload.batch_hash != batch.hash:
        raise Refusal(Code.WRONG_BATCH, batch.id)
    if batch.certified_epoch is not None and batch.certified_epoch >= core.state.meta.chain_epoch:
        raise Refusal(Code.BATCH_CERTIFIED, batch.id)
