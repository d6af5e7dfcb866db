"""Everything a node can be asked about tasks, servers, accounts, rounds and batches, from its own followed state.

Rule 1: an answer names the height that it speaks of; nothing waits, nothing changes.
Rule 2: the market's state is asked first, the archive for what the state has forgotten.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from edgora.market.reasons import skipped_sentence, verdict
from edgora.market.records import FINISHED, Server
from edgora.node import views
from edgora.node.archive import BatchRecord, RoundRecord, TaskRecord
from edgora.node.directory import Directory
from edgora.node.follower import Follower
from edgora.node.why import Explainer
from edgora.ports.bus import Skipped
from edgora.ports.clock import Clock
from edgora.wire import rest
from edgora.wire.codec import encode, from_u96, from_u128
from edgora.wire.errors import NotFound, Refused
from edgora.wire.genesis import Genesis
from edgora.wire.market import (
    MAX_DEADLINE_MS,
    MAX_DESIRED_MS,
    MAX_FUEL,
    MAX_INPUT,
    MAX_OPEN_PER_UE,
    MAX_OUTPUT,
    MAX_PAGES,
    Offer,
    ResultCode,
    TaskState,
)
from edgora.wire.market_events import Choice, ProposalAccepted, ProposalRefused, ResultFiled

__all__ = ["PAGE", "Queries", "page"]

PAGE = 50
MAX_PAGE = 200
T = TypeVar("T")


def page(items: Iterable[tuple[int, T]], cursor: str | None, limit: int) -> tuple[list[T], str | None]:
    """Items that come newest first with their number, below the cursor; and the cursor for the next page."""
    below = None
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
            raise Refused(
                f"cursor {cursor!r} is none of ours", field="query.cursor", fix="use the cursor of the last page"
            )
        below = int(cursor)
    wanted = (item for item in items if below is None or item[0] < below)
    found = list(islice(wanted, limit + 1))
    more = len(found) > limit
    return [item for _, item in found[:limit]], str(found[limit - 1][0]) if more else None


class Queries:
    """Read-only view of one node's follower."""

    def __init__(
        self, genesis: Genesis, index: int, clock: Clock, follower: Follower, directory: Directory, why: Explainer,
        skipped: Mapping[int, Sequence[Skipped]], gas_used: Mapping[int, int],
    ) -> None:  # fmt: skip
        """skipped: by round, which of this node's allocators made no proposal. gas_used: by batch, where we settled."""
        self._genesis, self._index, self._clock = genesis, index, clock
        self._follower, self._directory, self._why = follower, directory, why
        self._skipped, self._gas_used = skipped, gas_used
        self._validators = {server.signer: server.id for server in genesis.servers}

    # ---- tasks

    def record(self, offer_id: bytes) -> TaskRecord:
        """What the archive knows of a task. Raises NotFound."""
        found = self._follower.archive.tasks.get(offer_id)
        if found is None:
            raise NotFound(
                f"no task 0x{offer_id.hex()} up to height {self._follower.height}", field="id",
                fix="check the id; a task is there once its TASK receipt has code 0",
            )  # fmt: skip
        return found

    def record_code(self, offer_id: bytes) -> int:
        filed = self.record(offer_id).result
        return int(ResultCode.UNAVAILABLE) if filed is None else filed.code

    def offer(self, offer_id: bytes) -> Offer:
        return self.record(offer_id).offer

    def states(self, offer_id: bytes) -> tuple[TaskState, TaskState | None]:
        """(state, the unpaid end that it was or is being refunded from)."""
        record, task = self.record(offer_id), self._follower.market.task(offer_id)
        return (record.state if task is None else TaskState(task.state)), record.cause

    def task(self, task_id: str) -> rest.Task:
        return self._task(self.record(views.unhex(task_id, "id")))

    def tasks(
        self, *, cursor: str | None, limit: int, ue: str | None, state: str | None, server: int | None,
        kernel: str | None,
    ) -> rest.TaskPage:  # fmt: skip
        """Newest first."""
        by_ue = None if ue is None else views.unhex(ue, "query.ue")
        by_kernel = None if kernel is None else views.unhex(kernel, "query.kernel")

        def fits(record: TaskRecord) -> bool:
            return (
                (by_ue is None or record.offer.ue == by_ue)
                and (by_kernel is None or record.offer.module_digest == by_kernel)
                and (server is None or server in (record.executor, record.offer.source))
                and (state is None or self.states(record.offer_id)[0].name == state)
            )

        newest = ((record.order, record) for record in reversed(self._follower.archive.tasks.values()) if fits(record))
        found, more = page(newest, cursor, limit)
        items = [self._task(record) for record in found]
        return rest.TaskPage(items=items, cursor=more, height=self._follower.height)

    def _task(self, record: TaskRecord) -> rest.Task:
        task = self._follower.market.task(record.offer_id)
        state, cause = self.states(record.offer_id)
        batch = record.batch if task is None or not task.batch else task.batch
        return rest.Task(
            id=views.hex_of(record.offer_id), offer=views.offer_body(record.offer), state=views.state_name(state),
            executor=record.executor, round=record.round, opened_ms=record.opened_ms, assigned_ms=record.assigned_ms,
            done_ms=record.done_ms, reopened=record.reopened, maximum=str(record.maximum),
            amount=str(record.amount if cause is None else 0), result=_result(record.result), batch=batch,
            reason=None if record.reason is None else views.reason(record.reason),
            why=self._why.sentence(record, task),
            tx_hash=None if record.tx_hash is None else views.hex_of(record.tx_hash),
            trace_id=record.offer_id[:16].hex(), height=self._follower.height,
        )  # fmt: skip

    def why(self, task_id: str) -> rest.Why:
        """What the task waits for, or how it ended."""
        record = self.record(views.unhex(task_id, "id"))
        task = self._follower.market.task(record.offer_id)
        state, _ = self.states(record.offer_id)
        reasons = self._why.reasons(record, task)
        return rest.Why(
            task=task_id, state=views.state_name(state), sentence=self._why.sentence(record, task),
            reasons=[views.reason(reason) for reason in reasons],
            choice=None if record.choice is None else _choice(record.choice), since_ms=_since(record, state),
            height=self._follower.height, time_ms=self._follower.header_time_ms,
        )  # fmt: skip

    # ---- servers and accounts

    def servers(self) -> rest.ServerList:
        items = [self._server(server) for server in self._follower.market.servers()]
        return rest.ServerList(items=items, height=self._follower.height, time_ms=self._follower.header_time_ms)

    def server(self, number: int) -> rest.Server:
        found = self._follower.market.server(number)
        if found is None:
            raise NotFound(f"there is no server {number}", field="id", fix="GET /v1/servers lists them")
        return self._server(found)

    def _server(self, server: Server) -> rest.Server:
        advert, position = server.advert, self._directory.position_mm(server.id)
        held = self._follower.market.tasks(TaskState.ASSIGNED)
        return rest.Server(
            id=server.id, signer=views.hex_of(server.signer), meta_hash=views.hex_of(server.meta_hash),
            live=self._follower.is_live(server, self._clock.now_ms()), bonded=server.registered and not server.leaving,
            advert=None if advert is None else rest.Advert(
                speed=advert.speed, capacity=advert.capacity, slots=advert.slots, ask=advert.ask, uplink=advert.uplink,
                forward=str(advert.forward), until_ms=advert.until_ms,
            ),
            credit=server.credit, used=server.used, tasks=sum(task.executor == server.id for task in held),
            earned=str(self._follower.archive.earned.get(server.id, 0)),
            reputation=rest.Reputation(
                desired_ms=server.desired_ms, actual_ms=server.actual_ms, done=server.done, late=server.late,
                failed=server.failed, disputed=server.disputed,
                score=server.desired_ms / server.actual_ms if server.actual_ms else None,
            ),
            keys=self._keys(server),
            position_m=None if position is None else [position[0] / 1000, position[1] / 1000],
        )  # fmt: skip

    def _keys(self, server: Server) -> rest.KeyDocument | None:
        document = self._directory.get(server.id)
        if document is None:
            return None
        return rest.KeyDocument(
            document=views.hex_of(encode(document)), meta_hash=views.hex_of(document.hash),
            signer=views.hex_of(server.signer), rsa_spki=views.hex_of(document.rsa_spki),
            link_key=views.hex_of(document.link_key), public_url=document.public_url, network_url=document.endpoint,
        )  # fmt: skip

    def account(self, address: str) -> rest.Account:
        ue = views.unhex(address, "address")
        account = self._follower.market.account(ue)
        balance, spent, reserved = (account.balance, account.spent, account.reserved) if account else (0, 0, 0)
        voucher = account.voucher if account else None
        lanes = self._follower.lanes_of(ue)
        return rest.Account(
            address=address, known=self._follower.executor.knows(ue), balance=str(balance), spent=str(spent),
            reserved=str(reserved), free=str(max(0, balance - reserved)),
            voucher=None if voucher is None else rest.Voucher(
                cap=str(from_u96(voucher.cap)), valid_until_s=voucher.valid_until_s
            ),
            exit_at_ms=account.exit_at_s * 1000 if account is not None and account.exit_at_s else None,
            unfinished=account.unfinished if account else 0,
            lanes=[rest.Lane(lane=lane, next_seq=seq) for lane, seq in lanes],
            height=self._follower.height, time_ms=self._follower.header_time_ms,
        )  # fmt: skip

    # ---- rounds and batches

    def allocations(self, cursor: str | None, limit: int) -> rest.AllocationPage:
        newest = ((number, record) for number, record in reversed(self._follower.archive.rounds.items()))
        found, more = page(newest, cursor, limit)
        return rest.AllocationPage(items=[self._allocation(record, whole=False) for record in found], cursor=more)

    def allocation(self, number: int) -> rest.Allocation:
        found = self._follower.archive.rounds.get(number)
        if found is None:
            raise NotFound(f"round {number} is not known here", field="round", fix="GET /v1/allocations lists the last")
        return self._allocation(found, whole=True)

    def _allocation(self, found: RoundRecord, *, whole: bool) -> rest.Allocation:
        closed, instance = found.closed, found.instance
        late = [
            rest.Proposal(
                validator=self._validators.get(item.sender, 0), policy=item.policy, accepted=False, value="0", bound=None,
                solver_ms=0, reason=views.reason(item.reason),
            )
            for item in found.late
        ]  # fmt: skip
        why = None if closed is None else verdict(closed, len(late), self._genesis.market.prefer)
        return rest.Allocation(
            round=instance.round, opened_height=found.opened_height, opened_ms=found.opened_ms,
            closed_height=found.closed_height, closed_ms=found.closed_ms, digest=views.hex_of(found.digest),
            tasks=len(instance.tasks), servers=len(instance.servers),
            instance=views.instance(instance) if whole else None,
            winner=None if closed is None else closed.policy,
            winner_validator=None if closed is None else closed.winner,
            value=None if closed is None else str(from_u128(closed.value)),
            greedy_value=None if closed is None else str(from_u128(closed.greedy)),
            bound=None if closed is None or closed.bound is None else str(from_u128(closed.bound)),
            verdict=None if why is None else views.reason(why),
            pairs=[rest.Pair(task=views.hex_of(a.offer_id), server=a.executor) for a in found.assigned],
            proposals=[*map(_proposal, found.proposals), *late],
            skipped=[
                rest.SkippedRound(policy=item.policy, reason=views.reason(item.reason, skipped_sentence(item.reason)))
                for item in self._skipped.get(instance.round, ())
            ],
            choices=[] if closed is None else [_choice(choice) for choice in closed.choices],
        )  # fmt: skip

    def batches(self, cursor: str | None, limit: int) -> rest.BatchPage:
        newest = ((number, record) for number, record in reversed(self._follower.archive.batches.items()))
        found, more = page(newest, cursor, limit)
        return rest.BatchPage(items=[self._batch(record) for record in found], cursor=more)

    def batch(self, number: int) -> rest.Batch:
        found = self._follower.archive.batches.get(number)
        if found is None:
            raise NotFound(f"batch {number} is not known here", field="id", fix="GET /v1/batches lists the last")
        return self._batch(found)

    def _batch(self, found: BatchRecord) -> rest.Batch:
        frozen, fact = found.frozen, found.fact
        return rest.Batch(
            id=frozen.batch_id,
            state="SETTLED" if fact is not None else "CERTIFIED" if found.certified else "FROZEN",
            frozen_height=found.frozen_height, frozen_ms=found.frozen_ms, batch_hash=views.hex_of(frozen.batch_hash),
            task_root=views.hex_of(frozen.task_root),
            payload_hash=None if found.payload_hash is None else views.hex_of(found.payload_hash),
            payload_octets=frozen.octets, lines=frozen.lines, gas=frozen.gas,
            gas_used=self._gas_used.get(frozen.batch_id),
            reason=views.reason(frozen.reason), tasks=[views.hex_of(task) for task in found.tasks],
            paid=None if fact is None else str(from_u96(fact.paid)),
            skipped_ues=[] if fact is None else [views.hex_of(ue) for ue in fact.skipped_ues],
            skipped_locks=[] if fact is None else [views.hex_of(key) for key in fact.skipped_locks],
            settlement_tx=None if found.settlement_tx is None else views.hex_of(found.settlement_tx),
            settled_ms=found.settled_ms,
        )  # fmt: skip

    # ---- the platform

    def info(self, version: str, development: bool, requests_per_s: int, burst: int) -> rest.Info:
        genesis, market = self._genesis, self._genesis.market
        params = {name: getattr(market, name) for name in market.__struct_fields__}
        consensus = {name: getattr(genesis.consensus, name) for name in genesis.consensus.__struct_fields__}
        return rest.Info(
            version=version, time_ms=self._clock.now_ms(), height=self._follower.height,
            header_time_ms=self._follower.header_time_ms, epoch=0, server=self._index,
            consortium_id=genesis.consortium_id, genesis_id=views.hex_of(genesis.id),
            genesis=views.hex_of(encode(genesis)), chain_id=genesis.chain_id,
            market_address=views.hex_of(genesis.market_address),
            validators=[views.hex_of(address) for address in genesis.addresses], quorum=self._follower.market.core.q,
            chain_seen=self._follower.chain_seen(self._clock.now_ms()), development=development,
            params=rest.MarketParams(**(params | {"audit_pay": str(market.audit_pay)})),
            consensus=rest.ConsensusParams(**consensus),
            limits=rest.Limits(
                fuel=MAX_FUEL, desired_ms=MAX_DESIRED_MS, input_octets=MAX_INPUT, output_octets=MAX_OUTPUT,
                memory_pages=MAX_PAGES, module_octets=4 * 1024 * 1024, deadline_ms=MAX_DEADLINE_MS,
                tasks_per_ue=MAX_OPEN_PER_UE, tx_octets=16 * 1024, txs_per_request=256,
                requests_per_s=requests_per_s, burst=burst,
            ),
        )  # fmt: skip


