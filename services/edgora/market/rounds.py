"""Rounds of allocation: opening, proposals, close (market.md 4).

Rule 1: the snapshot of the opening rules until the close, whatever adverts do meanwhile.
Rule 2: a proposal is only ever checked against that snapshot; a liar is refused and counted, nothing else.
Rule 3: greedy is a candidate like any other and comes first, so a round needs no proposal at all.

    opening: header time >= last close + round_ms and some OPEN task has an ok pair with W >= 0
    close:   header time >= opening + proposal_ms, or every validator has an accepted proposal
    order:   the preferred policy, then value, then more pairs, then ledger order (greedy first)
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from edgora.market.core import Core
from edgora.market.lifecycle import assign
from edgora.market.records import RoundRecord, Task, Voter
from edgora.market.rules import (
    GWEI,
    MAX_ROUND_PER_UE,
    MAX_ROUND_TASKS,
    Pairs,
    Plan,
    Refusal,
    Table,
    check_proposal,
    exclusion,
    greedy,
    instance_digest,
    pair_ms,
    pair_value,
    plan_value,
    room_of,
    round_table,
    slot_weight,
)  # fmt: skip
from edgora.wire.codec import to_u128
from edgora.wire.market import Allocation, Code, Instance, LiveServer, OpenTask, Reason, TaskState
from edgora.wire.market_events import (
    Alternative,
    Choice,
    ProposalAccepted,
    ProposalPart,
    ProposalRefused,
    RefusedPart,
    RoundClosed,
    RoundOpened,
)
from edgora.wire.units import Digest

__all__ = [
    "MAX_TRIES", "Book", "Outlook", "close_due", "close_round", "next_opening_ms", "open_book", "open_round", "placeable", "propose",
    "try_proposal",
]  # fmt: skip

MAX_TRIES = 4
"""Proposals of one validator in one round, accepted or not."""
GREEDY = "greedy"
_NO_TRY = frozenset((Code.NO_ROUND, Code.WRONG_ROUND, Code.ALREADY_ACCEPTED, Code.TOO_MANY_TRIES))
"""Refusals that say nothing about a plan for the open round: a proposal that comes too late is no try in the next."""


class Book(NamedTuple):
    """What follows from the open round's instance: computed once, never stored."""

    table: Table
    digest: Digest
    greedy: Plan


def open_book(instance: Instance) -> Book:
    table = round_table(instance)
    return Book(table, instance_digest(instance), greedy(table))


# ---- opening -----------------------------------------------------------------------------------------------------------


class Outlook:
    """Which live servers each OPEN task could ever go to, leaving room and time aside.

    A cache: it follows from the adverts, the bans and the task, and is dropped when these change. With it, ten thousand
    open tasks that nobody wants cost a look-up each and not a round of arithmetic whenever a server's room changes.
    """

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._chances: dict[bytes, tuple[Task, tuple[tuple[int, int], ...]]] = {}

    def renew(self, core: Core, sellers: Sequence[LiveServer]) -> None:
        """Forget everything if the adverts of live servers or the bans are not those it was made of."""
        now = (
            *((s.id, s.speed, s.ask, s.uplink, s.forward) for s in sellers), None, *core.state.bans.ordered(),
        )  # fmt: skip
        if now != self._of or len(self._chances) > 2 * len(core.state.open) + 64:
            self._of, self._chances = now, {}

    def chances(self, core: Core, task: Task, sellers: Sequence[LiveServer]) -> tuple[tuple[int, int], ...]:
        """(place among the sellers, T) of pairs that only room or time can forbid, with W >= 0."""
        known = self._chances.get(task.offer_id)
        if known is not None and known[0] is task:
            return known[1]
        view = core.as_open(task)
        source = next((seller for seller in sellers if seller.id == view.source), None)
        found = tuple(
            (place, pair_ms(view, seller, source))
            for place, seller in enumerate(sellers)
            if view.price >= seller.ask
            and (source is not None or seller.id == view.source)
            and seller.id not in view.excluded
            and pair_value(view, seller, source) >= 0
        )
        self._chances[task.offer_id] = (task, found)
        return found


def placeable(
    core: Core, outlook: Outlook, opening_ms: int, most: int = MAX_ROUND_TASKS
) -> tuple[list[OpenTask], list[LiveServer]]:
    """OPEN tasks with an ok pair of W >= 0 in a round that opens then, in arrival order, and the live servers.

    At most 32 tasks a UE. While no server has room for one slot's weight, nothing has to be looked at.
    """
    sellers = core.sellers()
    rooms = [(slot_weight(seller), room_of(seller)) for seller in sellers]
    if all(room < max(1, weight) for weight, room in rooms):
        return [], sellers
    outlook.renew(core, sellers)
    latest = opening_ms + core.params.proposal_ms + core.params.slack_ms
    found: list[OpenTask] = []
    of_ue: dict[bytes, int] = {}
    for _, offer_id in core.state.open:
        task = core.state.tasks[offer_id]
        chances = outlook.chances(core, task, sellers)
        if not chances:
            continue
        offer = task.offer
        if of_ue.get(offer.ue, 0) >= MAX_ROUND_PER_UE:
            continue
        for place, time_ms in chances:
            weight, room = rooms[place]
            if offer.fuel_limit <= room and weight <= room and latest + time_ms <= offer.deadline_ms:
                found.append(core.as_open(task))
                of_ue[offer.ue] = of_ue.get(offer.ue, 0) + 1
                break
        if len(found) == most:
            break
    return found, sellers


