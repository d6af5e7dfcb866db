"""CHAIN_FACT: attest what the chain says, and that it was looked at (contracts.md 9).

Rule 1: facts are attested in chain order, in one lane, only from blocks that are deep enough: `confirmations` blocks on
top; on a development chain none, but the block was first seen two seconds ago and is still canonical.
Rule 2: the cursor moves on once the receipts are there, and what the state has already is not said again; so a restart
repeats at most what is refused as given.
Rule 3: Head is filed while something is under way, at once when a task waits for it, and soon after another validator's
that is clearly newer than ours. "Clearly" keeps validators from answering each other for ever.
"""

import asyncio
import logging

from edgora.market.duties import head_due
from edgora.node.duties.post import Post
from edgora.ports.chain import ChainBlock
from edgora.wire.codec import encode
from edgora.wire.errors import EdgoraError
from edgora.wire.ledger import Kind
from edgora.wire.market import ChainFact, Code, Head, code_name

__all__ = ["ChainFacts"]

_log = logging.getLogger("edgora.duty.chain")
DEV_CHAINS = frozenset((31337, 131277322940537))
"""Anvil's and eth-tester's chain ids: blocks come at once and there is one producer."""
SETTLED_MS = 2_000
DEEP = 12
POLL_S = 0.5
TASK_WAITS_MS = 15_000
"""A task that asks for a Head waits about so long; it may have to be said more than once."""
ASKED_REST_MS = 1_000
"""Between two Heads of ours that tasks ask for: the others need a moment to answer the first."""
SPAN = 1_000
"""Blocks asked for at a time."""
IN_FLIGHT = 32
"""Attestations under way: below the ledger's lane gap."""
_CURSOR = "chain.cursor"


class ChainFacts:
    """This validator's eyes on the chain."""

    name = "chain_facts"

    def __init__(self, post: Post) -> None:
        self._post = post
        self.says = "the chain was not looked at yet"
        self.latest: ChainBlock | None = None
        self._cursor = int.from_bytes(post.journal.get(_CURSOR) or b"", "big")
        self._first_seen: dict[int, tuple[bytes, int]] = {}
        self._posted_ms = 0
        self._asked = asyncio.Event()
        confirmations = post.settings.confirmations
        self._dev = post.genesis.chain_id in DEV_CHAINS
        self._depth = confirmations if confirmations is not None else 0 if self._dev else DEEP

    async def look(self) -> None:
        """A task waits for the chain to be seen: file a Head now."""
        self._posted_ms = self._post.clock.now_ms()
        self._asked.set()

    async def run(self) -> None:
        """Look, attest, wait; until cancelled."""
        while True:
            self._asked.clear()
            try:
                self.latest = await self._post.chain.latest()
                await self._heads(self.latest)
                await self._facts(self.latest)
                self.says = f"attested up to chain block {self._cursor} of {self.latest.number}"
            except EdgoraError as error:
                self.says = f"the chain is not reached: {error.detail}"
            try:
                async with asyncio.timeout(POLL_S):
                    await self._asked.wait()
            except TimeoutError:
                pass

    # ---- Head

    async def _heads(self, latest: ChainBlock) -> None:
        post, now = self._post, self._post.ledger_ms()
        asked = self._post.clock.now_ms() - self._posted_ms < TASK_WAITS_MS
        heads = post.market.heads()
        own = heads[post.index].filed_ms if post.index in heads else 0
        newest = max((head.filed_ms for server, head in heads.items() if server != post.index), default=0)
        every = post.genesis.market.margin_ms // 4
        due = head_due(post.market, post.index, now, posted_ms=self._posted_ms)
        answer = newest - own >= every // 2
        regular = due and now - own >= every
        wanted = asked and not post.follower.chain_seen(now) and now - own >= ASKED_REST_MS
        if wanted or answer or regular:
            fact = ChainFact(latest.hash, 0, 0, Head(latest.number, latest.time_s))
            await post.lanes.send(Kind.CHAIN_FACT, encode(fact))

    # ---- facts

    async def _facts(self, latest: ChainBlock) -> None:
        """Attest whatever stands in blocks that are deep enough now."""
        upto = await self._deep_enough(latest)
        while self._cursor < upto:
            last = min(self._cursor + SPAN, upto)
            found = await self._post.chain.events(self._cursor + 1, last)
            facts = [item.fact for item in found if not self._post.market.has_fact(item.fact, self._post.index)]
            for first in range(0, len(facts), IN_FLIGHT):
                await asyncio.gather(*(self._attest(fact) for fact in facts[first : first + IN_FLIGHT]))
            self._cursor = last
            self._post.journal.put(_CURSOR, last.to_bytes(8, "big"))

    async def _attest(self, fact: ChainFact) -> None:
        receipt = await self._post.lanes.send(Kind.CHAIN_FACT, encode(fact))
        if receipt.code not in {0, Code.FACT_GIVEN}:
            extra = {"fact": type(fact.fact).__name__, "rule": code_name(receipt.code), "block": fact.block_hash}
            _log.warning("fact refused", extra=extra)

    async def _deep_enough(self, latest: ChainBlock) -> int:
        """The highest block whose facts may be attested now."""
        if not self._dev:
            return latest.number - self._depth
        now = self._post.clock.now_ms()
        known = self._first_seen.get(latest.number)
        if known is None or known[0] != latest.hash:
            self._first_seen[latest.number] = (latest.hash, now)
        old = sorted(number for number, (_, seen) in self._first_seen.items() if now - seen >= SETTLED_MS)
        upto = self._cursor
        for number in reversed(old):
            block = await self._post.chain.block(number)
            if block is not None and block.hash == self._first_seen[number][0]:
                upto = number
                break
            del self._first_seen[number]
        for number in [n for n in self._first_seen if n < upto]:
            del self._first_seen[number]
        return min(upto, latest.number - self._depth)
