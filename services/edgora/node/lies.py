"""A node that lies on purpose, so that people can watch what a consortium makes of it (ports.faults).

Rule 1: nothing here is part of a node. A composition root whose scenario allows faults wraps a port with it or adds a
duty; other roots do not import this module.
Rule 2: the machines stay honest. The replica, the market and the sandbox do what they always do; the lie is told where
their words leave the node, under the node's own key, for nobody else's can be forged.
Rule 3: what is told depends on a switch that is asked each time, so a lie begins and ends while the node runs.

    equivocate        EquivocatingLinks over the transport: as primary, another block to each backup (ledger.md 19)
    false_allocation  FalseAllocations, a duty: a plan worth less than it claims, and one that the rules forbid
    false_result      FalsifyingRunner over the runner: one octet of the output is wrong, in runs and audits alike
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgora.compute.limits import Outcome
from edgora.compute.module import ModuleInfo
from edgora.crypto.sign import SigningKey
from edgora.market.rules import Pairs, Table, greedy, instance_digest, plan_value, round_table
from edgora.node.duties.post import Post
from edgora.node.follower import Step
from edgora.ports.faults import Lie
from edgora.ports.runner import Job, Runner
from edgora.ports.transport import LinkView, Receiver, Transport
from edgora.wire.codec import encode, to_u128
from edgora.wire.eip712 import Domain
from edgora.wire.errors import EdgoraError, Refused
from edgora.wire.ledger import Header, Kind
from edgora.wire.market import Allocation, Instance, ResultCode, code_name
from edgora.wire.market_events import RoundOpened
from edgora.wire.pbft import Lane, PrePrepare, decode_message, encode_message
from edgora.wire.units import ModuleDigest

__all__ = [
    "Chosen", "EquivocatingLinks", "FalseAllocations", "FalsifyingRunner", "LieFile", "chosen_lie", "false_plans",
]  # fmt: skip

Chosen = Callable[[], Lie | None]
"""The lie in force now; asked whenever there is something to lie about."""

_REMEMBERED = 256
"""Headers that we told in place of true ones: more than a window of blocks to each of 63 backups needs."""


# ---- the switch of a node that has processes of its own --------------------------------------------------------------


class LieFile:
    """The lie in force, as a file in the node's own home: whoever may write there is the node already.

    There is no route and no port to it. It survives a restart: a liar goes on lying until it is healed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Lie | None:
        try:
            return Lie(self._path.read_text().strip())
        except (FileNotFoundError, ValueError):  # none chosen, or none that we know
            return None

    def choose(self, lie: Lie | None) -> None:
        """Atomic: both halves of the node read it at any time."""
        if lie is None:
            self._path.unlink(missing_ok=True)
            return
        new = self._path.with_suffix(".new")
        new.write_text(lie + "\n")
        new.replace(self._path)


def chosen_lie(word: str) -> Lie | None:
    """A lie by its name; None for "none". Raises Refused."""
    if word == "none":
        return None
    with contextlib.suppress(ValueError):
        return Lie(word)
    raise Refused(f"{word!r} is no lie", field="lie", fix=f"name one of {', '.join(Lie)}, or none")


# ---- equivocate ------------------------------------------------------------------------------------------------------


class EquivocatingLinks:
    """A validator's transport. While the lie is in force, each backup is proposed a block of its own.

    The blocks differ in their time by a millisecond a backup and are correct otherwise, so every backup accepts the one
    it got and no two vote for the same: no quorum comes about, and the timer moves the others to the next primary.
    """

    def __init__(self, links: Transport, key: SigningKey, domain: Domain, chosen: Chosen) -> None:
        self._links, self._key, self._domain, self._chosen = links, key, domain, chosen
        self._told: OrderedDict[tuple[int, int, int], Header] = OrderedDict()
        """(peer, view, height) -> what that peer was told is the block there."""

    @property
    def peers(self) -> Sequence[int]:
        return self._links.peers

    async def start(self, receiver: Receiver, boot_nonce: int) -> None:
        await self._links.start(receiver, boot_nonce)

    def send(self, peer: int, lane: Lane, data: bytes) -> None:
        if lane is Lane.CONSENSUS and self._chosen() is Lie.EQUIVOCATE:
            data = self._rewritten(peer, data)
        self._links.send(peer, lane, data)

    def _rewritten(self, peer: int, data: bytes) -> bytes:
        message = decode_message(data)
        if not isinstance(message, PrePrepare):
            return data
        header = message.header
        other = msgspec.structs.replace(header, time_ms=header.time_ms + 1 + list(self.peers).index(peer))
        below = self._told.get((peer, message.view, header.height - 1))
        if below is not None:
            other = msgspec.structs.replace(other, parent=below.struct_hash())
        self._told[peer, message.view, header.height] = other
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        signature = self._key.sign(message.vote(other.struct_hash()).digest(self._domain))
        return encode_message(msgspec.structs.replace(message, header=other, signature=signature))

    async def call(self, peer: int, request: bytes, timeout_ms: int) -> bytes:
        return await self._links.call(peer, request, timeout_ms)

    def cut(self, peer: int, reason: str) -> None:
        self._links.cut(peer, reason)

    def links(self) -> Sequence[LinkView]:
        return self._links.links()

    async def stop(self) -> None:
        await self._links.stop()


