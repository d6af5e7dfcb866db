"""What befalls the machines of a simulated consortium: planned faults and nemeses (ledger.md 19).

A fault happens at its time: crashes, pauses, cuts, slow disks, filters. A nemesis waits from its time on for a moment -
the first vote, the first commit, a view change, a new view, the gap between persist and send - and strikes the correct
machine that just reached it, once, with a crash or a cut. Healing makes all waiting nemeses go away.
"""

from typing import TYPE_CHECKING

from edgora.lab.sim.options import Fault
from edgora.ledger.effects import Effects
from edgora.wire.ledger import quorum
from edgora.wire.pbft import Commit, Message, NewView, Prepare, PrePrepare, ViewChange

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host
    from edgora.lab.sim.world import World

__all__ = ["Misfortunes"]


class Misfortunes:
    """Carries out the faults of a world's options."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._nemeses: list[Fault] = []

    def plan(self) -> None:
        """Put every fault of the options on the clock."""
        for fault in self._world.options.faults:
            self._world.at(fault.at_ms, self._befall, fault)

    def end(self) -> None:
        """No nemesis waits any longer."""
        self._nemeses.clear()

    def crash(self, host: "Host", down_ms: int) -> None:
        """A machine goes down and boots again after a while."""
        host.crash()
        self._world.at(self._world.now + down_ms, host.boot)

    # ---- moments ---------------------------------------------------------------------------------------------------------

    def hear(self, host: "Host", message: Message) -> None:
        """A machine is about to send this."""
        match message:
            case ViewChange() if message.signer == host.index:
                self.strike("view_change", host)
            case Commit():
                self.strike("first_prepare", host)
            case _:
                pass

    def releasing(self, host: "Host", effects: Effects) -> bool:
        """The step is durable and about to speak: the moment between persist and send. False: it no longer can."""
        if not self._nemeses or host.conduct is None:
            return True
        kinds = [type(send.message) for send in effects.send]
        if NewView in kinds and self.strike("new_view", host):
            return host.up
        if (PrePrepare in kinds or Prepare in kinds or Commit in kinds) and self.strike("persist_send", host):
            return host.up
        return True

    def strike(self, moment: str, host: "Host") -> bool:
        """Whether a nemesis waited for this moment of this machine, and struck."""
        fault = next((f for f in self._nemeses if f.kind == f"nemesis:{moment}"), None)
        if fault is None or host.conduct is None:
            return False
        self._nemeses.remove(fault)
        world = self._world
        world.note("nemesis", moment, host.name, fault.strike)
        if fault.strike == "crash":
            self.crash(host, fault.ms)
        else:
            world.network.split(1 << host.index, world.now + fault.ms)
        return True

    # ---- planned faults --------------------------------------------------------------------------------------------------

    def _befall(self, fault: Fault) -> None:
        world = self._world
        world.note(*fault.kind.split(":"), fault.mask, fault.ms)
        until = world.now + fault.ms
        hosts = [host for index, copies in enumerate(world.machines) if fault.mask >> index & 1 for host in copies]
        match fault.kind:
            case "crash" | "crash_all":
                for host in hosts:
                    self.crash(host, fault.ms + world.rng.randint(0, 50))
            case "pause":
                for host in hosts:
                    host.pause(until)
            case "split":
                world.network.split(fault.mask, until)
            case "one_way":
                world.network.one_way(fault.mask, until)
            case "flap":
                world.network.flap(fault.mask, until, world.rng.choice((50, 300, 1_100)))
            case "slow_disk":
                for host in hosts:
                    host.slow_until = until
            case "starve":
                world.network.starve(fault.mask, until)
            case "old_votes_last":
                world.network.old_votes_last(fault.mask, until)
            case "few_commits":
                few = world.rng.sample(range(world.options.n), quorum(world.options.n) - 1)
                world.network.few_commits(sum(1 << i for i in few), until)
            case _:
                self._nemeses.append(fault)
