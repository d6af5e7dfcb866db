"""The post of a simulated consortium: from what a machine says to what each receiver hears (ledger.md 19).

A message is encoded once and travels as octets; each receiver decodes them. On its way it passes, in this order: the
mouth of the Byzantine machine, which may say something else; the wall between twins, which keeps two machines of one
identity apart and gives each a part of the others; the gate of a scenario, which may withhold it; and the network,
which decides when which copies arrive. Octets that are no message skip all of that and arrive at once.

The post keeps two counts for the checks at the end: messages that correct machines sent for the sake of agreement, and
views that somebody began to lead.
"""

import random
from typing import TYPE_CHECKING, Protocol

from edgora.lab.sim.byzantine import TICK_MS, Byzantine
from edgora.ledger.effects import ALL, Send
from edgora.wire.errors import WireError
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

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host
    from edgora.lab.sim.world import World

__all__ = ["Envelope", "Gate", "Post", "on_side"]


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

    def passes(self, host: "Host", receiver: "Host", message: Message) -> bool: ...
    def withhold(self, host: "Host", receiver: "Host", envelope: Envelope) -> None: ...
    def twins_meet(self, twin: "Host", other: "Host") -> bool: ...


def on_side(sides: int, twin: "Host", other: "Host") -> bool:
    """Whether a twin talks with another machine; two bits an identity, one for each twin."""
    return bool(sides >> (2 * other.index + (twin.name[-1] == "'")) & 1)


class Post:
    """Carries messages between the machines of a world, once all of them are there."""

    def __init__(self, world: "World", byzantine: Byzantine | None) -> None:
        self._world = world
        self._byzantine = byzantine
        self._twinned = tuple(i for i, hosts in enumerate(world.machines) if len(hosts) > 1)
        self._led: set[tuple[str, int]] = set()
        self.sent = 0
        """Messages of correct machines, gossip and STATUS aside; a broadcast counts once a receiver."""
        self.views = 0
        """Views that a machine began to lead."""

    def start(self, first_ms: int = TICK_MS) -> None:
        """From then on the Byzantine machine, if there is one, also speaks unprompted."""
        if self._byzantine is not None:
            self._world.at(first_ms, self._tick)

    def transmit(self, host: "Host", send: Send) -> None:
        """A machine says something to one or to all."""
        options = self._world.options
        if self._byzantine is not None and host.index == options.byzantine and options.behaviours != ("twin",):
            for target, data, extra in self._byzantine.rewrite(send):
                self._post(host, target, Envelope(data), extra)
            return
        message = send.message
        if isinstance(message, NewView) and (host.name, message.view) not in self._led:
            self._led.add((host.name, message.view))
            self.views += 1
        self._world.misfortunes.hear(host, message)
        envelope = Envelope(encode_message(message))
        if not isinstance(message, Status | TxGossip):
            self.sent += options.n - 1 if send.dest == ALL else 1
        for target in range(options.n) if send.dest == ALL else (send.dest,):
            self._post(host, target, envelope, 0)

    def _post(self, host: "Host", target: int, envelope: Envelope, extra_ms: int) -> None:
        if target == host.index:
            return
        world = self._world
        world.trace.update(envelope.data)
        message = envelope.open()
        for receiver in world.machines[target]:
            if message is None:
                world.at(world.now + 1, self.deliver, receiver, host.index, envelope)
                continue
            if self._twinned and not self._connected(host, receiver):
                continue
            if world.gate is not None and not world.gate.passes(host, receiver, message):
                world.gate.withhold(host, receiver, envelope)
                continue
            for delay in world.network.fates(world.now, host.index, target, message):
                world.at(world.now + delay + extra_ms, self.deliver, receiver, host.index, envelope)

    def _connected(self, host: "Host", receiver: "Host") -> bool:
        """Whether these two talk, where one of them is a twin; twins of one identity never do."""
        twin, other = (host, receiver) if host.index in self._twinned else (receiver, host)
        if twin.index not in self._twinned:
            return True
        world = self._world
        if world.gate is not None:
            return world.gate.twins_meet(twin, other)
        # Each twin has its own part of the others; the parts change every two seconds and may overlap.
        sides = random.Random(f"twins:{world.options.seed}:{world.now // 2_000}").getrandbits(2 * world.options.n)
        return on_side(sides, twin, other)

    def deliver(self, receiver: "Host", source: int, envelope: Envelope) -> None:
        """One copy arrives."""
        world, message = self._world, envelope.open()
        world.note("to", receiver.name, source, len(envelope.data))
        if world.tell is not None:
            down = "" if receiver.up else " (down)"
            world.tell(f"{world.now:>7} {source} -> {receiver.name}{down} {_short(message)}")
        if message is None:
            return  # a link drops what does not decode, and the peer loses credit
        if self._byzantine is not None and receiver.index == world.options.byzantine:
            for target, data, extra in self._byzantine.overhear(source, message):
                self._post(receiver, target, Envelope(data), extra)
        receiver.receive(source, message)

    def _tick(self) -> None:
        world = self._world
        assert self._byzantine is not None
        assert world.options.byzantine is not None
        host = world.machines[world.options.byzantine][0]
        for target, data, extra in self._byzantine.tick(host):
            self._post(host, target, Envelope(data), extra)
        world.at(world.now + TICK_MS, self._tick)


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
