"""One simulated consortium: machines, network, clients and faults under one virtual clock (ledger.md 19).

A run has two phases. Safety: everything that the options plan may happen. Liveness: the network heals, paused and
crashed machines return, but for those that are planned to stay dead; every live correct replica must then commit five
new blocks within 20 T, take over from a killed primary within a bounded time, and answer every correct client.

Checks run all the time: agreement and validity at each published block, conduct at each sent message, resource caps at
a steady pace, histories and proofs at the end. The first finding ends the run as a `Violation`.
"""

import gc
import hashlib
import heapq
import random
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edgora.crypto.proof import check_certificate
from edgora.lab.sim.byzantine import TICK_MS, Byzantine
from edgora.lab.sim.conduct import Conduct
from edgora.lab.sim.history import check_history
from edgora.lab.sim.host import Clock, Host
from edgora.lab.sim.load import VALID_BLOCKS, CounterLoad, Load
from edgora.lab.sim.network import Network
from edgora.lab.sim.options import Fault, Options
from edgora.lab.sim.proofs import check_proofs
from edgora.lab.sim.reference import Reference
from edgora.lab.sim.registry import Registry, StubRegistry
from edgora.lab.sim.violation import Violation
from edgora.ledger.config import LedgerConfig, Params, genesis_header
from edgora.ledger.effects import ALL, Effects, Executed, Send, SnapshotImage
from edgora.wire.eip712 import Domain
from edgora.wire.errors import WireError
from edgora.wire.ledger import Certificate, Phase, faulty, quorum
from edgora.wire.pbft import (
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Status,
    TxGossip,
    ViewChange,
    decode_message,
    encode_message,
)

__all__ = ["EPOCH_MS", "LEDGER_DOMAIN", "Envelope", "Gate", "Report", "World", "on_side"]

EPOCH_MS = 1_800_000_000_000
"""Unix time of virtual time 0."""

GENESIS_ID = bytes(31) + b"\x07"
LEDGER_DOMAIN = Domain.ledger(7, GENESIS_ID)

LEAST_EVENTS, LEAST_BLOCKS = 3_000, 20
"""How long a safety phase lasts at least, whatever its options say of time ..."""

LONGEST_MS = 90_000
"""... but for one that gets nowhere."""

NEW_BLOCKS = 5
PATIENCE = 20
"""P5: NEW_BLOCKS within PATIENCE times T."""

KILL_PATIENCE = 10
"""After the primary of a healthy consortium dies, the next blocks come within so many initial T: back-off was reset."""

PROBE_MS = 500
ROOT_EVERY = 40
"""Blocks between two from-scratch checks of the state root."""


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


class Envelope:
    """A message under way: octets, decoded when first read (frozen, so that receivers may share it)."""

    __slots__ = ("data", "message", "read")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.message: Message | None = None
        self.read = False

    def open(self) -> Message | None:
        """The message, or None for octets that are none."""
        if not self.read:
            self.read = True
            try:
                self.message = decode_message(self.data)
            except WireError:
                self.message = None
        return self.message


class Gate(Protocol):
    """What a scenario decides before the network does."""

    def passes(self, host: Host, receiver: Host, message: Message) -> bool: ...
    def withhold(self, host: Host, receiver: Host, envelope: Envelope) -> None: ...
    def twins_meet(self, twin: Host, other: Host) -> bool: ...


