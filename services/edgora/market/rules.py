"""The formulas of a round, in integers (market.md 4).

Rule 1: everything here is a pure function of an Instance; every replica and every allocator computes the same numbers.
Rule 2: nothing here knows the state, the ledger or the time; the instance carries all of it.

A round asks which server i runs which task j, o its source, now = the round's closing time:

    weight_ij = max(fuelLimit_j, ceil(min(capacity_i, credit_i) / slots_i))       room_i = min(capacity_i, credit_i) - used_i
    T_ij      = ceil(1000 fuelLimit_j / speed_i) + (i != o) ceil(1000 inputOctets_j / uplink_o)
                + ceil(1000 outputOctets_j / uplink_i)                                                                  ms
    ok_ij     = price_j >= ask_i and weight_ij <= room_i and now + T_ij + slack_ms <= deadlineMs_j
    W_ij      = 1000 fuelLimit_j (price_j - ask_i) - (i != o) forward_o ceil(inputOctets_j / 1024)                     wei
    maximise sum W_ij x_ij,   sum_j weight_ij x_ij <= room_i,   sum_i x_ij <= 1

A pair with i != o needs o in the instance, and no pair may be one that the task excludes. Proposals are checked, not
trusted: a plan must be made of ok pairs within the rooms, worth what it claims, and at least the floor that greedy sets.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edgora.wire.codec import encode, from_u128
from edgora.wire.hashing import keccak
from edgora.wire.market import Allocation, Code, Instance, LiveServer, OpenTask, Reason
from edgora.wire.units import Digest

__all__ = [
    "BASIS_POINTS", "GWEI", "MAX_ROUND_PER_UE", "MAX_ROUND_TASKS", "Pairs", "Plan", "Refusal", "Table", "check_plan",
    "check_proposal", "exclusion", "greedy", "instance_digest", "pair_ms", "pair_ok", "pair_value", "pair_weight", "plan_value",
    "room_of", "round_table", "run_ms", "slot_weight", "transfer_ms",
]  # fmt: skip

BASIS_POINTS = 10_000
GWEI = 10**9
MAX_ROUND_TASKS = 256
MAX_ROUND_PER_UE = 32
MAX_POLICY_OCTETS = 64

Pairs = tuple[tuple[int, int], ...]
"""(task index in the instance, server id), ascending by task index."""


class Refusal(Exception):
    """A rule said no: the receipt's code and the numbers that its sentence names."""

    def __init__(self, code: Code, *numbers: int) -> None:
        super().__init__(code.name)
        self.code = code
        self.numbers = numbers

    @property
    def reason(self) -> Reason:
        return Reason(self.code.name, "", self.numbers)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


# ---- one pair --------------------------------------------------------------------------------------------------------


def run_ms(fuel: int, speed: int) -> int:
    """How long a server of this speed (fuel/s) runs this much fuel."""
    return ceil_div(1000 * fuel, speed)


def transfer_ms(octets: int, uplink: int) -> int:
    """How long an uplink of that many octets/s takes for these octets."""
    return ceil_div(1000 * octets, uplink)


def slot_weight(server: LiveServer) -> int:
    """The least weight that anything has on this server: one slot's share of what it may hold."""
    return ceil_div(min(server.capacity, server.credit), max(1, server.slots))


def pair_weight(task: OpenTask, server: LiveServer) -> int:
    """Fuel that the task takes of the server's room."""
    return max(task.fuel_limit, slot_weight(server))


def room_of(server: LiveServer) -> int:
    """Fuel that the server may still take on; negative while its credit is below what it holds."""
    return min(server.capacity, server.credit) - server.used


def pair_ms(task: OpenTask, server: LiveServer, source: LiveServer | None) -> int:
    """T_ij: from the assignment until the result is out. source None: as if the input were there already."""
    total = run_ms(task.fuel_limit, server.speed) + transfer_ms(task.output_octets, server.uplink)
    if source is not None and server.id != task.source:
        total += transfer_ms(task.input_octets, source.uplink)
    return total


def pair_value(task: OpenTask, server: LiveServer, source: LiveServer | None) -> int:
    """W_ij in wei: what the UE bids above the server's ask, less the source's fee for forwarding. May be negative."""
    value = 1000 * task.fuel_limit * (task.price - server.ask)
    if source is not None and server.id != task.source:
        value -= source.forward * ceil_div(task.input_octets, 1024)
    return value


def exclusion(
    task: OpenTask, server: LiveServer, source: LiveServer | None, *, now_ms: int, slack_ms: int, room: int
) -> Reason | None:
    """Why this pair is not ok; None if it is. One rule after the other, the most lasting reason first."""
    if server.id in task.excluded:
        return Reason("EXCLUDED", "", (server.id,))
    if source is None and server.id != task.source:
        return Reason("SOURCE_NOT_LIVE", "", (task.source,))
    if task.price < server.ask:
        return Reason("ASK_ABOVE_PRICE", "", (server.ask, task.price))
    needed = now_ms + pair_ms(task, server, source) + slack_ms
    if needed > task.deadline_ms:
        return Reason("TOO_SLOW", "", (needed, task.deadline_ms))
    weight = pair_weight(task, server)
    if weight > room:
        return Reason("NO_ROOM", "", (weight, max(0, room)))
    return None


