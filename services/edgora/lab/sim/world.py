"""One simulated consortium: machines, network, clients and faults under one virtual clock (ledger.md 19).

A run has two phases. Safety: everything that the options plan may happen. Liveness: the network heals, paused and
crashed machines return, but for those that are planned to stay dead; every live correct replica must then commit five
new blocks within 20 T, take over from a killed primary within a bounded time, and answer every correct client.

Checks run all the time: agreement and validity at each published block, conduct at each sent message, resource caps at
a steady pace, histories and proofs at the end. The first finding ends the run as a `Violation`.

The world is the clock, the machines and the order of a run. What happens between machines is `post` over `network`,
what happens to them is `misfortunes`, what they must agree on is `agreement`, and what they owe after healing is
`liveness`.
"""

import gc
import hashlib
import heapq
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from edgora.lab.sim.agreement import Agreement
from edgora.lab.sim.byzantine import Byzantine
from edgora.lab.sim.conduct import Conduct, Frontier
from edgora.lab.sim.history import check_history
from edgora.lab.sim.host import Clock, Host
from edgora.lab.sim.liveness import (
    check_caps,
    check_drained,
    check_message_count,
    check_progress,
    check_takeover,
    check_together,
)
from edgora.lab.sim.load import VALID_BLOCKS, CounterLoad, Load
from edgora.lab.sim.misfortunes import Misfortunes
from edgora.lab.sim.network import Network
from edgora.lab.sim.options import Options
from edgora.lab.sim.post import Gate, Post
from edgora.lab.sim.proofs import check_proofs
from edgora.lab.sim.reference import Reference
from edgora.lab.sim.registry import Registry, StubRegistry
from edgora.lab.sim.violation import Violation
from edgora.ledger.config import LedgerConfig, Params, genesis_header
from edgora.ledger.effects import Effects, Executed, Send, SnapshotImage
from edgora.wire.eip712 import Domain

__all__ = ["EPOCH_MS", "LEDGER_DOMAIN", "Report", "World"]

EPOCH_MS = 1_800_000_000_000
"""Unix time of virtual time 0."""

GENESIS_ID = bytes(31) + b"\x07"
LEDGER_DOMAIN = Domain.ledger(7, GENESIS_ID)

LEAST_EVENTS, LEAST_BLOCKS = 3_000, 20
"""How long a safety phase lasts at least, whatever its options say of time ..."""

LONGEST_MS = 90_000
"""... but for one that gets nowhere."""

PROBE_MS = 500


class Report(NamedTuple):
    """What a run came to."""

    options: Options
    events: int
    blocks: int
    views: int
    answered: int
    virtual_ms: int
    seconds: float
    trace: str
    violation: Violation | None
    states: tuple[str, ...]
    """Where every machine stood at the end, for a reader of a failure."""


