"""What `edgora top` shows, as values: from REST documents to rows and to the one JSON document. Asks nobody, draws nothing.

Rule 1: every figure stands in a document of a node (wire.rest); nothing is estimated here but ages.
Rule 2: words of others (policies, reasons, addresses of nodes) are made printable: a terminal obeys control characters.
Rule 3: ages run by the answering node's clock, since ledger time stands still while the ledger is idle.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache

import msgspec

from edgora.wire import rest
from edgora.wire.hashing import keccak
from edgora.wire.kernels import load, names

__all__ = [
    "ENDED", "UNDER_WAY", "NodeView", "Panel", "Picture", "RoundRow", "ServerRow", "TaskRow", "VoterRow", "document", "plain",
    "round_rows", "server_rows", "short", "span", "task_rows", "token", "voter_rows",
]  # fmt: skip

UNDER_WAY = ("OPEN", "ASSIGNED", "DONE", "FINAL", "CERTIFIED")
"""States of tasks that still wait for something."""
ENDED = frozenset(("SETTLED", "REFUNDED", "EXPIRED", "CANCELLED", "LATE", "FAILED", "DISPUTED", "UNPAYABLE"))
BUILT_IN = "greedy"


class Panel(StrEnum):
    TASKS = "tasks"
    ROUNDS = "rounds"
    LEDGER = "ledger"
    SERVERS = "servers"


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node, asked for its /v1/status."""

    url: str
    server: int | None
    """Which server it is, by an earlier answer or its key document; None: never learnt."""
    status: rest.Status | None
    problem: str | None
    """Why there is no status."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes said at one look. All but `nodes` is the word of one node."""

    node: str
    """Who answered."""
    info: rest.Info
    servers: rest.ServerList
    under_way: Sequence[rest.Task]
    """Oldest first."""
    lately: Sequence[rest.Task]
    """Newest first, whatever their state."""
    rounds: Sequence[rest.Allocation]
    """Newest first."""
    batches: Sequence[rest.Batch]
    nodes: Sequence[NodeView]
    says: Sequence[str]
    """Changes of the answering node and what caused them, oldest first."""

    @property
    def status(self) -> rest.Status | None:
        """Of the node that answered; None while its consensus half is away."""
        return next((view.status for view in self.nodes if view.url == self.node), None)

    @property
    def sentence(self) -> str:
        """What consensus waits for, by the answering node."""
        view = next((view for view in self.nodes if view.url == self.node), None)
        if view is None:
            return "no status"
        return plain(view.status.sentence if view.status is not None else view.problem or "no status")


# ---- words and figures -----------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text of others without what a terminal would obey."""
    return "".join(mark if mark.isprintable() else "\ufffd" for mark in text)


def short(hexadecimal: str) -> str:
    """Enough of a digest to know it again."""
    return plain(hexadecimal[:10])


def span(ms: int) -> str:
    """A duration in four or five characters."""
    if ms < 0:
        return "0ms"
    if ms < 1_000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f}s"
    minutes = ms // 60_000
    return f"{minutes}m{ms // 1000 % 60:02d}" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}"


def token(wei: str | int) -> str:
    """An amount in the chain's token, shortened for the eye; the documents have it to the wei."""
    return f"{int(wei) / 1e18:.6f}"


@cache
def _kernels() -> Mapping[str, str]:
    return {"0x" + keccak(load(name).wasm).hex(): name for name in names()}


def kernel(module_digest: str) -> str:
    """Name of a shipped kernel, else the beginning of the module's digest."""
    return _kernels().get(module_digest, short(module_digest))


# ---- rows ------------------------------------------------------------------------------------------------------------


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: str
    age_ms: int
    """Since its opening."""
    kernel: str
    ue: str
    source: int
    executor: int | None
    fuel_limit: int
    price: int
    """gwei per Mfuel"""
    maximum_wei: str
    amount_wei: str
    why: str


def task_rows(tasks: Iterable[rest.Task], now_ms: int) -> list[TaskRow]:
    return [
        TaskRow(
            id=plain(task.id), state=task.state, age_ms=max(0, now_ms - task.opened_ms), kernel=kernel(task.offer.module_digest),
            ue=plain(task.offer.ue), source=task.offer.source, executor=task.executor, fuel_limit=task.offer.fuel_limit,
            price=task.offer.price, maximum_wei=task.maximum, amount_wei=task.amount, why=plain(task.why),
        )
        for task in tasks
    ]  # fmt: skip


class RoundRow(msgspec.Struct, frozen=True, kw_only=True):
    """A round; money in wei, None while it is open."""

    round: int
    opened_ms: int
    closed_ms: int | None
    tasks: int
    placed: int
    winner: str | None
    """Policy; "greedy" is the built-in."""
    winner_validator: int | None
    value_wei: str | None
    greedy_wei: str | None
    bound_wei: str | None
    """Proven: no plan is worth more. None: nobody proved one."""
    verdict: str
    refused: Sequence[str]
    """Each refused or late proposal with its reason."""
    skipped: Sequence[str]
    """Allocators of the answering node that made no proposal, and why."""


