"""Faults on purpose, as a port: what the board's panel asks for, whoever carries it out.

Rule 1: only a scenario with `[faults] allowed = true` has one; composition roots make none otherwise.
Rule 2: it knows the nodes of its own deployment by their server ids, and nothing else can be named through it.
Rule 3: an act is done when the call returns; what follows from it shows in the nodes' own status and events.

    up --kill--> killed     the processes end as in a crash; the disk stays
    up --pause-> paused     the processes stand still; what is sent to them waits
    up --cut---> cut        no way to the other nodes; the node itself runs on
    up --lie---> up, lying  the node says what the rules forbid, under its own key (`Lie`)
    any --heal-> up         back to a correct node, over the folder that it has

A node that is paused or cut off may be killed; for the rest a node must be up. The same act twice does no harm.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from edgora.wire.errors import Conflict, NotFound, Refused

__all__ = ["Act", "FaultList", "FaultOrder", "Faults", "Lie", "NodeFault", "State", "allowed_order"]


class State(StrEnum):
    UP = "up"
    PAUSED = "paused"
    KILLED = "killed"
    CUT = "cut"


class Act(StrEnum):
    KILL = "kill"
    PAUSE = "pause"
    CUT = "cut"
    LIE = "lie"
    HEAL = "heal"


class Lie(StrEnum):
    """Known ways to cheat. Each stays in force until the node is healed."""

    EQUIVOCATE = "equivocate"
    """As primary: another block to each backup for one height (ledger.md 19, equivocating primary)."""
    FALSE_ALLOCATION = "false_allocation"
    """A plan that claims more than it is worth, and one of pairs that the rules forbid (market.md 4)."""
    FALSE_RESULT = "false_result"
    """As executor or auditor: an output that the module did not compute (market.md 5)."""


class NodeFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was done to one node."""

    index: int
    """Server id."""
    state: State
    lie: Lie | None
    since_ms: int
    """Unix time of the last change of state or lie."""


class FaultList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    nodes: Sequence[NodeFault]
    """By server id."""


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request for a fault."""

    node: int
    act: Act
    lie: Lie | None = None
    """With act "lie" only."""


_FROM = {
    Act.KILL: tuple(State), Act.PAUSE: (State.UP, State.PAUSED), Act.CUT: (State.UP, State.CUT), Act.LIE: (State.UP,),
    Act.HEAL: tuple(State),
}  # fmt: skip
"""States in which an act may be asked for; its own result is among them."""


class Faults(Protocol):
    async def nodes(self) -> Sequence[NodeFault]:
        """Every node, by server id. Raises Unavailable if whoever carries the acts out does not answer."""
        ...

    async def act(self, order: FaultOrder) -> NodeFault:
        """Do it; the node as it is then.

        Raises NotFound for an unknown node, Refused for a lie that is not named or not asked for, Conflict if the
        node's state does not allow the act, Unavailable if it could not be carried out.
        """
        ...


def allowed_order(order: FaultOrder, nodes: Sequence[NodeFault]) -> NodeFault:
    """The node that an order is about, if its state allows the act (the table above). Raises as `Faults.act`."""
    found = next((node for node in nodes if node.index == order.node), None)
    if found is None:
        known = ", ".join(str(node.index) for node in nodes)
        raise NotFound(f"there is no node {order.node}", field="node", fix=f"name one of {known}")
    if order.act is Act.LIE and order.lie is None:
        raise Refused("no lie is named", field="lie", fix=f"name one of {', '.join(Lie)}")
    if order.act is not Act.LIE and order.lie is not None:
        raise Refused(
            f"a lie is named, but the act is {order.act}", field="lie", fix='leave it out, or set act to "lie"'
        )
    allowed = _FROM[order.act]
    if found.state not in allowed:
        raise Conflict(
            f"node {order.node} is {found.state}: {order.act} is for one that is {' or '.join(allowed)}",
            field="act", fix="heal it first",
        )  # fmt: skip
    return found