def open_round(core: Core, outlook: Outlook) -> Book | None:
    """Opens a round if it is time and something can be placed."""
    meta, p = core.state.meta, core.params
    if core.state.round is not None or not core.state.open or not core.state.placement_dirty:
        return None
    if core.now_ms < meta.last_close_ms + p.round_ms:
        return None
    tasks, sellers = placeable(core, outlook, core.now_ms)
    if not tasks:
        core.state.placement_dirty = False
        return None
    closes_ms = core.now_ms + p.proposal_ms
    instance = Instance(meta.round + 1, closes_ms, p.slack_ms, tuple(tasks), tuple(sellers))
    core.state.meta = replace(meta, round=instance.round)
    core.state.round = RoundRecord(instance, core.now_ms, closes_ms)
    book = open_book(instance)
    core.emit(RoundOpened(instance, book.digest, closes_ms))
    return book


def next_opening_ms(core: Core, outlook: Outlook) -> int | None:
    """When the next round opens if nothing else happens; None while nothing is placeable.

    Once a block looked at the open tasks in vain, time alone makes none placeable: deadlines only come closer.
    """
    if core.state.round is not None or not core.state.open or not core.state.placement_dirty:
        return None
    opening = core.state.meta.last_close_ms + core.params.round_ms
    core.state.placement_dirty = bool(placeable(core, outlook, opening, most=1)[0])
    return opening if core.state.placement_dirty else None


# ---- proposals ---------------------------------------------------------------------------------------------------------


def _voters(core: Core) -> list[Voter]:
    """By server id."""
    return list(core.state.voters.values())


def _accepted(core: Core) -> list[Voter]:
    """Voters with an accepted proposal, in ledger order."""
    return sorted((v for v in _voters(core) if v.pairs is not None), key=lambda v: v.order)


def try_proposal(core: Core, book: Book | None, server: int, allocation: Allocation) -> int:
    """The value at which the open round would accept this; Refusal otherwise."""
    if book is None:
        raise Refusal(Code.NO_ROUND)
    voter = core.state.voters.get(server) or Voter(server)
    if voter.pairs is not None:
        raise Refusal(Code.ALREADY_ACCEPTED)
    if voter.tries >= MAX_TRIES:
        raise Refusal(Code.TOO_MANY_TRIES, MAX_TRIES)
    plans: dict[int, Pairs] = {v.server: v.pairs for v in _accepted(core) if v.pairs is not None}
    return check_proposal(
        book.table, book.digest, allocation, greedy_value=book.greedy.value, floor_bps=core.params.floor_bps,
        accepted=plans,
    )  # fmt: skip


def propose(core: Core, book: Book | None, server: int, allocation: Allocation) -> None:
    """ALLOCATION. A refused one is one of the validator's tries; its reason is in the close's event."""
    try:
        value = try_proposal(core, book, server, allocation)
    except Refusal as refusal:
        round_ = core.state.round
        if round_ is not None and refusal.code not in _NO_TRY:
            voter = core.state.voters.get(server) or Voter(server)
            part = RefusedPart(server, allocation.policy[:64], refusal.reason)
            core.state.voters.put(server, replace(voter, tries=voter.tries + 1, refused=(*voter.refused, part)))
            core.emit(ProposalRefused(round_.instance.round, server, part.policy, refusal.reason))
        raise
    voter = core.state.voters.get(server) or Voter(server)
    core.state.voters.put(server, replace(
        voter, tries=voter.tries + 1, order=core.state.next_order(), pairs=allocation.pairs, value=to_u128(value),
        bound=allocation.bound, policy=allocation.policy, solver_ms=allocation.solver_ms,
    ))  # fmt: skip
    core.emit(ProposalAccepted(
        allocation.round, server, allocation.policy, to_u128(value), allocation.bound, len(allocation.pairs),
        allocation.solver_ms,
    ))  # fmt: skip


# ---- close -------------------------------------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    """A plan at the close. server None: greedy."""

    server: int | None
    policy: str
    plan: Plan
    dropped: int
    voter: Voter | None


def close_due(core: Core) -> bool:
    round_ = core.state.round
    return round_ is not None and (core.now_ms >= round_.closes_ms or len(_accepted(core)) >= core.validators)