def pair_ok(
    task: OpenTask, server: LiveServer, source: LiveServer | None, *, now_ms: int, slack_ms: int, room: int
) -> bool:
    """ok_ij: the same rules as `exclusion`, cheapest first."""
    return (
        task.price >= server.ask
        and (source is not None or server.id == task.source)
        and server.id not in task.excluded
        and pair_weight(task, server) <= room
        and now_ms + pair_ms(task, server, source) + slack_ms <= task.deadline_ms
    )


# ---- a whole round ---------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """The instance's numbers: [task index][place of the server in `ids`]. Money in wei, time in ms, work in fuel."""

    instance: Instance
    ids: tuple[int, ...]
    """Server ids by place, ascending."""
    place: Mapping[int, int]
    """Place of each server id."""
    room: list[int]
    weight: list[list[int]]
    T: list[list[int]]
    """Of a pair whose source is not in the instance: without the input's transfer (it is not ok anyway)."""
    ok: list[list[bool]]
    W: list[list[int]]


class Plan(NamedTuple):
    """Pairs and what they are worth."""

    pairs: Pairs
    value: int


def instance_digest(instance: Instance) -> Digest:
    """What proposals name: keccak of the canonical MessagePack."""
    return keccak(encode(instance))


def round_table(instance: Instance) -> Table:
    """All numbers of a round."""
    servers = instance.servers
    by_id = {server.id: server for server in servers}
    room = [room_of(server) for server in servers]
    weight, times, ok, worth = [], [], [], []
    for task in instance.tasks:
        source = by_id.get(task.source)
        weight.append([pair_weight(task, server) for server in servers])
        times.append([pair_ms(task, server, source) for server in servers])
        worth.append([pair_value(task, server, source) for server in servers])
        ok.append([
            pair_ok(task, server, source, now_ms=instance.now_ms, slack_ms=instance.slack_ms, room=room[i])
            for i, server in enumerate(servers)
        ])  # fmt: skip
    place = {server.id: i for i, server in enumerate(servers)}
    return Table(instance, tuple(place), place, room, weight, times, ok, worth)


def plan_value(table: Table, pairs: Iterable[tuple[int, int]]) -> int:
    """Sum of W over the pairs, in wei."""
    return sum(table.W[j][table.place[server]] for j, server in pairs)


def greedy(table: Table) -> Plan:
    """The built-in plan: ok pairs with W >= 0, by W descending, then task index, then server id; take what fits."""
    candidates = sorted(
        (-value, j, i) for j, row in enumerate(table.W) for i, value in enumerate(row) if value >= 0 and table.ok[j][i]
    )
    room = list(table.room)
    chosen: dict[int, int] = {}
    total = 0
    for negative, j, i in candidates:
        if j not in chosen and table.weight[j][i] <= room[i]:
            chosen[j] = table.ids[i]
            room[i] -= table.weight[j][i]
            total -= negative
    return Plan(tuple(sorted(chosen.items())), total)


def check_plan(table: Table, pairs: Sequence[tuple[int, int]]) -> int:
    """The value of a plan that is made of ok pairs within the rooms. Raises Refusal with the first rule it breaks."""
    tasks = len(table.instance.tasks)
    room = list(table.room)
    last, value = -1, 0
    for j, server in pairs:
        if j >= tasks:
            raise Refusal(Code.TASK_INDEX, j, tasks)
        if j == last:
            raise Refusal(Code.TASK_TWICE, j)
        if j < last:
            raise Refusal(Code.PAIRS_UNSORTED, j)
        i = table.place.get(server)
        if i is None:
            raise Refusal(Code.SERVER_NOT_IN_ROUND, server)
        if not table.ok[j][i]:
            raise Refusal(Code.PAIR_NOT_OK, j, server)
        room[i] -= table.weight[j][i]
        value += table.W[j][i]
        last = j
    for i, left in enumerate(room):
        if left < 0 and left != table.room[i]:
            raise Refusal(Code.ROOM_EXCEEDED, table.ids[i], table.room[i] - left, max(0, table.room[i]))
    return value


def check_proposal(
    table: Table, digest: bytes, allocation: Allocation, *, greedy_value: int, floor_bps: int,
    accepted: Mapping[int, Pairs],
) -> int:  # fmt: skip
    """The value of a proposal that the round accepts (market.md 4). Raises Refusal otherwise.

    accepted: the plans of the round so far by server id. That it is this validator's turn, and one of its tries, is
    the caller's matter.
    """
    if allocation.round != table.instance.round:
        raise Refusal(Code.WRONG_ROUND, allocation.round, table.instance.round)
    if allocation.digest != digest:
        raise Refusal(Code.WRONG_DIGEST)
    octets = len(allocation.policy.encode())
    if not 1 <= octets <= MAX_POLICY_OCTETS:
        raise Refusal(Code.POLICY_NAME, octets)
    value = check_plan(table, allocation.pairs)
    if value != from_u128(allocation.value):
        raise Refusal(Code.VALUE_WRONG)
    if value * BASIS_POINTS < floor_bps * greedy_value:
        floor = ceil_div(floor_bps * greedy_value, BASIS_POINTS * GWEI)
        raise Refusal(Code.BELOW_FLOOR, value // GWEI, floor)
    for server, plan in accepted.items():
        if plan == allocation.pairs:
            raise Refusal(Code.DUPLICATE_PLAN, server)
    return value
