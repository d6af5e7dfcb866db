"""Rounds of allocation: the instance goes out to this node's allocators, what they propose is signed and ordered.

Rule 1: an allocator is not trusted: its proposal is checked here as the ledger will check it, so a wrong one costs
nothing. Rule 2: late, lost or repeated messages do no harm; a round without a proposal of ours is greedy's or another
validator's (market.md 4).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine

import msgspec

from edgora.market.reasons import skipped_sentence
from edgora.node.duties.post import Post
from edgora.node.follower import Step
from edgora.ports.bus import Answer, Proposed, RoundRequest, Skipped, answers_topic, rounds_topic
from edgora.wire.codec import encode
from edgora.wire.errors import Unavailable
from edgora.wire.ledger import Kind, OrderedTx, Tx
from edgora.wire.market import Allocation, Instance, Reason, code_name, refusal_numbers, refusal_sentence
from edgora.wire.market_events import RoundOpened

__all__ = ["Rounds"]

_log = logging.getLogger("edgora.duty.rounds")
GROUP = "node"
WAIT_MS, TAKE = 1_000, 16
RETRY_S = 1.0
ROUNDS, POLICIES = 1_024, 16
EVERY_POLICY = "*"
"""Of how many rounds, and of how many policies each, we remember why no proposal came."""
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class Rounds:
    """Between the ledger's rounds and the bus."""

    name = "rounds"

    def __init__(self, post: Post) -> None:
        self._post = post
        self.says = "no round yet"
        self._opened: asyncio.Queue[Instance] = asyncio.Queue(maxsize=8)
        self._sending: set[asyncio.Task[None]] = set()
        self._proposed: tuple[int, set[bytes]] = (0, set())
        self.skipped: OrderedDict[int, list[Skipped]] = OrderedDict()
        """By round: which of our allocators made no proposal, and why."""
        post.follower.listen(self._noticed)

    def _noticed(self, step: Step) -> None:
        """Rounds that open now; not those of blocks that are only being caught up with."""
        now = self._post.clock.now_ms()
        for item in step.events:
            if not isinstance(item.event, RoundOpened):
                continue
            number = item.event.instance.round
            if now > item.event.closes_ms:
                late = Reason("SEEN_LATE", EVERY_POLICY, (number, now - item.event.closes_ms))
                self._note(Skipped(self._post.index, EVERY_POLICY, number, late))
                continue
            if self._opened.full():
                self._opened.get_nowait()
            self._opened.put_nowait(item.event.instance)

    async def run(self) -> None:
        """Publish and collect until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish())
            group.create_task(self._collect())

    async def _publish(self) -> None:
        post = self._post
        while True:
            instance = await self._opened.get()
            message = RoundRequest(instance, post.clock.now_ms(), post.genesis.market.solve_ms)
            try:
                await post.bus.publish(rounds_topic(post.index), encode(message))
            except Unavailable as error:
                self.says = f"the bus is not reached: {error.detail}"
            else:
                self.says = f"round {instance.round} was given to the allocators"

    async def _collect(self) -> None:
        post = self._post
        topic = answers_topic(post.index)
        while True:
            try:
                taken = await post.bus.take(topic, GROUP, str(post.index), limit=TAKE, wait_ms=WAIT_MS)
                for delivery in taken:
                    self._answer(delivery.data)
                if taken:
                    await post.bus.ack(topic, GROUP, [delivery.id for delivery in taken])
            except Unavailable as error:
                self.says = f"the bus is not reached: {error.detail}"
                await asyncio.sleep(RETRY_S)

    def _answer(self, data: bytes) -> None:
        try:
            answer = _answers.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            _log.warning("an allocator's answer does not decode", extra={"octets": len(data)})
            return
        if answer.node != self._post.index:
            return
        if isinstance(answer, Proposed):
            self._propose(answer.allocation)
        else:
            self.says = f"policy {answer.policy} skipped round {answer.round}: {skipped_sentence(answer.reason)}"
            self._note(answer)

    def _note(self, answer: Skipped) -> None:
        noted = self.skipped.setdefault(answer.round, [])
        if len(noted) < POLICIES and answer.policy not in {known.policy for known in noted}:
            noted.append(answer)
        while len(self.skipped) > ROUNDS:
            self.skipped.popitem(last=False)

    def _propose(self, allocation: Allocation) -> None:
        """Order a proposal for the open round, once, if the ledger would take it."""
        post, payload = self._post, encode(allocation)
        view = post.market.round_state()
        number, told = self._proposed
        if number != allocation.round:
            told = set()
        if payload in told:
            return
        if view is None or view.instance.round != allocation.round:
            self._pass_over(allocation, Reason("ROUND_OVER", allocation.policy, (allocation.round,)))
            return
        self._proposed = (allocation.round, told | {payload})
        draft = Tx(int(Kind.ALLOCATION), post.keys.signer.address, int(Kind.ALLOCATION), 0, 0, payload)
        outcome = post.follower.advise(OrderedTx(bytes(32), draft), post.clock.now_ms())
        if outcome.code:
            words = refusal_sentence(outcome.code, refusal_numbers(outcome.output))
            self.says = f"a proposal of policy {allocation.policy} would be refused: {words}"
            self._pass_over(allocation, Reason("NOT_SENT", words, (allocation.round,)))
            _log.warning("proposal not sent", extra={"policy": allocation.policy, "rule": code_name(outcome.code)})
            return
        self._spawn(self._order(allocation, payload))

    def _pass_over(self, allocation: Allocation, reason: Reason) -> None:
        self._note(Skipped(self._post.index, allocation.policy, allocation.round, reason))

    async def _order(self, allocation: Allocation, payload: bytes) -> None:
        receipt = await self._post.lanes.send(Kind.ALLOCATION, payload)
        how = "accepted" if not receipt.code else f"refused ({code_name(receipt.code)})"
        self.says = f"round {allocation.round}: the proposal of policy {allocation.policy} was {how}"

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
