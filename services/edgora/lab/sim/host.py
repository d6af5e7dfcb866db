"""One simulated machine: the real core behind a driver that keeps ledger.md 1's order of obligations.

Per step: snapshot and records go to the disk; what the step sends, publishes and answers waits in the outbox until the
disk has synced everything that this step or an earlier one demanded; the core goes on stepping meanwhile. A crash loses
core, timers and outbox, and what the disk had not synced.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edgora.lab.sim.conduct import Conduct
from edgora.lab.sim.disk import Disk
from edgora.lab.sim.registry import Registry, Signer
from edgora.lab.sim.violation import Violation
from edgora.ledger.config import LedgerConfig
from edgora.ledger.effects import (
    Boot,
    ClientTx,
    DurableState,
    Effects,
    Executed,
    Input,
    Recv,
    Send,
    SnapshotImage,
    TimerFired,
    Verified,
    Verify,
)
from edgora.ledger.replica import Replica
from edgora.wire.application import Application
from edgora.wire.ledger import SignedTx
from edgora.wire.pbft import Message

__all__ = ["Clock", "Host", "Surroundings"]

MAX_BACKLOG = 3_000
"""Messages that the buffers of a paused machine hold; what comes later is lost."""


class Clock:
    """A machine's own clock: offset and drift against virtual time."""

    __slots__ = ("drift_ppm", "offset_ms")

    def __init__(self, offset_ms: int, drift_ppm: int) -> None:
        self.offset_ms = offset_ms
        self.drift_ppm = drift_ppm

    def local(self, now_ms: int) -> int:
        return now_ms + self.offset_ms + now_ms * self.drift_ppm // 1_000_000

    def when(self, deadline_ms: int) -> int:
        """The first virtual instant at which this clock shows deadline_ms or later."""
        now = (deadline_ms - self.offset_ms) * 1_000_000 // (1_000_000 + self.drift_ppm)
        while self.local(now) < deadline_ms:
            now += 1
        return now


class _Release(NamedTuple):
    """What one step wants to let out, once the disk is synced up to `needs`."""

    needs: int
    effects: Effects


class Surroundings(Protocol):
    """What a host needs of the world around it."""

    now: int
    epoch_ms: int

    def at(self, when_ms: int, act: Callable[..., None], *args: object) -> None: ...
    def transmit(self, host: "Host", send: Send) -> None: ...
    def published(self, host: "Host", executed: Executed) -> None: ...
    def installed(self, host: "Host", image: SnapshotImage) -> None: ...
    def answered(self, host: "Host", tx_hash: bytes, reason: str, *, admitted: bool) -> None: ...
    def releasing(self, host: "Host", effects: Effects) -> bool: ...
    def alarmed(self, host: "Host", text: str) -> None: ...


