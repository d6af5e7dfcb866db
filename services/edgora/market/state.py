"""The market's state: tables of records, what a block wrote, and the indexes that follow from the records.

Rule 1: all change goes through `Table.put` and `Table.delete`; `drain` returns what changed since it was called last, so
the writes of all blocks add up to `snapshot`, byte for byte.
Rule 2: indexes are functions of the records and are rebuilt by `restore`; nothing that decides may depend on the order
of a dict or set, which differs between a replica that ran and one that was restored.

    key = "m/" + table's letter + "/" + record's key;    value = canonical MessagePack of the record

    s server id      a account (ue)     k lock (lock key)    t task (offer id)    q entry (order)    b batch
    r round          v voter (id)       f fact (place)       h head (id)          x ban (source, executor)    m meta
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from edgora.market.records import (
    FINISHED,
    Account,
    AccountWire,
    Ban,
    BatchRecord,
    Entry,
    FactRecord,
    HeadSeen,
    Lock,
    LockWire,
    Meta,
    RoundRecord,
    Server,
    Task,
    Voter,
)  # fmt: skip
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Broken
from edgora.wire.market import TaskState

__all__ = ["State", "Table", "Timers", "account_key", "lock_record_key", "server_key", "task_key"]

K = TypeVar("K")
R = TypeVar("R")


def server_key(server: int) -> bytes:
    """State key of a server's record, for certified reads."""
    return b"m/s/" + server.to_bytes(2, "big")


def account_key(ue: bytes) -> bytes:
    return b"m/a/" + ue


def lock_record_key(key: bytes) -> bytes:
    return b"m/k/" + key


def task_key(offer_id: bytes) -> bytes:
    return b"m/t/" + offer_id


class Table(Generic[K, R]):
    """Records of one kind by key. A record that is at the end of a block what it was before is no write."""

    def __init__(
        self, letter: str, key: Callable[[K], bytes], unkey: Callable[[bytes], K],
        to_bytes: Callable[[R], bytes], from_bytes: Callable[[bytes], R],
    ) -> None:  # fmt: skip
        self.prefix = b"m/" + letter.encode() + b"/"
        self._key, self._unkey = key, unkey
        self._to_bytes, self._from_bytes = to_bytes, from_bytes
        self._rows: dict[K, R] = {}
        self._before: dict[K, R | None] = {}

    def get(self, key: K) -> R | None:
        return self._rows.get(key)

    def __getitem__(self, key: K) -> R:
        return self._rows[key]

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def ordered(self) -> list[K]:
        """In ascending order of the stored key."""
        return sorted(self._rows, key=self._key)

    def values(self) -> Iterator[R]:
        """In ascending order of the stored key."""
        return (self._rows[key] for key in self.ordered())

    def put(self, key: K, row: R) -> None:
        self._before.setdefault(key, self._rows.get(key))
        self._rows[key] = row

    def delete(self, key: K) -> None:
        if key in self._rows:
            self._before.setdefault(key, self._rows[key])
            del self._rows[key]

    def drain(self, into: dict[bytes, bytes | None]) -> None:
        """Adds what changed since the last drain."""
        for key, before in self._before.items():
            now = self._rows.get(key)
            if now != before:
                into[self.prefix + self._key(key)] = None if now is None else self._to_bytes(now)
        self._before = {}

    def dump(self, into: dict[bytes, bytes]) -> None:
        for key, row in self._rows.items():
            into[self.prefix + self._key(key)] = self._to_bytes(row)

    def load(self, key: bytes, value: bytes) -> None:
        self._rows[self._unkey(key[len(self.prefix) :])] = self._from_bytes(value)

    def clear(self) -> None:
        self._rows, self._before = {}, {}


def _number(width: int) -> tuple[Callable[[int], bytes], Callable[[bytes], int]]:
    return lambda key: key.to_bytes(width, "big"), lambda data: int.from_bytes(data, "big")


def _same(key: bytes) -> bytes:
    return key


def _numbered(letter: str, width: int, kind: type[R]) -> Table[int, R]:
    key, unkey = _number(width)
    return Table(letter, key, unkey, encode, lambda data: decode(data, kind))


def _named(letter: str, kind: type[R]) -> Table[bytes, R]:
    return Table(letter, _same, _same, encode, lambda data: decode(data, kind))


