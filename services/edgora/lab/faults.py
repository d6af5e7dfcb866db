"""Faults on purpose in the embedded platform: `ports.faults.Faults` over a `Cluster`.

    kill    both halves and the web server end without a word, as a crash would end them; heal starts the node again
            over its folder
    pause   links hold every octet and REST holds every request and every part of an answer, as for processes that are
            stopped; what the node has in hand goes on inside, which a stopped process would not
    cut     the way to every other node is gone, REST still answers
    lie     the node's `node.lies` wrappers are told what to say

The cluster imports this module only if its scenario allows faults.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from edgora.adapters.links import Identity
from edgora.node.duties.post import Duty, Post
from edgora.node.lies import EquivocatingLinks, FalseAllocations, FalsifyingRunner
from edgora.ports.clock import Clock
from edgora.ports.faults import Act, FaultOrder, Lie, NodeFault, State, allowed_order
from edgora.ports.runner import Runner
from edgora.ports.transport import Transport

if TYPE_CHECKING:
    from edgora.lab.cluster import Cluster

__all__ = ["EmbeddedFaults", "Gate"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""As ASGI 3 has them; a scope is a mapping like a message."""


class Gate:
    """A web application that can hold requests, and answers that have begun."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._open = asyncio.Event()
        self._open.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._open.wait()

        async def gated(message: Message) -> None:
            await self._open.wait()
            await send(message)

        await self._app(scope, receive, gated)

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()


class EmbeddedFaults:
    """One act at a time; all of it in the cluster's own loop."""

    def __init__(self, cluster: "Cluster", clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._lock = asyncio.Lock()
        self._nodes: dict[int, NodeFault] = {}
        self._gates: dict[int, Gate] = {}

    # ---- what the cluster makes a node of

    def links(self, identity: Identity, links: Transport) -> Transport:
        domain = identity.genesis.ledger_domain()
        return EquivocatingLinks(links, identity.signing_key, domain, partial(self._chosen, identity.index))

    def runner(self, index: int, runner: Runner) -> Runner:
        return FalsifyingRunner(runner, partial(self._chosen, index))

    def duties(self, index: int) -> Callable[[Post], Sequence[Duty]]:
        return lambda post: (FalseAllocations(post, partial(self._chosen, index)),)

    def gate(self, index: int, app: App) -> App:
        self._gates[index] = Gate(app)
        return self._gates[index]

    def let_go(self) -> None:
        """Nothing stands still any more: what the cluster stops must be able to end."""
        for index, gate in self._gates.items():
            gate.release()
            self._cluster.network.release(index)

    def _chosen(self, index: int) -> Lie | None:
        known = self._nodes.get(index)
        return None if known is None else known.lie

    # ---- the port

    async def nodes(self) -> Sequence[NodeFault]:
        return [self._node(index) for index in range(len(self._cluster.nodes))]

    def _node(self, index: int) -> NodeFault:
        if index not in self._nodes:
            self._nodes[index] = NodeFault(index=index, state=State.UP, lie=None, since_ms=self._clock.now_ms())
        return self._nodes[index]

    async def act(self, order: FaultOrder) -> NodeFault:
        async with self._lock:
            found = allowed_order(order, await self.nodes())
            match order.act:
                case Act.KILL:
                    goal = replace(found, state=State.KILLED)
                case Act.PAUSE:
                    goal = replace(found, state=State.PAUSED)
                case Act.CUT:
                    goal = replace(found, state=State.CUT)
                case Act.LIE:
                    goal = replace(found, lie=order.lie)
                case Act.HEAL:
                    goal = replace(found, state=State.UP, lie=None)
            if goal != found:
                await self._become(found, goal)
                self._nodes[found.index] = replace(goal, since_ms=self._clock.now_ms())
            return self._nodes[found.index]

    async def _become(self, found: NodeFault, goal: NodeFault) -> None:
        """From one state to another, by way of up."""
        index, cluster = found.index, self._cluster
        node = cluster.nodes[index]
        if found.state is State.PAUSED and goal.state is not State.PAUSED:
            self._gates[index].release()
            cluster.network.release(index)
        match goal.state:
            case State.KILLED:
                await node.kill()
            case State.PAUSED:
                self._gates[index].hold()
                cluster.network.hold(index)
            case State.UP if found.state is State.KILLED:
                # Honest before it starts: a liar would begin with the lie that it is being healed of.
                self._nodes[index] = replace(found, lie=None)
                cluster.nodes[index] = await cluster.start_node(index)
            case State.UP | State.CUT:
                pass
        self._cut_off({**self._nodes, index: goal})

    def _cut_off(self, nodes: dict[int, NodeFault]) -> None:
        """A way between two nodes is there if neither is cut off."""
        network, count = self._cluster.network, len(self._cluster.nodes)
        alone = {index for index, node in nodes.items() if node.state is State.CUT}
        for a in range(count):
            for b in range(a + 1, count):
                (network.mend if alone.isdisjoint((a, b)) else network.cut)(a, b)
