"""Why: each refusal, wait and choice as a value, and its one sentence (market.md 7).

Rule 1: a `Reason` is data; this module is the only place that puts one in words. Refused operations have their sentences
in wire.market_codes, because clients read receipts themselves; `sentence` renders those, too.
Rule 2: `why` says what the market can know of a task. What only a node sees (votes, fetching, holders so far) the node
adds with the codes of NODE_CODES, and the sentence is still made here.
"""

from collections.abc import Iterator

from edgora.market.machine import Market
from edgora.market.receipts import GWEI
from edgora.market.records import Server, Task
from edgora.market.rules import exclusion, pair_value, room_of
from edgora.market.settlement import freeze_at_ms
from edgora.wire.codec import from_u128
from edgora.wire.ledger import LedgerCode
from edgora.wire.market import Code, Reason, TaskState, refusal_sentence
from edgora.wire.market_events import RoundClosed

__all__ = ["NODE_CODES", "sentence", "server_reason", "skipped_sentence", "verdict", "why"]

NODE_CODES = ("NOT_ORDERED", "INPUT_NOT_FETCHED", "RESULT_HELD", "PACED", "PACED_FULL", "PACED_UP")
"""Reasons that a node adds: (votes, quorum), (octets fetched, octets in all), (holders so far, holders needed), and of a
run (fuel/s that it is paced to, advertised speed or its UE's share)."""