class World:
    """A run of one schedule."""

    def __init__(self, options: Options, registry: Registry | None = None, load: Load | None = None) -> None:
        self.options = options
        self.registry = registry or StubRegistry()
        self.gate: Gate | None = None
        self.tell: Callable[[str], None] | None = None
        """Gets the story of the run, line by line, where somebody wants to read it."""
        self.now = 0
        self.epoch_ms = EPOCH_MS
        self.events = 0
        self.domain = LEDGER_DOMAIN
        self.network = Network(options)
        self.rng = random.Random(f"world:{options.seed}")
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self.trace = hashlib.blake2b(digest_size=16)
        self.load = load or self._counter_load()
        signers = self.load.validators or [self.registry.key(f"validator {i}") for i in range(options.n)]
        self._signers = signers
        self._frontier = Frontier()
        self.validators = tuple(bytes(s.address) for s in signers)
        genesis = genesis_header(GENESIS_ID, EPOCH_MS - 10_000)
        self.reference = Reference(
            genesis, self.validators, self.domain, self.registry.recover, self.load.application(),
            window=options.window, valid_blocks=VALID_BLOCKS, block_txs=options.block_txs,
        )  # fmt: skip
        self.agreement = Agreement(self.reference, self.validators, self.domain, self.registry.recover, self.load)
        byzantine: Byzantine | None = None
        if options.byzantine is not None:
            byzantine = Byzantine(
                options.seed, signers[options.byzantine], self.domain, options.n, options.byzantine,
                options.behaviours, options.timeout_ms, genesis.hash,
            )  # fmt: skip
        self.params = params = self.parameters()
        self.machines: list[list[Host]] = []
        """By identity; two machines where it is a twin."""
        for index in range(options.n):
            config = LedgerConfig(
                validators=self.validators, index=index, domain=self.domain, genesis=genesis, params=params
            )
            faulty_one = index == options.byzantine
            copies = 2 if faulty_one and "twin" in options.behaviours else 1
            self.machines.append([
                self._host(config, str(index) + "'" * copy, faulty_one=faulty_one) for copy in range(copies)
            ])  # fmt: skip
        self.correct = [hosts[0] for i, hosts in enumerate(self.machines) if i != options.byzantine]
        self.doors = [host for hosts in self.machines for host in hosts]
        """Where clients knock; a Byzantine one may well be among them."""
        self.misfortunes = Misfortunes(self)
        self.post = Post(self, byzantine)
        self._calm = options.calm

    def parameters(self) -> Params:
        """The consensus parameters of this consortium."""
        options = self.options
        return Params(
            window=options.window, checkpoint_interval=options.checkpoint_every, timeout_ms=options.timeout_ms,
            timeout_cap_ms=options.timeout_cap_ms, block_txs=options.block_txs, validity_window=VALID_BLOCKS,
        )  # fmt: skip

    def _counter_load(self) -> Load:
        options, key = self.options, self.registry.key
        clients = [key(f"client {i}") for i in range(options.clients)]
        strangers = [key(f"stranger {i}") for i in range(3)] if options.stranger else []
        return CounterLoad(options.seed, clients, strangers, options.ops_per_s)

    def _host(self, config: LedgerConfig, name: str, *, faulty_one: bool) -> Host:
        options = self.options
        skew = options.skew_ms[config.index] if options.skew_ms else 0
        drift = options.drift_ppm[config.index] if options.drift_ppm else 0
        return Host(
            self, name, config, self._signers[config.index], self.registry, self.load.application,
            Clock(skew, drift), sync_ms=options.sync_ms, verify_ms=options.verify_ms,
            segment_octets=(4_096, 64 * 2**20)[options.seed % 2], seed=options.seed,
            conduct=None if faulty_one else Conduct(config.index, self._frontier),
        )  # fmt: skip

    # ---- time ----------------------------------------------------------------------------------------------------------

    def at(self, when_ms: int, act: Callable[..., None], *args: object) -> None:
        """Do something at a virtual instant; equal instants keep the order in which they were asked for."""
        self._sequence += 1
        heapq.heappush(self._queue, (when_ms, self._sequence, act, args))

    def run_until(self, when_ms: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `done` holds after an event, False when the time is up."""
        queue = self._queue
        while queue and queue[0][0] <= when_ms:
            self.now, _, act, args = heapq.heappop(queue)
            self.events += 1
            act(*args)
            if done is not None and done():
                return True
        self.now = max(self.now, when_ms)
        return False

    def note(self, *words: object) -> None:
        """Into the trace hash: two runs of a seed must agree on all of it."""
        self.trace.update(repr((self.now, *words)).encode())
        if self.tell is not None and words[0] != "to":
            self.tell(f"{self.now:>7} {' '.join(map(str, words))}")

    # ---- what hosts ask for ----------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """The highest height that any correct machine published."""
        return self.reference.height

    @property
    def views(self) -> int:
        """How many views a correct machine, or a twin, began to lead."""
        return self.post.views

    def transmit(self, host: Host, send: Send) -> None:
        self.post.transmit(host, send)

    def published(self, host: Host, executed: Executed) -> None:
        """A machine says COMMITTED: agreement, validity, certificates and results are checked now."""
        if host.conduct is None:
            return
        header = executed.block.header
        self.note("committed", host.name, header.height, bytes(header.struct_hash()).hex())
        if self.agreement.published(host, executed):
            self.misfortunes.strike("first_commit", host)

    def installed(self, host: Host, image: SnapshotImage) -> None:
        """A machine took its state from its peers."""
        if host.conduct is None:
            return
        self.note("installed", host.name, image.height)
        self.agreement.installed(host, image)

    def answered(self, host: Host, tx_hash: bytes, reason: str, *, admitted: bool) -> None:
        if not admitted:
            self.load.refused(host, tx_hash, reason)

    def alarmed(self, host: Host, text: str) -> None:
        if host.conduct is not None:
            raise Violation("HALT", f"replica {host.name} stops for good: {text}")

    def releasing(self, host: Host, effects: Effects) -> bool:
        """Whether a machine whose step is durable still gets to speak."""
        return self.misfortunes.releasing(host, effects)

    # ---- the run -----------------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """The whole schedule. Never raises for a finding: the report holds it."""
        started = time.perf_counter()
        collecting = gc.isenabled()
        gc.disable()  # runs are short and make little garbage in cycles; the collector would cost a tenth of the time
        violation: Violation | None = None
        try:
            self._run()
        except Violation as finding:
            violation = finding
        finally:
            if collecting:
                gc.enable()
        seconds = time.perf_counter() - started
        states = tuple(self._state(host) for host in self.doors) if violation else ()
        return Report(
            self.options, self.events, self.height, self.views, sum(o.receipt is not None for o in self.load.operations),
            self.now, seconds, self.trace.hexdigest(), violation, states,
        )  # fmt: skip

    def _run(self) -> None:
        self.start()
        self.run_until(self.options.safety_ms)
        while (self.events < LEAST_EVENTS or self.height < LEAST_BLOCKS) and self.now < LONGEST_MS:
            self.run_until(self.now + 1_000)  # a slow schedule gets more time, so that each one is long
        self.heal()
        check_progress(self)
        if self._calm:
            check_message_count(self)
        check_together(self)
        check_takeover(self)
        check_drained(self)
        self.check_end()

    def start(self) -> None:
        """Boot everything and plan the faults."""
        for host in self.doors:
            self.at(self.rng.randint(0, 20), host.boot)
        self.misfortunes.plan()
        self.post.start()
        self.at(PROBE_MS, self._probe)
        self.load.start(self)

    def heal(self) -> None:
        """End of the safety phase."""
        self._calm = self._calm and self.views == 0
        self.misfortunes.end()
        self.network.heal()
        for host in self.doors:
            host.paused_until = min(host.paused_until, self.now)
            host.slow_until = 0
            self.at(self.now, host.resume)
            if host.index in self.options.dead:
                host.crash()
            else:
                self.at(self.now + self.rng.randint(0, 100), host.boot)

    @property
    def live(self) -> list[Host]:
        """Correct machines that are up."""
        return [host for host in self.correct if host.up]

    @property
    def settled(self) -> bool:
        """Whether every live correct machine has everything and all results stand under a certified header."""
        if any(host.height != self.height for host in self.live):
            return False
        return self.agreement.results_certified()

    def check_end(self) -> None:
        """What can only be judged when all is over."""
        self.reference.check_root()
        check_history(self.load.operations, self.reference.first_receipt)
        check_proofs(self)

    def _probe(self) -> None:
        check_caps(self)
        self.at(self.now + PROBE_MS, self._probe)

    def _state(self, host: Host) -> str:
        if host.replica is None:
            return f"{host.name}: down, height {host.height}"
        s = host.replica.status(host.local_ms())
        return (
            f"{host.name}: view {s.view}{'' if s.active else ' (leaving)'} height {s.height} accepted {s.accepted} "
            f"tip {s.tip_view}/{s.tip_height} checkpoint {s.checkpoint} pool {s.pool} T {s.timeout_ms} - "
            f"{s.waiting.sentence()}"
        )