def round_rows(rounds: Iterable[rest.Allocation]) -> list[RoundRow]:
    return [
        RoundRow(
            round=found.round, opened_ms=found.opened_ms, closed_ms=found.closed_ms, tasks=found.tasks, placed=len(found.pairs),
            winner=None if found.winner is None else plain(found.winner), winner_validator=found.winner_validator,
            value_wei=found.value, greedy_wei=found.greedy_value, bound_wei=found.bound,
            verdict=plain(found.verdict.sentence) if found.verdict is not None else "open",
            refused=[
                plain(f"{item.policy} of validator {item.validator}: {item.reason.sentence if item.reason else 'refused'}")
                for item in found.proposals if not item.accepted
            ],
            skipped=[plain(f"{item.policy}: {item.reason.sentence}") for item in found.skipped],
        )
        for found in rounds
    ]  # fmt: skip


class VoterRow(msgspec.Struct, frozen=True, kw_only=True):
    """One validator as the answering node sees it, and what its own REST says."""

    index: int
    primary: bool
    connected: bool
    voted: bool
    heard_ms: int | None
    """Milliseconds since it was heard; None: it is ourselves, or never was."""
    height: int
    view: int
    url: str | None
    waits_for: str
    """Its own word; why there is none."""


def voter_rows(picture: Picture) -> list[VoterRow]:
    """Empty while the answering node's consensus half is away."""
    status = picture.status
    if status is None:
        return []
    views = {view.server: view for view in picture.nodes if view.server is not None}
    rows = []
    for voter in status.voters:
        view = views.get(voter.index)
        words = "no URL of its REST is known" if view is None else ""
        if view is not None:
            words = view.status.sentence if view.status is not None else view.problem or ""
        rows.append(VoterRow(
            index=voter.index, primary=voter.index == status.primary, connected=voter.connected or voter.index == status.server,
            voted=voter.voted, heard_ms=voter.last_heard_ms, height=voter.committed_height, view=voter.view,
            url=None if view is None else plain(view.url), waits_for=plain(words),
        ))  # fmt: skip
    return rows


class ServerRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    live: bool
    tasks: int
    """Assigned to it now."""
    slots: int | None
    used: int
    """Fuel that the tasks it holds weigh."""
    room: int | None
    """Fuel that it may hold at once: its capacity, or less while its credit is low. None: no advert."""
    ask: int | None
    """gwei per Mfuel"""
    speed: int | None
    """fuel/s and slot"""
    earned_wei: str
    score: float | None
    done: int
    late: int
    failed: int
    disputed: int


def server_rows(servers: Iterable[rest.Server]) -> list[ServerRow]:
    rows = []
    for server in servers:
        advert, record = server.advert, server.reputation
        rows.append(ServerRow(
            id=server.id, live=server.live, tasks=server.tasks, slots=advert.slots if advert else None, used=server.used,
            room=min(advert.capacity, server.credit) if advert else None, ask=advert.ask if advert else None,
            speed=advert.speed if advert else None, earned_wei=server.earned, score=record.score, done=record.done,
            late=record.late, failed=record.failed, disputed=record.disputed,
        ))  # fmt: skip
    return rows


# ---- the document ----------------------------------------------------------------------------------------------------


def document(picture: Picture) -> dict[str, object]:
    """`edgora top --once --json`: the same rows as on the screen, all of them, money to the wei."""
    now, status = picture.info.time_ms, picture.status
    return {
        "node": picture.node, "server": picture.info.server, "version": picture.info.version,
        "genesis_id": picture.info.genesis_id, "time_ms": now, "header_time_ms": picture.info.header_time_ms,
        "height": picture.info.height, "says": [plain(word) for word in picture.says],
        "tasks": {
            "under_way": task_rows(picture.under_way, now),
            "ended": task_rows((task for task in picture.lately if task.state in ENDED), now),
        },
        "rounds": round_rows(picture.rounds),
        "ledger": {
            "sentence": picture.sentence, "waiting": None if status is None else status.waiting,
            "waiting_since_ms": None if status is None else status.waiting_since_ms,
            "view": None if status is None else status.view, "primary": None if status is None else status.primary,
            "quorum": picture.info.quorum, "committed_height": None if status is None else status.committed_height,
            "pool_txs": None if status is None else status.pool_txs, "chain_seen": picture.info.chain_seen,
            "voters": voter_rows(picture),
            "nodes": [
                {"url": view.url, "server": view.server, "height": view.status.committed_height if view.status else None, "problem": view.problem}
                for view in picture.nodes
            ],
            "batches": [{"id": b.id, "state": b.state, "lines": b.lines, "why": plain(b.reason.sentence)} for b in picture.batches],
        },
        "servers": server_rows(picture.servers.items),
    }  # fmt: skip
