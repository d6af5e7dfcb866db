"""DRAW and audit: the witness's and the auditor's duty (market.md 5).

As a witness we open the next preimage of our audit chain for the results that wait for us. As an auditor we get the
input's key from the executor, run the task again and file what we found, whatever the executor filed. Without a fitting
key we file NO_KEY. What only says that this machine could not look (WALL, UNAVAILABLE) is not filed: a missed audit
costs a new advert, a wrong word costs stake.
"""

import asyncio
import logging

from edgora.market.duties import AuditDuty, audits_owed, draw_due
from edgora.node.audit_chain import AuditChains
from edgora.node.duties.post import Post
from edgora.node.workbench import NO_DIGEST, Ran, Workbench
from edgora.ports.tracing import Span, Stage
from edgora.wire.codec import encode
from edgora.wire.errors import EdgoraError, Unavailable
from edgora.wire.ledger import Kind
from edgora.wire.market import DETERMINISTIC_CODES, Draw, ResultCode, ResultHash, code_name

__all__ = ["Audits", "Draws"]

_log = logging.getLogger("edgora.duty.audits")
RETRY_S = 0.5
KEY_LEAD_MS = 1_000
"""NO_KEY is filed so long before the time is over."""


class Draws:
    """The witness's part."""

    name = "draws"

    def __init__(self, post: Post, chains: AuditChains) -> None:
        self._post, self._chains = post, chains
        self.says = "no result waits for our draw"

    async def run(self) -> None:
        """One DRAW at a time; it serves all results of executed blocks."""
        post = self._post
        while True:
            own = post.market.server(post.index)
            waiting = draw_due(post.market, post.index)
            if own is None or own.tip is None or not waiting:
                await post.follower.moved()
                continue
            preimage = self._chains.preimage(own.tip)
            if preimage is None:
                self.says = "our audit chain is used up or its seed is lost; a new advert will renew it"
                await post.follower.moved()
                continue
            receipt = await post.lanes.send(Kind.DRAW, encode(Draw(preimage, post.follower.height)))
            self.says = f"drew for {len(waiting)} results: {code_name(receipt.code)}"


class Audits:
    """The auditor's part."""

    name = "audits"

    def __init__(self, post: Post, bench: Workbench) -> None:
        self._post, self._bench = post, bench
        self.says = "no audit to run"
        self._working: dict[bytes, asyncio.Task[None]] = {}
        self._filed: set[bytes] = set()

    async def run(self) -> None:
        """Start a worker for each audit that we were drawn for."""
        try:
            while True:
                owed = {duty.offer_id: duty for duty in audits_owed(self._post.market, self._post.index)}
                self._filed &= owed.keys()
                for offer_id in [o for o in self._working if o not in owed]:
                    self._working[offer_id].cancel()
                for offer_id, duty in owed.items():
                    if offer_id not in self._working and offer_id not in self._filed:
                        self._working[offer_id] = asyncio.ensure_future(self._work(duty))
                self.says = f"{len(self._working)} audits in hand" if self._working else "no audit to run"
                await self._post.follower.moved()
        finally:
            for task in self._working.values():
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)

    async def _work(self, duty: AuditDuty) -> None:
        began = self._post.clock.now_ms()
        try:
            ran = await self._again(duty)
            self._post.tracing.span(Span(
                duty.offer_id, Stage.AUDIT, began, self._post.clock.now_ms(), (self._post.index,),
                {"code": ran.code.name, "fuel_used": ran.fuel_used, "executor": duty.executor},
            ))  # fmt: skip
            self._filed.add(duty.offer_id)
            if ran.code not in DETERMINISTIC_CODES and ran.code is not ResultCode.NO_KEY:
                _log.warning("audit not filed", extra={"task": duty.offer_id, "detail": ran.detail})
                return
            filing = ResultHash(duty.offer_id, int(ran.code), ran.digest, ran.fuel_used)
            receipt = await self._post.lanes.send(Kind.RESULT_HASH, encode(filing), offer_id=duty.offer_id)
            extra = {"task": duty.offer_id, "result": ran.code.name, "rule": code_name(receipt.code)}
            _log.info("audit filed", extra=extra)
        except EdgoraError as error:
            _log.warning("audit failed", extra={"task": duty.offer_id, "code": error.code, "detail": error.detail})
        except Exception:
            _log.exception("audit failed", extra={"task": duty.offer_id})
        finally:
            self._working.pop(duty.offer_id, None)

    async def _again(self, duty: AuditDuty) -> Ran:
        """The task, run again by us."""
        post, offer = self._post, duty.offer
        holders = [duty.executor, offer.source]
        while True:
            try:
                record = await self._bench.sealed_input(duty.offer_id, offer, holders)
                break
            except Unavailable as error:
                if post.ledger_ms() + KEY_LEAD_MS >= duty.by_ms:
                    return Ran(ResultCode.NO_KEY, NO_DIGEST, 0, detail=error.detail)
                await asyncio.sleep(RETRY_S)
        wasm = await self._bench.module(offer.module_digest, [*holders, *(s.id for s in post.market.servers())])
        own = post.market.server(post.index)
        speed = own.advert.speed if own is not None and own.advert is not None else post.settings.advert.speed
        ran = await self._bench.run(record, wasm, duty.by_ms - post.ledger_ms(), speed)
        if ran.code is ResultCode.UNAVAILABLE and ran.digest == NO_DIGEST:
            return Ran(ResultCode.NO_KEY, NO_DIGEST, 0, detail=ran.detail)
        return ran
