"""Results, the draw whether they are audited, filings of auditors, verdicts (market.md 5).

Rule 1: nobody alone chooses who is audited by whom: a result's block hash, its witness's committed preimage and the
offer id decide, and the witness follows from the offer id.
Rule 2: a verdict needs f+1 equal filings, so at least one honest server made one of them.

    filed OK, TRAP, ...  in time    -> DONE, waits for the witness's DRAW (not auditable: FINAL at once)
    filed, but done too late        -> LATE
    filed WALL, BAD_*, UNAVAILABLE  -> OPEN once, without that server, if another pair is ok; else FAILED
    DRAW, or draw_ms passed         -> FINAL, or k auditors with a time each
    f+1 agree with the executor     -> FINAL; who filed otherwise is fined
    f+1 agree against the executor  -> DISPUTED; it is fined
    f+1 without a key               -> DISPUTED, its fault, nobody is fined
    all auditors done, no verdict   -> a second draw, then DISPUTED without fault

A task without a verdict when its resolution is due (end - batch_ms: ledger time may jump) is DISPUTED without fault.
Fines go to the auditors that agree, in equal floors, the remainder is burnt.
"""

from msgspec.structs import replace

from edgora.market import checks
from edgora.market.checks import AuditFiling, ExecutorFiling, audit_time_ms
from edgora.market.core import BAN_MS, Core
from edgora.market.lifecycle import (
    another_pair_ok,
    count_late,
    end_unpaid,
    finalise,
    free_room,
    lose_dispute,
    measured_ms,
    not_live,
    reopen,
    reputation,
)  # fmt: skip
from edgora.market.receipts import auditable, penalty_shares
from edgora.market.records import Audit, Auditor, Filing, Result, Server, Task
from edgora.market.rules import pair_weight, run_ms
from edgora.wire.codec import to_u96
from edgora.wire.hashing import keccak
from edgora.wire.market import DETERMINISTIC_CODES, PAID_CODES, Draw, Reason, ResultCode, TaskState
from edgora.wire.market_events import (
    AuditDrawn,
    AuditFiled,
    AuditMissed,
    AuditorDrawn,
    DrawMissed,
    PenaltyPart,
    ResultFiled,
    Verdict,
)

__all__ = ["draw", "file_audit", "file_result", "give_up", "pass_time", "witness_of"]

_BAD = frozenset((ResultCode.BAD_INPUT, ResultCode.BAD_MODULE))


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")


# ---- the executor ------------------------------------------------------------------------------------------------------


def file_result(core: Core, given: ExecutorFiling) -> None:
    """RESULT_HASH of the executor."""
    task, filed, code = given.task, given.filing, ResultCode(given.filing.code)
    executor = task.executor
    assert executor is not None
    filing = Filing(code, filed.result_digest, filed.fuel_used)
    order = core.state.next_order()
    result = Result(
        filing, filed.cipher_digest, given.done_ms, given.holders, core.now_ms, core.height, core.block_hash, order
    )
    if code in PAID_CODES:
        _paid(core, replace(task, result=result), executor)
    else:
        _emit_filed(core, replace(task, result=result), executor, None)
        _unpaid(core, replace(task, result=result), executor, code)


def _emit_filed(core: Core, task: Task, executor: int, audit: Audit | None) -> None:
    result = task.result
    assert result is not None
    core.emit(ResultFiled(
        task.offer_id, executor, result.filing.code, result.filing.result_digest, result.cipher_digest,
        result.filing.fuel_used, result.done_ms, result.holders, audit.witness if audit else None,
        audit.draw_by_ms if audit else 0,
    ))  # fmt: skip


def _paid(core: Core, task: Task, executor: int) -> None:
    result = task.result
    assert result is not None
    free_room(core, executor, task.weight)
    in_time = result.done_ms <= task.offer.deadline_ms
    audit = None
    if in_time and auditable(task.offer):
        audit = Audit(witness_of(core, task), core.now_ms + core.params.draw_ms)
    _emit_filed(core, task, executor, audit)
    if task.accused is not None:  # the first executor called the task bad, the second one could run it
        count_late(core, task, task.accused, "LATE")
        task = replace(task, accused=None)
    if not in_time:
        late_by = result.done_ms - task.offer.deadline_ms
        give_up(core, task, TaskState.LATE, Reason("DONE_LATE", task.offer_id.hex(), (executor, late_by)))
        return
    task = replace(task, state=TaskState.DONE, audit=audit)
    core.state.put_task(task)
    if audit is None:
        finalise(core, task)