class Timers:
    """The next instant of each task, and the least of all. Stale heap items are skipped when they surface."""

    def __init__(self) -> None:
        self._due: dict[bytes, int] = {}
        self._heap: list[tuple[int, int, bytes]] = []

    def set(self, offer_id: bytes, order: int, due_ms: int | None) -> None:
        if self._due.get(offer_id) == due_ms:
            return
        if due_ms is None:
            del self._due[offer_id]
        else:
            self._due[offer_id] = due_ms
            heappush(self._heap, (due_ms, order, offer_id))

    def next_ms(self) -> int | None:
        while self._heap:
            due, _, offer_id = self._heap[0]
            if self._due.get(offer_id) == due:
                return due
            heappop(self._heap)
        return None

    def pop_due(self, now: int) -> bytes | None:
        """The task that is due first, by instant, then arrival; it has no timer until it is set again."""
        due = self.next_ms()
        if due is None or due > now:
            return None
        offer_id = heappop(self._heap)[2]
        del self._due[offer_id]
        return offer_id


class State:
    """All tables and indexes. `due` gives a task's next instant; it is asked at each change of the task."""

    def __init__(self, due: Callable[[Task], int | None]) -> None:
        self._due = due
        self.servers = _numbered("s", 2, Server)
        self.entries = _numbered("q", 8, Entry)
        self.voters = _numbered("v", 2, Voter)
        self.heads = _numbered("h", 2, HeadSeen)
        self.bans: Table[tuple[int, int], Ban] = Table(
            "x", lambda pair: pair[0].to_bytes(2, "big") + pair[1].to_bytes(2, "big"),
            lambda data: (int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")),
            encode, lambda data: decode(data, Ban),
        )  # fmt: skip
        self.accounts: Table[bytes, Account] = Table(
            "a", _same, _same, lambda a: encode(a.to_wire()), lambda data: decode(data, AccountWire).to_record()
        )
        self.locks: Table[bytes, Lock] = Table(
            "k", _same, _same, lambda x: encode(x.to_wire()), lambda data: decode(data, LockWire).to_record()
        )
        self.tasks = _named("t", Task)
        self.facts = _named("f", FactRecord)
        self._batch = _named("b", BatchRecord)
        self._round = _named("r", RoundRecord)
        self._meta = _named("m", Meta)
        self._tables: tuple[Table[Any, Any], ...] = (
            self.servers, self.entries, self.voters, self.heads, self.bans, self.accounts, self.locks, self.tasks,
            self.facts, self._batch, self._round, self._meta,
        )  # fmt: skip
        self._forget_indexes()
        self._meta.put(b"", Meta())

    def _forget_indexes(self) -> None:
        self.open: list[tuple[int, bytes]] = []
        """OPEN tasks in arrival order."""
        self.open_of: dict[bytes, int] = {}
        """How many of them each UE has."""
        self.assigned: set[bytes] = set()
        self.done: set[bytes] = set()
        self.queue: list[int] = []
        """Keys of `entries`, ascending."""
        self.timers = Timers()
        self.ends = Timers()
        """When finished tasks leave the state."""
        self.finals = Timers()
        """Since when FINAL tasks wait."""
        self.signers: dict[bytes, int] = {}
        self.lock_ues: dict[bytes, int] = {}
        self.pending: dict[int, dict[int, bytes]] = {}
        """Attestations that have not taken effect: server id -> order -> place."""
        self.placement_dirty = True
        """Whether something changed that may make an OPEN task placeable; a cache only, never stored."""

    # ---- single records

    @property
    def meta(self) -> Meta:
        return self._meta[b""]

    @meta.setter
    def meta(self, meta: Meta) -> None:
        self._meta.put(b"", meta)

    @property
    def batch(self) -> BatchRecord | None:
        return self._batch.get(b"")

    @batch.setter
    def batch(self, batch: BatchRecord | None) -> None:
        if batch is None:
            self._batch.delete(b"")
        else:
            self._batch.put(b"", batch)

    @property
    def round(self) -> RoundRecord | None:
        return self._round.get(b"")

    @round.setter
    def round(self, round_: RoundRecord | None) -> None:
        if round_ is None:
            self._round.delete(b"")
        else:
            self._round.put(b"", round_)

    # ---- records with indexes

    def put_server(self, server: Server) -> None:
        self.servers.put(server.id, server)
        self.signers[server.signer] = server.id
        self.placement_dirty = True

    def put_task(self, task: Task) -> None:
        self._index_task(self.tasks.get(task.offer_id), task)
        self.tasks.put(task.offer_id, task)

    def delete_task(self, offer_id: bytes) -> None:
        self._index_task(self.tasks[offer_id], None)
        self.tasks.delete(offer_id)

    def put_lock(self, key: bytes, lock: Lock) -> None:
        if key not in self.locks:
            self.lock_ues[lock.ue] = self.lock_ues.get(lock.ue, 0) + 1
        self.locks.put(key, lock)

    def delete_lock(self, key: bytes) -> None:
        ue = self.locks[key].ue
        self.lock_ues[ue] -= 1
        if not self.lock_ues[ue]:
            del self.lock_ues[ue]
        self.locks.delete(key)

    def put_entry(self, order: int, entry: Entry) -> None:
        """Orders only grow, so the queue stays sorted."""
        self.queue.append(order)
        self.entries.put(order, entry)

    def drop_entries(self, count: int) -> None:
        """The first ones leave the queue."""
        for order in self.queue[:count]:
            self.entries.delete(order)
        del self.queue[:count]

    def put_ban(self, source: int, executor: int, until_ms: int) -> None:
        self.bans.put((source, executor), Ban(until_ms))

    def delete_ban(self, pair: tuple[int, int]) -> None:
        self.bans.delete(pair)
        self.placement_dirty = True

    def put_fact(self, place: bytes, fact: FactRecord) -> None:
        before = self.facts.get(place)
        for old in before.attestations if before else ():
            del self.pending[old.server][old.order]
        for new in fact.attestations:
            self.pending.setdefault(new.server, {})[new.order] = place
        if fact.applied is None and not fact.attestations:
            self.facts.delete(place)
        else:
            self.facts.put(place, fact)

    def next_order(self) -> int:
        """The next number of ledger order."""
        order = self.meta.order
        self.meta = replace(self.meta, order=order + 1)
        return order

    def refresh_open(self) -> None:
        """The adverts changed, and with them when OPEN tasks expire."""
        for order, offer_id in self.open:
            self.timers.set(offer_id, order, self._due(self.tasks[offer_id]))

    def _index_task(self, old: Task | None, new: Task | None) -> None:
        task = new or old
        assert task is not None
        offer_id, ue = task.offer_id, task.offer.ue
        was = old.state if old else None
        now = new.state if new else None
        if was != now:
            if was == TaskState.OPEN:
                del self.open[bisect_left(self.open, (task.order, offer_id))]
                self.open_of[ue] -= 1
                if not self.open_of[ue]:
                    del self.open_of[ue]
            elif was == TaskState.ASSIGNED:
                self.assigned.discard(offer_id)
            elif was == TaskState.DONE:
                self.done.discard(offer_id)
            if now == TaskState.OPEN:
                insort(self.open, (task.order, offer_id))
                self.open_of[ue] = self.open_of.get(ue, 0) + 1
                self.placement_dirty = True
            elif now == TaskState.ASSIGNED:
                self.assigned.add(offer_id)
            elif now == TaskState.DONE:
                self.done.add(offer_id)
        self.timers.set(offer_id, task.order, self._due(new) if new else None)
        self.ends.set(offer_id, task.order, task.offer.deadline_ms if now in FINISHED else None)
        self.finals.set(offer_id, task.order, task.ended_ms if now == TaskState.FINAL else None)

    # ---- the whole

    def drain(self) -> dict[bytes, bytes | None]:
        """What changed since the last drain, by ascending key."""
        writes: dict[bytes, bytes | None] = {}
        for table in self._tables:
            table.drain(writes)
        return dict(sorted(writes.items()))

    def snapshot(self) -> dict[bytes, bytes]:
        state: dict[bytes, bytes] = {}
        for table in self._tables:
            table.dump(state)
        return dict(sorted(state.items()))

    def restore(self, state: Mapping[bytes, bytes]) -> None:
        """Become the state that was dumped. Raises Broken for a key that no table has."""
        by_prefix = {table.prefix: table for table in self._tables}
        for table in self._tables:
            table.clear()
        for key in sorted(state):
            target = by_prefix.get(key[:4])
            if target is None:
                raise Broken(f"the snapshot has a key of no table: {key[:8].hex()}")
            target.load(key, state[key])
        self._forget_indexes()
        for server in self.servers.values():
            self.signers[server.signer] = server.id
        for lock in self.locks.values():
            self.lock_ues[lock.ue] = self.lock_ues.get(lock.ue, 0) + 1
        self.queue = self.entries.ordered()
        for place in self.facts.ordered():
            for attestation in self.facts[place].attestations:
                self.pending.setdefault(attestation.server, {})[attestation.order] = place
        for task in self.tasks.values():
            self._index_task(None, task)