def _since(record: TaskRecord, state: TaskState) -> int | None:
    """When the task came into the state it is in, as far as the archive saw it."""
    if state == TaskState.OPEN:
        return record.opened_ms
    if state == TaskState.ASSIGNED:
        return record.assigned_ms
    if state in FINISHED:
        return record.ended_ms
    return record.done_ms


def _result(filed: ResultFiled | None) -> rest.Result | None:
    if filed is None:
        return None
    return rest.Result(
        code=ResultCode(filed.code).name, result_digest=views.hex_of(filed.result_digest),
        cipher_digest=None if filed.cipher_digest is None else views.hex_of(filed.cipher_digest),
        fuel_used=filed.fuel_used, holders=list(filed.holders),
    )  # fmt: skip


def _choice(found: Choice) -> rest.Choice:
    return rest.Choice(
        task=views.hex_of(found.offer_id), server=found.server,
        alternatives=[
            rest.Alternative(server=a.server, value=str(from_u128(a.value)), reason=views.reason(a.reason))
            for a in found.alternatives
        ],
    )  # fmt: skip


def _proposal(item: ProposalAccepted | ProposalRefused) -> rest.Proposal:
    if isinstance(item, ProposalAccepted):
        return rest.Proposal(
            validator=item.server, policy=item.policy, accepted=True, value=str(from_u128(item.value)),
            bound=None if item.bound is None else str(from_u128(item.bound)), solver_ms=item.solver_ms, reason=None,
        )  # fmt: skip
    return rest.Proposal(
        validator=item.server, policy=item.policy, accepted=False, value="0", bound=None, solver_ms=0,
        reason=views.reason(item.reason),
    )  # fmt: skip