def _unpaid(core: Core, task: Task, executor: int, code: ResultCode) -> None:
    """WALL counts as late at once, BAD_* if the second executor can run it, UNAVAILABLE never but bans the pair."""
    if code == ResultCode.WALL:
        count_late(core, task, executor, "WALL")
    elif code == ResultCode.UNAVAILABLE:
        core.state.put_ban(task.offer.source, executor, core.now_ms + BAN_MS)
    elif core.now_ms > task.offer.deadline_ms:
        free_room(core, executor, task.weight)
        give_up(core, task, TaskState.LATE,
                Reason("DONE_LATE", task.offer_id.hex(), (executor, core.now_ms - task.offer.deadline_ms)))  # fmt: skip
        return
    if not task.reopened and another_pair_ok(core, task, executor):
        reopen(core, replace(task, result=None), code.name, accused=code in _BAD)
        return
    free_room(core, executor, task.weight)
    server = core.state.servers[executor]
    core.state.put_server(replace(server, failed=server.failed + 1))
    if code in _BAD:
        reputation(core, task, executor, measured_ms(task))
    end_unpaid(core, task, TaskState.FAILED, Reason(code.name, task.offer_id.hex(), (executor,)))


def give_up(core: Core, task: Task, state: TaskState, reason: Reason) -> None:
    """The executor was late: no pay, and it counts. Its room is free already."""
    assert task.executor is not None
    count_late(core, task, task.executor, "LATE")
    not_live(core, task.executor, "LATE", task.offer_id.hex())
    end_unpaid(core, task, state, reason)


# ---- the draw ----------------------------------------------------------------------------------------------------------


def witness_of(core: Core, task: Task) -> int | None:
    """Live server number H(offerId) mod live, the executor and the source skipped; None if nobody else is live."""
    live = core.live()
    if not live:
        return None
    first = _number(keccak(task.offer_id)) % len(live)
    for place in range(len(live)):
        server = live[(first + place) % len(live)]
        if server.id not in {task.executor, task.offer.source}:
            return server.id
    return None


def draw(core: Core, witness: Server, payload: Draw) -> None:
    """DRAW: the next preimage decides about all results that wait for this witness, in ledger order."""
    core.state.put_server(replace(witness, tip=payload.preimage))
    for task in checks.waiting_for(core, witness.id):
        result, audit = task.result, task.audit
        assert result is not None
        assert audit is not None
        if result.height <= payload.up_to and core.now_ms <= audit.draw_by_ms:
            seed = keccak(payload.preimage + result.block_hash + task.offer_id)
            if _number(seed) % 10_000 < core.params.audit_bps:
                _draw_auditors(core, task, 1, seed, witness.id)
            else:
                core.emit(AuditDrawn(task.offer_id, 1, witness.id, audited=False, auditors=()))
                finalise(core, task)


def _draw_auditors(core: Core, task: Task, number: int, seed: bytes, witness: int | None) -> None:
    """The k live servers that follow `seed` mod n: never the executor, the source only while nobody else is there."""
    audit = task.audit
    assert audit is not None
    servers = list(core.state.servers.values())
    first = _number(seed) % len(servers)
    filed = {a.server for a in audit.auditors if a.filing is not None}
    others: list[Server] = []
    source: list[Server] = []
    for place in range(len(servers)):
        server = servers[(first + place) % len(servers)]
        if server.id == task.executor or server.id in filed or not core.is_live(server):
            continue
        seller = core.as_seller(server)
        if run_ms(task.offer.fuel_limit, seller.speed) <= audit_time_ms(core, task.offer.fuel_limit, seller.speed):
            (source if server.id == task.offer.source else others).append(server)
    drawn = []
    for server in (others + source)[: core.params.auditors]:
        seller = core.as_seller(server)
        weight = pair_weight(core.as_open(task), seller)
        by_ms = core.now_ms + audit_time_ms(core, task.offer.fuel_limit, seller.speed)
        drawn.append(Auditor(server.id, number, by_ms, weight))
        core.state.put_server(replace(server, used=server.used + weight))
    ends = max((a.by_ms for a in drawn), default=core.now_ms + core.params.audit_max_ms)
    core.state.put_task(replace(
        task, audit=replace(audit, number=number, seed=seed, ends_ms=ends, auditors=(*audit.auditors, *drawn))
    ))  # fmt: skip
    parts = tuple(AuditorDrawn(a.server, a.by_ms) for a in drawn)
    core.emit(AuditDrawn(task.offer_id, number, witness, audited=True, auditors=parts))


# ---- the auditors ------------------------------------------------------------------------------------------------------


def file_audit(core: Core, given: AuditFiling) -> None:
    """RESULT_HASH of a drawn auditor."""
    task, filed, auditor = given.task, given.filing, given.auditor
    assert task.audit is not None
    filing = Filing(filed.code, filed.result_digest, filed.fuel_used)
    core.emit(AuditFiled(task.offer_id, auditor.server, filed.code, filed.result_digest, filed.fuel_used))
    task = _close_auditors(core, task, {auditor.server}, filing)
    _conclude(core, task)