# ---- false allocation ------------------------------------------------------------------------------------------------


def _forbidden(table: Table, own: int) -> Pairs:
    """Pairs that the rules refuse: one that is not ok, else more than our room holds, else a server that is not there."""
    for j, row in enumerate(table.ok):
        for i, good in enumerate(row):
            if not good:
                return ((j, table.ids[i]),)
    place = table.place.get(own)
    if place is not None and sum(row[place] for row in table.weight) > table.room[place]:
        return tuple((j, own) for j in range(len(table.ok)))
    return ((0, max(table.ids) + 1),)


def false_plans(instance: Instance, own: int) -> tuple[Allocation, Allocation]:
    """What a liar proposes for a round: the greedy plan at twice its worth, and a plan that the rules forbid."""
    table, digest = round_table(instance), instance_digest(instance)
    best = greedy(table)
    pairs = _forbidden(table, own)
    known = plan_value(table, [pair for pair in pairs if pair[1] in table.place])
    return (
        Allocation(instance.round, digest, best.pairs, to_u128(2 * best.value + 1), None, "false-value", 0),
        Allocation(instance.round, digest, pairs, to_u128(max(known, 0)), None, "false-pairs", 0),
    )


class FalseAllocations:
    """Orders false plans for every round that opens while the lie is in force; unlike `Rounds` it does not ask the rules."""

    name = "false allocations"

    def __init__(self, post: Post, chosen: Chosen) -> None:
        self._post, self._chosen = post, chosen
        self.says = "honest so far"
        self._opened: asyncio.Queue[Instance] = asyncio.Queue()
        post.follower.listen(self._noticed)

    def _noticed(self, step: Step) -> None:
        if self._chosen() is not Lie.FALSE_ALLOCATION:
            return
        now = self._post.clock.now_ms()
        for item in step.events:
            if isinstance(item.event, RoundOpened) and now <= item.event.closes_ms:
                self._opened.put_nowait(item.event.instance)

    async def run(self) -> None:
        while True:
            instance = await self._opened.get()
            try:
                await asyncio.gather(*(self._tell(plan) for plan in false_plans(instance, self._post.index)))
            except EdgoraError as error:
                self.says = f"round {instance.round}: the false plans did not get out: {error.detail}"

    async def _tell(self, plan: Allocation) -> None:
        receipt = await self._post.lanes.send(Kind.ALLOCATION, encode(plan))
        self.says = f"round {plan.round}: the plan {plan.policy} was answered {code_name(receipt.code)}"


# ---- false result ----------------------------------------------------------------------------------------------------


class FalsifyingRunner:
    """A node's runner. While the lie is in force, outputs come out with their last octet inverted.

    Digest, sealing and filing follow the false output, so nothing but another run of the task can tell. An empty output
    becomes one octet.
    """

    def __init__(self, runner: Runner, chosen: Chosen) -> None:
        self._runner, self._chosen = runner, chosen

    @property
    def slots(self) -> int:
        return self._runner.slots

    async def run(self, job: Job) -> Outcome:
        outcome = await self._runner.run(job)
        if outcome.code is not ResultCode.OK or self._chosen() is not Lie.FALSE_RESULT:
            return outcome
        output = outcome.output or b"\xff"
        false = output[:-1] + bytes((output[-1] ^ 0xFF,))
        return Outcome(outcome.code, false, outcome.fuel_used, outcome.wall_ms, outcome.reason)

    async def prepare(self, wasm: bytes) -> ModuleInfo:
        return await self._runner.prepare(wasm)

    def knows(self, digest: ModuleDigest) -> bool:
        return self._runner.knows(digest)

    async def close(self) -> None:
        await self._runner.close()