def on_side(sides: int, twin: Host, other: Host) -> bool:
    """Whether a twin talks with another machine; two bits an identity, one for each twin."""
    return bool(sides >> (2 * other.index + (twin.name[-1] == "'")) & 1)


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
        self.views = 0
        self.domain = LEDGER_DOMAIN
        self.network = Network(options)
        self._rng = random.Random(f"world:{options.seed}")
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._trace = hashlib.blake2b(digest_size=16)
        self.load = load or self._counter_load()
        signers = self.load.validators or [self.registry.key(f"validator {i}") for i in range(options.n)]
        self._signers = signers
        self.validators = tuple(bytes(s.address) for s in signers)
        genesis = genesis_header(GENESIS_ID, EPOCH_MS - 10_000)
        self.reference = Reference(
            genesis, self.validators, self.domain, self.registry.recover, self.load.application(),
            window=options.window, valid_blocks=VALID_BLOCKS, block_txs=options.block_txs,
        )  # fmt: skip
        self.certificates: dict[int, Certificate] = {}
        """A commit certificate by height, where some replica published one."""
        self.bodies: dict[int, Executed] = {}
        self._hashes: list[bytes] = [bytes(genesis.struct_hash())]
        self._byzantine: Byzantine | None = None
        if options.byzantine is not None:
            self._byzantine = Byzantine(
                options.seed, signers[options.byzantine], self.domain, options.n, options.byzantine,
                options.behaviours, options.timeout_ms,
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
        self._twinned = tuple(i for i, hosts in enumerate(self.machines) if len(hosts) > 1)
        self._nemeses: list[Fault] = []
        self._led: set[tuple[str, int]] = set()
        self._sent = 0
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
            conduct=None if faulty_one else Conduct(config.index),
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
        self._trace.update(repr((self.now, *words)).encode())
        if self.tell is not None and words[0] != "to":
            self.tell(f"{self.now:>7} {' '.join(map(str, words))}")

    # ---- what hosts ask for ----------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """The highest height that any correct machine published."""
        return self.reference.height

    def transmit(self, host: Host, send: Send) -> None:
        if (
            self._byzantine is not None
            and host.index == self.options.byzantine
            and self.options.behaviours != ("twin",)
        ):
            for target, data, extra in self._byzantine.rewrite(send):
                self._post(host, target, Envelope(data), extra)
            return
        self._trigger(host, send.message)
        envelope = Envelope(encode_message(send.message))
        if not isinstance(send.message, Status | TxGossip):
            self._sent += self.options.n - 1 if send.dest == ALL else 1
        for target in range(self.options.n) if send.dest == ALL else (send.dest,):
            self._post(host, target, envelope, 0)

    def _post(self, host: Host, target: int, envelope: Envelope, extra_ms: int) -> None:
        if target == host.index:
            return
        self._trace.update(envelope.data)
        message = envelope.open()
        for receiver in self.machines[target]:
            if message is None:
                self.at(self.now + 1, self._deliver, receiver, host.index, envelope)
                continue
            if self._twinned and not self._connected(host, receiver):
                continue
            if self.gate is not None and not self.gate.passes(host, receiver, message):
                self.gate.withhold(host, receiver, envelope)
                continue
            for delay in self.network.fates(self.now, host.index, target, message):
                self.at(self.now + delay + extra_ms, self._deliver, receiver, host.index, envelope)

    def _connected(self, host: Host, receiver: Host) -> bool:
        """Whether these two talk, where one of them is a twin; twins of one identity never do."""
        twin, other = (host, receiver) if host.index in self._twinned else (receiver, host)
        if twin.index not in self._twinned:
            return True
        if self.gate is not None:
            return self.gate.twins_meet(twin, other)
        # Each twin has its own part of the others; the parts change every two seconds and may overlap.
        sides = random.Random(f"twins:{self.options.seed}:{self.now // 2_000}").getrandbits(2 * self.options.n)
        return on_side(sides, twin, other)

    def _deliver(self, receiver: Host, source: int, envelope: Envelope) -> None:
        message = envelope.open()
        self.note("to", receiver.name, source, len(envelope.data))
        if self.tell is not None:
            self.tell(f"{self.now:>7} {source} -> {receiver.name}{'' if receiver.up else ' (down)'} {_short(message)}")
        if message is None:
            return  # a link drops what does not decode, and the peer loses credit
        if self._byzantine is not None and receiver.index == self.options.byzantine:
            for target, data, extra in self._byzantine.overhear(source, message):
                self._post(receiver, target, Envelope(data), extra)
        receiver.receive(source, message)

    def published(self, host: Host, executed: Executed) -> None:
        """A machine says COMMITTED: agreement, validity, certificates and results are checked now."""
        if host.conduct is None:
            return
        header = executed.block.header
        height, block_hash = header.height, bytes(header.struct_hash())
        self.note("committed", host.name, height, block_hash.hex())
        first = height == self.reference.height + 1
        if height > self.reference.height + 1:
            raise Violation(
                "P1", f"replica {host.name} publishes height {height} before {self.reference.height + 1} is known"
            )
        if first:
            self.reference.commit(executed.block, executed.state_root)
            self._hashes.append(block_hash)
            self.bodies[height] = executed
            self.load.check(*self.reference.ran)
            if height % ROOT_EVERY == 0:
                self.reference.check_root()
        if self._hashes[height] != block_hash:
            raise Violation("P1", f"replica {host.name} commits another block at height {height}")
        if executed.receipts != self.reference.receipts[height]:
            raise Violation("P6", f"replica {host.name} has other receipts at height {height}: {executed.receipts} "
                            f"where the order gives {self.reference.receipts[height]}")  # fmt: skip
        if executed.state_root != self.reference.roots[height]:
            raise Violation("P2", f"replica {host.name} has another state root after height {height}")
        if executed.certificate is not None and height not in self.certificates:
            self._check_certificate(height, block_hash, executed.certificate)
        host.height = max(host.height, height)
        self.load.published(host, executed.receipts)
        if first:
            self._strike("first_commit", host)

    def _check_certificate(self, height: int, block_hash: bytes, certificate: Certificate) -> None:
        vote = certificate.vote
        if (vote.phase, vote.height, vote.block_hash) != (Phase.COMMIT, height, block_hash):
            raise Violation("P7", f"the certificate beside block {height} signs {vote}")
        fault = check_certificate(certificate, self.validators, self.domain, self.registry.recover)
        if fault is not None:
            raise Violation("P7", f"the certificate beside block {height}: {fault}")
        self.certificates[height] = certificate

    def installed(self, host: Host, image: SnapshotImage) -> None:
        """A machine took its state from its peers: it must be the state of the agreed chain."""
        if host.conduct is None:
            return
        self.note("installed", host.name, image.height)
        if image.height > self.height or self._hashes[image.height] != image.block_hash:
            raise Violation("P1", f"replica {host.name} takes the state of an unknown block at height {image.height}")
        if image.state_root != self.reference.roots[image.height]:
            raise Violation("P2", f"replica {host.name} takes another state at height {image.height}")
        host.height = max(host.height, image.height)

    def answered(self, host: Host, tx_hash: bytes, reason: str, *, admitted: bool) -> None:
        if not admitted:
            self.load.refused(host, tx_hash, reason)

    def alarmed(self, host: Host, text: str) -> None:
        if host.conduct is not None:
            raise Violation("HALT", f"replica {host.name} stops for good: {text}")

    def releasing(self, host: Host, effects: Effects) -> bool:
        """The step is durable and about to speak: the moment between persist and send."""
        if not self._nemeses or host.conduct is None:
            return True
        kinds = [type(send.message) for send in effects.send]
        if NewView in kinds and self._strike("new_view", host):
            return host.up
        if (PrePrepare in kinds or Prepare in kinds or Commit in kinds) and self._strike("persist_send", host):
            return host.up
        return True

    # ---- faults ----------------------------------------------------------------------------------------------------------

    def _trigger(self, host: Host, message: Message) -> None:
        match message:
            case NewView():
                if (host.name, message.view) not in self._led:
                    self._led.add((host.name, message.view))
                    self.views += 1
            case ViewChange() if message.signer == host.index:
                self._strike("view_change", host)
            case Commit():
                self._strike("first_prepare", host)
            case _:
                pass

    def _strike(self, moment: str, host: Host) -> bool:
        """Whether a nemesis waited for this moment of this machine, and struck."""
        fault = next((f for f in self._nemeses if f.kind == f"nemesis:{moment}"), None)
        if fault is None or host.conduct is None:
            return False
        self._nemeses.remove(fault)
        self.note("nemesis", moment, host.name, fault.strike)
        if fault.strike == "crash":
            self._crash(host, fault.ms)
        else:
            self.network.split(1 << host.index, self.now + fault.ms)
        return True

    def _crash(self, host: Host, down_ms: int) -> None:
        host.crash()
        self.at(self.now + down_ms, host.boot)

    def _befall(self, fault: Fault) -> None:
        self.note(*fault.kind.split(":"), fault.mask, fault.ms)
        until = self.now + fault.ms
        hosts = [host for index, copies in enumerate(self.machines) if fault.mask >> index & 1 for host in copies]
        match fault.kind:
            case "crash" | "crash_all":
                for host in hosts:
                    self._crash(host, fault.ms + self._rng.randint(0, 50))
            case "pause":
                for host in hosts:
                    host.pause(until)
            case "split":
                self.network.split(fault.mask, until)
            case "one_way":
                self.network.one_way(fault.mask, until)
            case "flap":
                self.network.flap(fault.mask, until, self._rng.choice((50, 300, 1_100)))
            case "slow_disk":
                for host in hosts:
                    host.slow_until = until
            case "starve":
                self.network.starve(fault.mask, until)
            case "old_votes_last":
                self.network.old_votes_last(fault.mask, until)
            case "few_commits":
                few = self._rng.sample(range(self.options.n), quorum(self.options.n) - 1)
                self.network.few_commits(sum(1 << i for i in few), until)
            case _:
                self._nemeses.append(fault)

    def _byzantine_tick(self) -> None:
        assert self._byzantine is not None
        assert self.options.byzantine is not None
        host = self.machines[self.options.byzantine][0]
        for target, data, extra in self._byzantine.tick(host):
            self._post(host, target, Envelope(data), extra)
        self.at(self.now + TICK_MS, self._byzantine_tick)

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
            self.now, seconds, self._trace.hexdigest(), violation, states,
        )  # fmt: skip

    def _run(self) -> None:
        self.start()
        self.run_until(self.options.safety_ms)
        while (self.events < LEAST_EVENTS or self.height < LEAST_BLOCKS) and self.now < LONGEST_MS:
            self.run_until(self.now + 1_000)  # a slow schedule gets more time, so that each one is long
        self.heal()
        self._check_liveness()
        if self._calm:
            self._check_message_count()
        self._check_takeover()
        self._check_drained()
        self.check_end()

    def start(self) -> None:
        """Boot everything and plan the faults."""
        for host in self.doors:
            self.at(self._rng.randint(0, 20), host.boot)
        for fault in self.options.faults:
            self.at(fault.at_ms, self._befall, fault)
        if self._byzantine is not None:
            self.at(TICK_MS, self._byzantine_tick)
        self.at(PROBE_MS, self._probe)
        self.load.start(self)

    def heal(self) -> None:
        """End of the safety phase."""
        self._calm = self._calm and self.views == 0
        self._nemeses.clear()
        self.network.heal()
        for host in self.doors:
            host.paused_until = min(host.paused_until, self.now)
            host.slow_until = 0
            self.at(self.now, host.resume)
            if host.index in self.options.dead:
                host.crash()
            else:
                self.at(self.now + self._rng.randint(0, 100), host.boot)

    @property
    def live(self) -> list[Host]:
        """Correct machines that are up."""
        return [host for host in self.correct if host.up]

    @property
    def settled(self) -> bool:
        """Whether every live correct machine has everything and all results stand under a certified header."""
        if any(host.height != self.height for host in self.live):
            return False
        reference = self.reference
        results = next((h for h in range(self.height, 0, -1) if reference.receipts[h]), 0)
        top = max(self.certificates, default=0)
        return results == 0 or reference.headers[top].exec_height >= results

    def _check_liveness(self) -> None:
        self.run_until(self.now + 150)  # restarts
        patience = max(self._timeout(host) for host in self.live)
        goal = self.height + NEW_BLOCKS
        deadline = self.now + PATIENCE * patience
        if not self.run_until(deadline, lambda: all(host.height >= goal for host in self.live)):
            raise Violation("P5", f"height {goal} is not reached everywhere {PATIENCE} x {patience} ms after healing")

    def _timeout(self, host: Host) -> int:
        assert host.replica is not None
        return max(self.options.timeout_ms, host.replica.status(host.local_ms()).timeout_ms)

    def _check_takeover(self) -> None:
        """With nobody else faulty, the death of the primary costs a bounded time: back-off was reset by progress."""
        options = self.options
        if options.byzantine is not None or options.dead or faulty(options.n) == 0:
            return
        witness = self.live[0]
        assert witness.replica is not None
        primary = self.machines[witness.replica.status(witness.local_ms()).primary][0]
        primary.crash()
        self.note("takeover", primary.name)
        goal = self.height + 2
        deadline = self.now + KILL_PATIENCE * options.timeout_ms
        if not self.run_until(deadline, lambda: all(host.height >= goal for host in self.live)):
            raise Violation("P5", f"height {goal} is not reached {KILL_PATIENCE} T after primary {primary.name} died")
        primary.boot()

    def _check_drained(self) -> None:
        self.load.stop()
        patience = max(self._timeout(host) for host in self.live)
        deadline = self.now + 2 * PATIENCE * patience

        def drained() -> bool:
            return not self.load.unfinished() and self.settled

        if not self.run_until(deadline, drained):
            waiting = [o.hash.hex()[:12] for o in self.load.unfinished()]
            heights = {host.name: host.height for host in self.live}
            raise Violation("P5", f"clients still wait for {waiting}; heights {heights}")

    def check_end(self) -> None:
        """What can only be judged when all is over."""
        self.reference.check_root()
        check_history(self.load.operations, self.reference.first_receipt)
        check_proofs(self)

    def _check_message_count(self) -> None:
        limit = 4 * self.options.n**2
        if self._sent > limit * max(1, self.height):
            raise Violation("P10", f"{self._sent} messages for {self.height} blocks; {limit} a block are allowed")

    def _probe(self) -> None:
        """P10 at a steady pace."""
        for host in self.correct:
            if host.replica is not None:
                status = host.replica.status(host.local_ms())
                if status.pool > self.params.pool_txs or status.pool_octets > self.params.pool_octets:
                    raise Violation("P10", f"replica {host.name} pools {status.pool} transactions")
                if len(status.evidence) and any(self.options.byzantine != e.accused for e in status.evidence):
                    raise Violation("P8", f"replica {host.name} accuses a correct one: {status.evidence}")
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


def _short(message: Message | None) -> str:
    """A message in a few words."""
    match message:
        case None:
            return "octets that are no message"
        case PrePrepare():
            return f"PrePrepare {message.view}/{message.header.height} {message.header.struct_hash().hex()[:8]}"
        case Prepare() | Commit():
            return f"{type(message).__name__} {message.view}/{message.height} {message.block_hash.hex()[:8]}"
        case ViewChange(body=body):
            commit, tip = f"{body.commit_view}/{body.commit_height}", f"{body.tip_view}/{body.tip_height}"
            return f"ViewChange of {message.signer} to {body.new_view}: commit {commit} tip {tip}"
        case NewView():
            return f"NewView {message.view} by {[vc.signer for vc in message.view_changes]}"
        case Status():
            return f"Status view {message.view}{'' if message.active else ' (leaving)'} height {message.height}"
        case _:
            return type(message).__name__