def _still_good(core: Core, table: Table, pairs: Pairs) -> Plan:
    """The plan without pairs whose task is not OPEN any more or could not be done in time now."""
    kept = []
    for j, server in pairs:
        view = table.instance.tasks[j]
        task = core.state.tasks.get(view.offer_id)
        done_by = core.now_ms + table.T[j][table.place[server]] + core.params.slack_ms
        if task is not None and task.state == TaskState.OPEN and done_by <= view.deadline_ms:
            kept.append((j, server))
    return Plan(tuple(kept), plan_value(table, kept))


def _candidates(core: Core, book: Book) -> list[_Candidate]:
    """Greedy first, then the accepted ones in ledger order."""
    plans: list[tuple[int | None, str, Pairs, Voter | None]] = [(None, GREEDY, book.greedy.pairs, None)]
    plans += [(v.server, v.policy, v.pairs, v) for v in _accepted(core) if v.pairs is not None]
    candidates = []
    for server, policy, pairs, voter in plans:
        plan = _still_good(core, book.table, pairs)
        candidates.append(_Candidate(server, policy, plan, len(pairs) - len(plan.pairs), voter))
    return candidates


def _winner(core: Core, candidates: Sequence[_Candidate]) -> _Candidate:
    def rank(item: tuple[int, _Candidate]) -> tuple[bool, int, int, int]:
        place, c = item
        preferred = c.server is not None and bool(core.params.prefer) and c.policy == core.params.prefer
        return preferred, c.plan.value, len(c.plan.pairs), -place

    return max(enumerate(candidates), key=rank)[1]


def close_round(core: Core, book: Book) -> None:
    """The best plan takes effect, and the event says why it was the best."""
    round_ = core.state.round
    assert round_ is not None
    table = book.table
    candidates = _candidates(core, book)
    winner = _winner(core, candidates)
    bounds = [int.from_bytes(c.voter.bound, "big") for c in candidates if c.voter and c.voter.bound is not None]
    good = [bound for bound in bounds if bound >= winner.plan.value]
    accepted = tuple(
        ProposalPart(c.voter.server, c.policy, _wei(c.plan.value), len(c.plan.pairs), c.dropped, c.voter.bound,
                     c.voter.solver_ms)
        for c in candidates if c.voter is not None
    )  # fmt: skip
    core.emit(RoundClosed(
        round_.instance.round, winner.server, winner.policy, _wei(winner.plan.value), _wei(candidates[0].plan.value),
        to_u128(min(good)) if good else None, len(bounds) - len(good), accepted,
        tuple(part for voter in _voters(core) for part in voter.refused), _choices(table, winner.plan.pairs),
    ))  # fmt: skip
    for j, server in winner.plan.pairs:
        i = table.place[server]
        task = core.state.tasks[table.instance.tasks[j].offer_id]
        assign(core, task, server, round_.instance.round, table.weight[j][i], table.T[j][i])
    for server in core.state.voters.ordered():
        core.state.voters.delete(server)
    core.state.round = None
    core.state.meta = replace(core.state.meta, last_close_ms=core.now_ms)
    core.state.placement_dirty = True


def _wei(value: int) -> bytes:
    """A value in an event, which has no sign: a plan worth less than nothing shows as 0."""
    return to_u128(max(0, value))


def _choices(table: Table, pairs: Pairs) -> tuple[Choice, ...]:
    """Per task of the round: where it went, and its three best alternatives with what made them worse."""
    chosen = dict(pairs)
    left = list(table.room)
    for j, server in pairs:
        left[table.place[server]] -= table.weight[j][table.place[server]]
    by_id = {server.id: server for server in table.instance.servers}
    choices = []
    for j, task in enumerate(table.instance.tasks):
        went = chosen.get(j)
        value = table.W[j][table.place[went]] if went is not None else None
        ranked = sorted(
            (not table.ok[j][i], -table.W[j][i], other) for i, other in enumerate(table.ids) if other != went
        )
        alternatives = tuple(
            Alternative(other, _wei(-worth), _worse(table, j, other, by_id, value, left))
            for _, worth, other in ranked[:3]
        )
        choices.append(Choice(task.offer_id, went, alternatives))
    return tuple(choices)


def _worse(
    table: Table, j: int, server: int, by_id: dict[int, LiveServer], value: int | None, left: list[int]
) -> Reason:
    """What made this pair worse than what was chosen for the task; numbers as its sentence wants them."""
    i, task, instance = table.place[server], table.instance.tasks[j], table.instance
    source = by_id.get(task.source)
    excluded = exclusion(
        task, by_id[server], source, now_ms=instance.now_ms, slack_ms=instance.slack_ms, room=table.room[i]
    )
    if excluded is not None:
        return excluded
    worth, weight = table.W[j][i], table.weight[j][i]
    if value is not None and worth < value:
        return Reason("LESS_VALUE", "", (worth // GWEI, value // GWEI))
    if weight > left[i]:
        return Reason("ROOM_TAKEN", "", (weight, max(0, left[i])))
    return Reason("NOT_CHOSEN", "", (worth // GWEI,))