_SENTENCES = {
    # waiting
    "NO_ADVERT": "no server has a live advert",
    "EVERY_ASK_ABOVE_PRICE": "every ask is above its price of {0:,} gwei/Mfuel, the lowest is {1:,}",
    "NO_ROOM_YET": "no server has room for {0:,} fuel now",
    "ROOM_EXPECTED": "no server has room for {0:,} fuel now, the first room is expected at {1}",
    "NOTHING_FITS": "no live server may take it: price, time, its source or an earlier failure forbid each",
    "ROUND_OPEN": "round {0} is open since {1:,} ms with {2} proposals",
    "NEXT_ROUND": "the next round opens within {0:,} ms",
    "RUNNING": "server {0} runs it, about {1:,} of {2:,} fuel",
    "DRAW_AWAITED": "server {0} draws by {1} whether it is audited",
    "DRAW_BY_BLOCK": "the next block after {0} decides by whom it is audited",
    "AUDIT": "it is audited by server {rest} until {0}",
    "BATCH_WAITS": "its receipt is one of {0:,} that wait for a batch, at the latest at {1}",
    "BATCH_BEFORE": "its receipt waits for batch {0} to be settled first",
    "BATCH_FROZEN": "batch {0} is frozen and waits for its certificate",
    "BATCH_ON_ITS_WAY": "batch {0} is certified and waits for the chain",
    "REFUND_AWAITED": "its lock waits for the refund, possible after {0} s",
    "CHAIN_NOT_SEEN_SINCE": "the validators have not seen the chain since {0}",
    "NOT_ORDERED": "not ordered yet: {0} of {1} votes",
    "INPUT_NOT_FETCHED": "its input is not fetched yet: {0:,} of {1:,} octets",
    "RESULT_HELD": "its result is held by {0} of {1} servers",
    "PACED": "it is paced to {0:,} fuel/s, its UE's share of this server, which advertises {1:,} a slot",
    "PACED_FULL": "it is paced to the advertised {0:,} fuel/s: its UE's share, {1:,}, is more than a slot gives",
    "PACED_UP": "it is paced to {0:,} fuel/s: at its UE's share, {1:,}, it would not be filed in time",
    # ended
    "SETTLED": "paid by batch {0}",
    "EXPIRED": "expired: no server could have met the deadline {0} any more at {1}",
    "CANCELLED": "cancelled by its UE",
    "DONE_LATE": "late: server {0} was done {1:,} ms after the deadline",
    "NOTHING_FILED": "late: server {0} filed nothing in time",
    "OVERDUE": "server {0} filed nothing in the time that it needed",
    "NO_KEY": "disputed: {1} auditors got no fitting key from server {0}",
    "NO_VERDICT": "disputed: the audit of server {0}'s result came to no verdict, nobody is charged",
    "LOST_DISPUTE": "disputed: the auditors found another result than server {0}",
    "UNPAYABLE": "batch {0} could not be paid: voucher, deposit or lock had run out",
    "WALL": "failed: server {0} ran out of wall time",
    "BAD_INPUT": "failed: server {0} could not open the input",
    "BAD_MODULE": "failed: server {0} could not load the module",
    "UNAVAILABLE": "failed: server {0} could not fetch input or module",
    # choices (market.md 4)
    "EXCLUDED": "server {0} failed this task before or cannot fetch from its source",
    "SOURCE_NOT_LIVE": "source {0} has no live advert, so nothing is known of its uplink",
    "ASK_ABOVE_PRICE": "its ask of {0:,} is above the price of {1:,} gwei/Mfuel",
    "TOO_SLOW": "it would be done at {0}, after the deadline {1}",
    "NO_ROOM": "the task weighs {0:,} fuel, it has room for {1:,}",
    "LESS_VALUE": "worth {0:,} gwei there, {1:,} gwei where it went",
    "ROOM_TAKEN": "the task weighs {0:,} fuel, the plan left {1:,} of its room",
    "NOT_CHOSEN": "worth {0:,} gwei there, the winning plan left it out",
    # how a round ended
    "WORTH_MORE": "worth {0:,} gwei, the built-in greedy {1:,}",
    "AS_GOOD": "worth no more than the built-in greedy's {0:,} gwei, but it places more tasks",
    "PREFERRED": "the consortium prefers its policy: worth {0:,} gwei, the built-in greedy {1:,}",
    "EQUAL_TO_GREEDY": "greedy counts as first: no accepted proposal, of {0}, is worth more than its {1:,} gwei",
    "PROPOSALS_REFUSED": "each of {0} proposals was refused",
    "PROPOSALS_LATE": "every proposal, {0} in all, was ordered after the round had closed",
    "NO_PROPOSAL": "no validator's proposal was ordered",
    # batches
    "FULL": "{0:,} ended tasks waited",
    "AGE": "the oldest of {0:,} ended tasks had waited long enough",
    "EXPIRY": "the money behind one of {0:,} ended tasks was about to expire",
    "IDLE": "nothing else was under way, {0:,} ended tasks waited",
}
_OF_SERVERS = {
    "LATE": "a task of it went late",
    "REOPENED": "a task of it went back to OPEN",
    "DRAW_MISSED": "it missed a draw",
    "AUDIT_MISSED": "it missed an audit",
    "DONE": "a task done in time",
    "RECOVERED": "ten minutes without a fault",
    "WALL": "it ran out of wall time",
    "LOST_DISPUTE": "a verdict stands against what it filed",
    "CHAIN_NOT_SEEN_SINCE": "the validators have not seen the chain yet",
}
"""Reasons without numbers: why a credit or a server's standing changed."""
_SKIPPED = {
    "SUPERSEDED": "round {1} was open already when it came to round {0}",
    "LATE_ARRIVAL": "it heard of the round {1:,} ms after it was sent, {2:,} ms were allowed for everything",
    "BUSY": "it was still busy with an earlier round, since {1:,} ms",
    "LATE": "it had no answer within {1:,} ms",
    "EMPTY": "none of {1} tasks fits any of {2} servers",
    "BELOW_FLOOR": "its plan is worth {1:,} ppm of the built-in greedy's, {2:,} ppm are needed",
    "NOT_ALLOWED": "its plan breaks a rule of the round",
    "FAILED": "it failed",
    "SEEN_LATE": "this node saw the round {1:,} ms after its end",
    "ROUND_OVER": "its plan came when the round was over",
    "NOT_SENT": "its plan was not sent, since the ledger would refuse it",
}
"""Why an allocator makes no proposal (ports.bus.Skipped); the first number is the round. The last three are the node's."""