class Host:
    """A validator's machine. `name` tells twins apart; `index` is the identity."""

    def __init__(
        self,
        world: Surroundings,
        name: str,
        config: LedgerConfig,
        signer: Signer,
        registry: Registry,
        application: Callable[[], Application],
        clock: Clock,
        *,
        sync_ms: tuple[int, int],
        verify_ms: int,
        segment_octets: int,
        seed: int,
        conduct: Conduct | None,
    ) -> None:
        self.world = world
        self.name = name
        self.config = config
        self.index = config.index
        self.conduct = conduct
        """The book on a correct replica; None for one that need not behave."""
        self.replica: Replica | None = None
        self.application: Application | None = None
        self.height = 0
        """Highest height that this machine published, over all its lives."""
        self.boots = 0
        self.paused_until = 0
        self.slow_until = 0
        self.steps = 0
        self._signer = signer
        self._registry = registry
        self._make_application = application
        self._clock = clock
        self._sync_ms = sync_ms
        self._verify_ms = verify_ms
        self._rng = random.Random(f"host:{seed}:{name}")
        self.disk = Disk(self._rng, segment_octets)
        self._outbox: deque[_Release] = deque()
        self._needs = 0
        self._syncing = False
        self._timers: dict[str, int] = {}
        self._backlog: deque[Input] = deque()

    # ---- life --------------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether the process runs (perhaps paused)."""
        return self.replica is not None

    def running(self) -> Replica | None:
        """The core, if the process runs."""
        return self.replica

    def local_ms(self) -> int:
        """What this machine's clock shows."""
        return self.world.epoch_ms + self._clock.local(self.world.now)

    def boot(self) -> None:
        """Start the process on what the disk holds."""
        if self.up:
            return
        self.boots += 1
        self.application = self._make_application()
        self.replica = Replica(self.config, self._signer, self.application, self._registry.recover)
        snapshot, records = self.disk.boot()
        self._needs = self.disk.written
        if self.conduct is not None:
            for record in records:
                self.conduct.durable(record)
        self.step(Boot(DurableState(snapshot, records, self._rng.getrandbits(63))))
        replica = self.running()
        if replica is not None and self.conduct is not None:  # the boot may have ended in another crash
            height = replica.status(self.local_ms()).height
            if height < self.height:
                raise Violation("P3", f"replica {self.name} published height {self.height} and is back at {height}")

    def crash(self) -> None:
        """Power off: everything volatile is gone."""
        if not self.up:
            return
        self.replica = self.application = None
        self._outbox.clear()
        self._timers.clear()
        self._backlog.clear()
        self._syncing = False
        self.boots += 1  # syncs and checks under way belong to a life that is over
        self.disk.crash()

    def pause(self, until_ms: int) -> None:
        """Stop stepping, as SIGSTOP does; messages queue up meanwhile."""
        self.paused_until = max(self.paused_until, until_ms)
        self.world.at(until_ms, self.resume)

    def resume(self) -> None:
        if self.world.now < self.paused_until:
            return
        backlog, self._backlog = self._backlog, deque()
        for event in backlog:
            if self.up:
                self.step(event)

    # ---- inputs ------------------------------------------------------------------------------------------------------

    def offer(self, event: Input) -> None:
        """An input from outside; a paused machine takes it later, a dead one never."""
        if not self.up:
            return
        if self.world.now < self.paused_until:
            if len(self._backlog) < MAX_BACKLOG:
                self._backlog.append(event)
            return
        self.step(event)

    def receive(self, peer: int, message: Message) -> None:
        self.offer(Recv(peer, message))

    def submit(self, tx: SignedTx, tx_hash: bytes) -> None:
        """The API process beside the core: checks the signature, hands the transaction over."""
        if self._registry.recover(tx_hash, tx.signature) == tx.tx.sender:
            self.offer(ClientTx(tx, tx_hash))

    def step(self, event: Input) -> None:
        """One step of the core and everything that follows from it here and now."""
        assert self.replica is not None
        life = self.boots
        todo: deque[Input] = deque((event,))
        while todo and self.up and life == self.boots:
            self.steps += 1
            effects = self.replica.step(self.local_ms(), todo.popleft())
            self._perform(effects, todo)

    def _perform(self, effects: Effects, todo: deque[Input]) -> None:
        if effects.persist or effects.snapshot is not None:
            self.disk.append(effects.persist, effects.snapshot, compacted=effects.compacted)
        if effects.sync:
            self._needs = self.disk.written
        for timer in effects.timers:
            self._arm(timer.name, timer.deadline_ms)
        for work in effects.verify:
            self._verify(work, todo)
        if effects.alarm is not None:
            self.world.alarmed(self, effects.alarm)
        if effects.send or effects.executed or effects.answers or effects.snapshot is not None:
            self._outbox.append(_Release(self._needs, effects))
        self._flush()

    def _arm(self, name: str, deadline_ms: int | None) -> None:
        if deadline_ms is None:
            self._timers.pop(name, None)
            return
        if self._timers.get(name) == deadline_ms:
            return
        self._timers[name] = deadline_ms
        when = self._clock.when(deadline_ms - self.world.epoch_ms)
        self.world.at(max(when, self.world.now), self._fire, name, deadline_ms, self.boots)

    def _fire(self, name: str, deadline_ms: int, life: int) -> None:
        if life != self.boots or self._timers.get(name) != deadline_ms:
            return
        del self._timers[name]
        self.offer(TimerFired(name))

    def _verify(self, work: Verify, todo: deque[Input]) -> None:
        recover = self._registry.recover
        result = Verified(work.token, tuple(recover(digest, sig) == signer for signer, digest, sig in work.items))
        if not self._verify_ms:
            todo.append(result)
            return
        delay = self._rng.randint(0, self._verify_ms)
        self.world.at(self.world.now + delay, self._verified, result, self.boots)

    def _verified(self, result: Verified, life: int) -> None:
        if life == self.boots:
            self.offer(result)

    # ---- the disk and what waits for it --------------------------------------------------------------------------------

    def _flush(self) -> None:
        life = self.boots
        while self._outbox and self._outbox[0].needs <= self.disk.synced:
            effects = self._outbox.popleft().effects
            if not self.world.releasing(self, effects):
                return
            self._release(effects)
            if life != self.boots:
                return
        if not self._syncing and self._needs > self.disk.synced:
            self._syncing = True
            low, high = self._sync_ms
            if self.world.now < self.slow_until:
                low, high = 50, 400
            position, delay = self.disk.written, self._rng.randint(low, high)
            if delay:
                self.world.at(self.world.now + delay, self._synced, position, life)
            else:
                self._synced(position, life)

    def _synced(self, position: int, life: int) -> None:
        if life != self.boots:
            return
        if self.world.now < self.paused_until:
            self.world.at(self.paused_until, self._synced, position, life)
            return
        self._syncing = False
        fresh = self.disk.sync(position)
        if self.conduct is not None:
            for record in fresh:
                self.conduct.durable(record)
        self._flush()

    def _release(self, effects: Effects) -> None:
        for send in effects.send:
            if self.conduct is not None:
                self.conduct.sends(send.message)
            self.world.transmit(self, send)
        if effects.snapshot is not None and effects.snapshot.installed:
            self.world.installed(self, effects.snapshot)
        for executed in effects.executed:
            self.world.published(self, executed)
        for answer in effects.answers:
            self.world.answered(self, answer.hash, answer.reason, admitted=answer.admitted)
