"""The executor's duty: run what the ledger assigns to us, have the sealed result kept, file RESULT_HASH (market.md 5).

    assigned -> module and input fetched -> run, paced -> sealed to the UE -> f+1 other servers hold it -> RESULT_HASH

A task that the ledger takes away from us is dropped wherever it is. What cannot be fetched within a few tries is filed
UNAVAILABLE: that costs nobody's reputation, and another server gets the task.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from edgora.crypto.keys import SealingPublicKey
from edgora.crypto.seal import Envelope, seal
from edgora.market.duties import RunDuty, runs_owed
from edgora.node.duties.pacing import Pace, Pacing, pace
from edgora.node.duties.post import Post
from edgora.node.records import InputRecord, ResultRecord, context_of
from edgora.node.workbench import NO_DIGEST, Ran, Workbench
from edgora.ports.blobs import Room
from edgora.ports.tracing import Span, Stage
from edgora.wire.codec import encode
from edgora.wire.errors import EdgoraError, Unavailable
from edgora.wire.ledger import Kind, faulty
from edgora.wire.market import PAID_CODES, HeldPart, Reason, ResultCode, ResultHash, code_name
from edgora.wire.peer import Kept

__all__ = ["Runs"]

_log = logging.getLogger("edgora.duty.runs")
TRIES, BETWEEN_TRIES_S = 4, 0.5
BEGINNINGS = 3
HEDGE_S = 1.0
"""A holder that has not answered by then gets company."""
FILE_LEAD_MS = 1_000
"""A run is stopped so long before its filing is due."""
FINISH_MS = 2_000
"""A paced run ends so long before that, or before the deadline: time to seal the result, have it held, and file it."""
PACES = 1_024
"""Of how many tasks we remember what they were paced to."""


class Runs:
    """One worker a task; the runner bounds how many compute side by side."""

    name = "runs"

    def __init__(self, post: Post, bench: Workbench, pacing: Pacing, observe: Callable[[str, int], None]) -> None:
        """observe hears how many milliseconds each stage of a task took: transfer, run, hold."""
        self._post, self._bench, self._pacing, self._observe = post, bench, pacing, observe
        self.says = "nothing assigned"
        self.progress: dict[bytes, Reason] = {}
        """What each task in our hands waits for, for `why`."""
        self.paces: OrderedDict[bytes, Pace] = OrderedDict()
        """What each task that we ran was paced to, and why."""
        self._working: dict[bytes, asyncio.Task[None]] = {}
        self._filing: set[bytes] = set()
        """Tasks whose filing is on its way: nothing is owed any more once it is executed, and its receipt is still ours."""
        self._tried: dict[bytes, tuple[int, int]] = {}
        """Offer id -> (when it was assigned, how often we have begun it for that assignment)."""

    @property
    def running(self) -> int:
        return len(self._working)

    async def run(self) -> None:
        """Start a worker for each task assigned to us, stop those of tasks that no longer are."""
        try:
            while True:
                owed = {duty.offer_id: duty for duty in runs_owed(self._post.market, self._post.index)}
                for offer_id in [o for o in self._working if o not in owed and o not in self._filing]:
                    self._working[offer_id].cancel()
                self._tried = {offer_id: tried for offer_id, tried in self._tried.items() if offer_id in owed}
                for offer_id, duty in owed.items():
                    if offer_id not in self._working and self._may_begin(duty):
                        self._working[offer_id] = asyncio.ensure_future(self._work(duty))
                self.says = f"{len(self._working)} tasks in hand" if self._working else "nothing assigned"
                await self._post.follower.moved()
        finally:
            for task in self._working.values():
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)

    def _may_begin(self, duty: RunDuty) -> bool:
        """Not for ever: what fails for a reason that we do not know is left to the next server."""
        since, times = self._tried.get(duty.offer_id, (duty.assigned_ms, 0))
        times = times if since == duty.assigned_ms else 0
        self._tried[duty.offer_id] = (duty.assigned_ms, times + 1)
        return times < BEGINNINGS

    async def _work(self, duty: RunDuty) -> None:
        began = self._post.clock.now_ms()
        failure: str | None = "dropped: the task is no longer ours, or the node stops"
        try:
            failure = await self._serve(duty)
        except EdgoraError as error:
            failure = error.detail
            _log.warning("task not served", extra={"task": duty.offer_id, "code": error.code, "detail": error.detail})
        except Exception as error:
            failure = type(error).__name__
            _log.exception("task not served", extra={"task": duty.offer_id})
        finally:
            self._told(duty, Stage.EXECUTE, began, error=failure)
            self.progress.pop(duty.offer_id, None)
            self._filing.discard(duty.offer_id)
            self._working.pop(duty.offer_id, None)

    def _told(
        self, duty: RunDuty, stage: Stage, began_ms: int, *, error: str | None = None, **attributes: str | int | bool
    ) -> None:
        """A stage of a task is over: for its trace."""
        if self._post.tracing.on:
            now = self._post.clock.now_ms()
            self._post.tracing.span(
                Span(duty.offer_id, stage, began_ms, now, (self._post.index,), attributes, error or None)
            )

    async def _serve(self, duty: RunDuty) -> str | None:
        """Returns why the run gave no result that is paid; None if it did."""
        post, offer_id = self._post, duty.offer_id
        began = post.clock.now_ms()
        try:
            wasm, record = await self._fetched(duty)
        except Unavailable as error:
            self._told(duty, Stage.FETCH, began, error=error.detail)
            await self._file(duty, Ran(ResultCode.UNAVAILABLE, NO_DIGEST, 0, detail=error.detail), None, ())
            return error.detail
        self.progress.pop(offer_id, None)
        fetched = post.clock.now_ms()
        self._observe("transfer", fetched - began)
        self._told(duty, Stage.FETCH, began, source=duty.offer.source)
        chosen = self._pace(duty)
        ran = await self._bench.run(record, wasm, duty.file_by_ms - post.ledger_ms() - FILE_LEAD_MS, chosen.speed)
        self.progress.pop(offer_id, None)
        done = post.clock.now_ms()
        self._observe("run", done - fetched)
        failure = None if ran.code in PAID_CODES else f"{ran.code.name} {ran.detail}"
        self._told(
            duty, Stage.RUN, fetched, error=failure, code=ran.code.name, fuel_used=ran.fuel_used, paced_to=chosen.speed
        )
        if failure is not None:
            await self._file(duty, ran, None, ())
            return failure
        envelope = await asyncio.to_thread(self._sealed, record, ran)
        result = ResultRecord(offer_id, int(ran.code), ran.digest, envelope)
        await asyncio.to_thread(post.blobs.put, Room.RESULTS, offer_id, encode(result))
        held = await self._spread(duty, ran, envelope)
        self._observe("hold", post.clock.now_ms() - done)
        self._told(duty, Stage.HOLD, done, holders=len(held))
        await self._file(duty, ran, envelope, held)
        return None

    def _pace(self, duty: RunDuty) -> Pace:
        """How fast this task runs; noted, and told by `why` while it does."""
        post = self._post
        own = post.market.server(post.index)
        advertised = own.advert.speed if own is not None and own.advert is not None else post.settings.advert.speed
        last_ms = min(duty.file_by_ms - FILE_LEAD_MS, duty.offer.deadline_ms) - FINISH_MS
        chosen = pace(
            duty.offer_id, self._pacing.share(duty.offer.ue), advertised, duty.offer.fuel_limit,
            last_ms - post.ledger_ms(),
        )  # fmt: skip
        self.paces[duty.offer_id] = chosen
        while len(self.paces) > PACES:
            self.paces.popitem(last=False)
        if chosen.reason is not None:
            self.progress[duty.offer_id] = chosen.reason
        return chosen

    async def _fetched(self, duty: RunDuty) -> tuple[bytes, InputRecord]:
        """Module and sealed input. Raises Unavailable after a few tries."""
        post, offer = self._post, duty.offer
        servers = [offer.source, *(server.id for server in post.market.servers() if server.id != offer.source)]
        self.progress[duty.offer_id] = Reason("INPUT_NOT_FETCHED", duty.offer_id.hex(), (0, offer.input_octets))
        for attempt in range(TRIES):
            try:
                record = await self._bench.sealed_input(duty.offer_id, offer, [offer.source])
                return await self._bench.module(offer.module_digest, servers), record
            except Unavailable:
                if attempt == TRIES - 1:
                    raise
                await asyncio.sleep(BETWEEN_TRIES_S)
        raise AssertionError("unreachable")

    def _sealed(self, record: InputRecord, ran: Ran) -> Envelope:
        key = SealingPublicKey(record.result_key)
        return seal(ran.output, [key], context_of(self._post.genesis, record.offer), secrets.token_bytes)[0]

    # ---- holders

    async def _spread(self, duty: RunDuty, ran: Ran, envelope: Envelope) -> tuple[HeldPart, ...]:
        """Signatures of f+1 other servers that store the sealed result. Goes on until the task is taken from us."""
        post, needed = self._post, faulty(len(self._post.genesis.validators)) + 1
        held: dict[int, HeldPart] = {}
        while len(held) < needed:
            await self._ask_holders(duty, ran, envelope, held, needed)
            if len(held) < needed:
                await post.moved_or(BETWEEN_TRIES_S)
        return tuple(held[server] for server in sorted(held))

    async def _ask_holders(
        self, duty: RunDuty, ran: Ran, envelope: Envelope, held: dict[int, HeldPart], needed: int
    ) -> None:
        """Ask as many others as are missing, and one more whenever one fails or is slow."""
        others = self._others(duty, held)
        asked: set[asyncio.Task[Kept]] = set()

        def ask(count: int) -> None:
            for server in islice(others, count):
                hold = self._post.peers.hold(server, duty.offer_id, int(ran.code), ran.digest, envelope)
                asked.add(asyncio.ensure_future(hold))

        ask(needed - len(held))
        try:
            while asked and len(held) < needed:
                done, _ = await asyncio.wait(asked, timeout=HEDGE_S, return_when=asyncio.FIRST_COMPLETED)
                asked -= done
                failed = 0
                for task in done:
                    try:
                        kept = task.result()
                    except Unavailable:
                        failed += 1
                    else:
                        held[kept.server] = HeldPart(kept.server, kept.seen_ms, kept.signature or b"")
                self.progress[duty.offer_id] = Reason("RESULT_HELD", duty.offer_id.hex(), (len(held), needed))
                ask(failed if done else 1)
        finally:
            for task in asked:
                task.cancel()

    def _others(self, duty: RunDuty, held: dict[int, HeldPart]) -> Iterator[int]:
        """Registered servers other than us, from a place that depends on the task, so that the load is spread."""
        servers = [s.id for s in self._post.market.servers() if s.registered and s.id != self._post.index]
        start = int.from_bytes(duty.offer_id[:4], "big") % len(servers) if servers else 0
        return iter([s for s in servers[start:] + servers[:start] if s not in held])

    # ---- filing

    async def _file(self, duty: RunDuty, ran: Ran, envelope: Envelope | None, held: tuple[HeldPart, ...]) -> None:
        cipher = None if envelope is None else envelope.cipher_digest
        began = self._post.clock.now_ms()
        self._filing.add(duty.offer_id)
        filing = ResultHash(duty.offer_id, int(ran.code), ran.digest, ran.fuel_used, cipher, held)
        receipt = await self._post.lanes.send(Kind.RESULT_HASH, encode(filing), offer_id=duty.offer_id)
        self._told(duty, Stage.FILE, began, rule=code_name(receipt.code))
        _log.info(
            "result filed",
            extra={
                "task": duty.offer_id, "result": ran.code.name, "fuel": ran.fuel_used, "rule": code_name(receipt.code),
                "detail": ran.detail if ran.code not in PAID_CODES else "",
            },
        )  # fmt: skip