def sentence(reason: Reason) -> str:
    """The reason in words: what, with which numbers. Instants are Unix ms where no unit follows."""
    numbers = reason.numbers
    template = _SENTENCES.get(reason.code) if numbers else _OF_SERVERS.get(reason.code) or _SENTENCES.get(reason.code)
    if template is not None:
        try:
            return template.format(*numbers, rest=", ".join(map(str, numbers[1:])))
        except IndexError:
            return f"{reason.code} {numbers}"
    if reason.code in Code.__members__:
        return refusal_sentence(Code[reason.code], numbers)
    if reason.code in LedgerCode.__members__:
        return refusal_sentence(LedgerCode[reason.code], numbers)
    return f"{reason.code} {numbers}"


def skipped_sentence(reason: Reason) -> str:
    """Why an allocator made no proposal for a round; the reason's subject names the policy, or what failed."""
    template = _SKIPPED.get(reason.code)
    if template is None:
        return sentence(reason)
    try:
        words = template.format(*reason.numbers)
    except IndexError:
        return f"{reason.code} {reason.numbers}"
    return f"{words}: {reason.subject}" if reason.code in {"FAILED", "NOT_SENT"} else words


def verdict(closed: RoundClosed, late: int, prefer: str) -> Reason:
    """Why this plan won its round. late: proposals that the ledger ordered after the close; prefer: the parameter."""
    value, greedy = from_u128(closed.value) // GWEI, from_u128(closed.greedy) // GWEI
    if closed.winner is not None:
        if prefer and closed.policy == prefer:
            return Reason("PREFERRED", closed.policy, (value, greedy))
        if from_u128(closed.value) > from_u128(closed.greedy):
            return Reason("WORTH_MORE", closed.policy, (value, greedy))
        return Reason("AS_GOOD", closed.policy, (greedy,))
    if closed.accepted:
        return Reason("EQUAL_TO_GREEDY", closed.policy, (len(closed.accepted), greedy))
    if closed.refused:
        return Reason("PROPOSALS_REFUSED", closed.policy, (len(closed.refused),))
    return Reason("PROPOSALS_LATE", closed.policy, (late,)) if late else Reason("NO_PROPOSAL", closed.policy)


# ---- why is my task waiting ----------------------------------------------------------------------------------------------


def why(market: Market, offer_id: bytes, now_ms: int) -> list[Reason]:
    """What a task waits for at this instant, or how it ended, the most telling first. Empty: no such task."""
    task = market.task(offer_id)
    return [] if task is None else list(_why(market, task, offer_id.hex(), now_ms))