def _close_auditors(core: Core, task: Task, servers: set[int], filing: Filing | None = None) -> Task:
    """These auditors' part is over: their room is free, their filing (if any) is kept."""
    audit = task.audit
    assert audit is not None
    auditors = []
    for a in audit.auditors:
        if a.server in servers and not a.closed:
            free_room(core, a.server, a.weight)
            auditors.append(replace(a, filing=filing, closed=True))
        else:
            auditors.append(a)
    task = replace(task, audit=replace(audit, auditors=tuple(auditors)))
    core.state.put_task(task)
    return task


def _conclude(core: Core, task: Task) -> None:
    """A verdict if there is one; the second draw or the end if there cannot be one any more."""
    audit, result, executor = task.audit, task.result, task.executor
    assert audit is not None
    assert result is not None
    assert executor is not None
    filed = [(executor, result.filing), *((a.server, a.filing) for a in audit.auditors if a.filing is not None)]
    claims = [(server, filing) for server, filing in filed if filing.code in DETERMINISTIC_CODES]
    for _, filing in claims:
        agreeing = [server for server, other in claims if other == filing]
        if len(agreeing) > core.f:
            _verdict(core, task, filing, agreeing, [server for server, other in claims if other != filing])
            return
    without_key = sum(filing.code == ResultCode.NO_KEY for _, filing in filed)
    if without_key > core.f:
        task = _release_auditors(core, task)
        lose_dispute(core, executor)
        reputation(core, task, executor, 4 * task.offer.desired_ms)
        end_unpaid(core, task, TaskState.DISPUTED, Reason("NO_KEY", task.offer_id.hex(), (executor, without_key)))
    elif _draw_is_over(core, audit):
        if audit.number == 1:
            _draw_auditors(core, task, 2, keccak(audit.seed + core.block_hash), None)
        else:
            _no_verdict(core, task)


def _draw_is_over(core: Core, audit: Audit) -> bool:
    """Its auditors have filed or missed their time; a draw that found nobody waits as long as an audit may take."""
    drawn = [a for a in audit.auditors if a.number == audit.number]
    return all(a.closed for a in drawn) and (bool(drawn) or core.now_ms > audit.ends_ms)


def _release_auditors(core: Core, task: Task) -> Task:
    assert task.audit is not None
    return _close_auditors(core, task, {a.server for a in task.audit.auditors})


def _no_verdict(core: Core, task: Task) -> None:
    executor = task.executor
    assert executor is not None
    task = _release_auditors(core, task)
    reputation(core, task, executor, measured_ms(task))
    end_unpaid(core, task, TaskState.DISPUTED, Reason("NO_VERDICT", task.offer_id.hex(), (executor,)))


def _verdict(core: Core, task: Task, filing: Filing, agreeing: list[int], against: list[int]) -> None:
    executor = task.executor
    assert executor is not None
    task = _release_auditors(core, task)
    auditors = sorted(server for server in agreeing if server != executor)
    share, burnt = penalty_shares(core.params.audit_pay, len(auditors))
    penalties = []
    for server in sorted(against):
        penalties += [PenaltyPart(server, to, to_u96(share)) for to in auditors if share]
        penalties += [PenaltyPart(server, None, to_u96(burnt))] if burnt else []
    upheld = executor in agreeing
    for server in sorted(against):
        lose_dispute(core, server)
    core.emit(Verdict(
        task.offer_id, upheld, filing.code, filing.result_digest, filing.fuel_used, tuple(sorted(agreeing)),
        tuple(sorted(against)), tuple(penalties),
    ))  # fmt: skip
    if upheld:
        finalise(core, task, tuple(penalties))
    else:
        reputation(core, task, executor, 4 * task.offer.desired_ms, penalties=tuple(penalties))
        end_unpaid(core, task, TaskState.DISPUTED, Reason("LOST_DISPUTE", task.offer_id.hex(), (executor,)))


# ---- time --------------------------------------------------------------------------------------------------------------


def pass_time(core: Core, task: Task) -> None:
    """A DONE task is due: its draw or an auditor was missed, or there will be no verdict any more."""
    audit = task.audit
    assert audit is not None
    if core.now_ms >= core.resolved_ms(task.offer.deadline_ms):
        _no_verdict(core, task)
    elif audit.number == 0:
        if audit.witness is not None:
            core.emit(DrawMissed(task.offer_id, audit.witness))
            not_live(core, audit.witness, "DRAW_MISSED", task.offer_id.hex())
        _draw_auditors(core, task, 1, keccak(core.block_hash + task.offer_id), None)
    else:
        missed = {a.server for a in audit.auditors if not a.closed and a.by_ms < core.now_ms}
        for server in sorted(missed):
            core.emit(AuditMissed(task.offer_id, server))
            not_live(core, server, "AUDIT_MISSED", task.offer_id.hex())
        _conclude(core, _close_auditors(core, task, missed))