def _why(market: Market, task: Task, subject: str, now_ms: int) -> Iterator[Reason]:
    state = TaskState(task.state)
    if state == TaskState.OPEN:
        yield from _open(market, task, subject, now_ms)
    elif state == TaskState.ASSIGNED and task.executor is not None:
        server = market.server(task.executor)
        speed = server.advert.speed if server is not None and server.advert is not None else 0
        fuel = min(task.offer.fuel_limit, max(0, now_ms - task.assigned_ms) * speed // 1000)
        yield Reason("RUNNING", subject, (task.executor, fuel, task.offer.fuel_limit))
    elif state == TaskState.DONE and task.audit is not None:
        yield _audit(task, subject)
    elif state == TaskState.FINAL:
        yield from _final(market, task, subject)
    elif state == TaskState.CERTIFIED:
        yield Reason("BATCH_ON_ITS_WAY", subject, (task.batch,))
        yield from _unseen(market, subject)
    elif state == TaskState.SETTLED:
        yield Reason("SETTLED", subject, (task.batch,))
    else:
        if task.reason is not None:
            yield task.reason
        lock = market.lock(task.offer.ue, task.offer_id)
        if state != TaskState.REFUNDED and lock is not None:
            yield Reason("REFUND_AWAITED", subject, (lock.deadline_s,))


def _unseen(market: Market, subject: str) -> Iterator[Reason]:
    if not market.chain_seen():
        since = market.chain_seen_ms()
        yield Reason("CHAIN_NOT_SEEN_SINCE", subject, (since,) if since else ())


def _open(market: Market, task: Task, subject: str, now_ms: int) -> Iterator[Reason]:
    view = market.round_state()
    if view is not None and any(t.offer_id == task.offer_id for t in view.instance.tasks):
        proposals = sum(voter.pairs is not None for voter in view.voters)
        yield Reason("ROUND_OPEN", subject, (view.instance.round, max(0, now_ms - view.opened_ms), proposals))
        return
    core = market.core
    sellers = {seller.id: seller for seller in core.sellers()}
    if not sellers:
        yield Reason("NO_ADVERT", subject)
        return
    offer = task.offer
    lowest = min(seller.ask for seller in sellers.values())
    if lowest > offer.price:
        yield Reason("EVERY_ASK_ABOVE_PRICE", subject, (offer.price, lowest))
        return
    open_task = core.as_open(task)
    source = sellers.get(offer.source)
    opening = max(now_ms, market.meta.last_close_ms + market.params.round_ms)
    reasons = [
        exclusion(open_task, seller, source, now_ms=opening + market.params.proposal_ms,
                  slack_ms=market.params.slack_ms, room=room_of(seller))
        for seller in sellers.values() if pair_value(open_task, seller, source) >= 0
    ]  # fmt: skip
    if any(reason is None for reason in reasons):
        yield Reason("NEXT_ROUND", subject, (max(0, opening - now_ms),))
    elif any(reason is not None and reason.code == "NO_ROOM" for reason in reasons):
        first = _first_room_ms(market)
        if first is None:
            yield Reason("NO_ROOM_YET", subject, (offer.fuel_limit,))
        else:
            yield Reason("ROOM_EXPECTED", subject, (offer.fuel_limit, first))
    else:
        yield Reason("NOTHING_FITS", subject)


def _first_room_ms(market: Market) -> int | None:
    """When the first running task should be done and free its room; None if nothing runs."""
    running = (task.assigned_ms + task.expected_ms for task in market.tasks(TaskState.ASSIGNED))
    return min(running, default=None)


def _audit(task: Task, subject: str) -> Reason:
    audit = task.audit
    assert audit is not None
    if audit.number:
        waiting = tuple(a.server for a in audit.auditors if not a.closed)
        return Reason("AUDIT", subject, (audit.ends_ms, *waiting))
    if audit.witness is None:
        return Reason("DRAW_BY_BLOCK", subject, (audit.draw_by_ms,))
    return Reason("DRAW_AWAITED", subject, (audit.witness, audit.draw_by_ms))


def _final(market: Market, task: Task, subject: str) -> Iterator[Reason]:
    batch = market.batch()
    if batch is not None and task.batch == batch.record.id:
        yield Reason("BATCH_FROZEN", subject, (batch.record.id,))
    elif batch is not None:
        yield Reason("BATCH_BEFORE", subject, (batch.record.id,))
        yield from _unseen(market, subject)
    else:
        waiting = sum(1 for _ in market.queue())
        latest = freeze_at_ms(market.core) or 0
        yield Reason("BATCH_WAITS", subject, (waiting, latest))


# ---- why does a server get no work ----------------------------------------------------------------------------------------


def server_reason(market: Market, server: Server) -> str:
    """Why a server gets no new work, in words; empty if it does."""
    if market.is_live(server):
        return ""
    if not server.registered:
        return refusal_sentence(Code.SERVER_UNREGISTERED, (server.id,))
    if server.leaving:
        return refusal_sentence(Code.SERVER_UNBONDING, (server.id,))
    if server.advert is None or server.advert.until_ms <= market.now_ms:
        return "it has no live advert"
    return "it has withdrawn" if not server.advert.capacity else "it must file a new advert after a fault"
