"""Faults on the containers of one compose project, over the engine's HTTP API: `ports.faults.Faults`.

Rule 1: a container is acted on only if the engine lists it under this project with a service name node<i>; ids and
names come from that list, never from a caller. There is no other way from a request to the engine.
Rule 2: what a node is stands in the engine (running, paused, exited, on the network or not); only the lie is the
node's own word, and is asked once.

    kill    POST /containers/{id}/kill         heal   POST /containers/{id}/start
    pause   POST /containers/{id}/pause               POST /containers/{id}/unpause
    cut     POST /networks/{id}/disconnect            POST /networks/{id}/connect, under the service's name again
    lie     `edgora node lie WORD` in the container, which writes a file in the node's own home (node.lies)
            and is refused there if the node's scenario does not allow faults

A container that is off the network has no published port either: its REST is gone for the host, too.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec

from edgora.ports.clock import Clock
from edgora.ports.faults import Act, FaultOrder, Lie, NodeFault, State, allowed_order
from edgora.wire.errors import Unavailable

__all__ = ["DockerFaults"]

T = TypeVar("T")

_SERVICE = re.compile(r"node([0-9]{1,2})")
_PROJECT, _NAME, _ONE_OFF, _NETWORK = (
    f"com.docker.compose.{label}" for label in ("project", "service", "oneoff", "network")
)
_TIMEOUT_S = 30.0
_LIE, _LIE_NOW = ("edgora", "node", "lie"), ("cat", "/node/lie")
"""To choose a node's lie, and to read it: the second one is asked by whoever looks first, so it must be cheap."""


class _Attached(msgspec.Struct, rename="pascal"):
    networks: dict[str, Any] = {}


class _Container(msgspec.Struct, rename="pascal"):
    id: str
    state: str
    labels: dict[str, str]
    network_settings: _Attached


class _Network(msgspec.Struct, rename="pascal"):
    id: str
    name: str


class _Made(msgspec.Struct, rename="pascal"):
    id: str


class _Ended(msgspec.Struct, rename="pascal"):
    exit_code: int | None = None


class DockerFaults:
    """One act at a time."""

    def __init__(
        self, socket: Path, project: str, clock: Clock, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """project: the only compose project whose nodes can be named. transport: instead of the socket, for tests."""
        self._project, self._clock = project, clock
        self._http = httpx2.AsyncClient(
            transport=transport or httpx2.AsyncHTTPTransport(uds=str(socket)), base_url="http://engine",
            timeout=_TIMEOUT_S, trust_env=False,
        )  # fmt: skip
        self._lock, self._learning = asyncio.Lock(), asyncio.Lock()
        self._lies: dict[int, Lie | None] = {}
        self._seen: dict[int, NodeFault] = {}

    async def close(self) -> None:
        await self._http.aclose()

    # ---- the port

    async def nodes(self) -> Sequence[NodeFault]:
        return [fault for fault, _ in (await self._look()).values()]

    async def act(self, order: FaultOrder) -> NodeFault:
        async with self._lock:
            seen = await self._look()
            found = allowed_order(order, [fault for fault, _ in seen.values()])
            container = seen[order.node][1]
            match order.act:
                case Act.KILL if found.state is not State.KILLED:
                    if found.state is State.PAUSED:  # a frozen process takes no signal
                        await self._post(f"/containers/{container.id}/unpause")
                    await self._post(f"/containers/{container.id}/kill?signal=KILL")
                case Act.PAUSE if found.state is State.UP:
                    await self._post(f"/containers/{container.id}/pause")
                case Act.CUT if found.state is State.UP:
                    network = await self._network()
                    await self._post(f"/networks/{network.id}/disconnect", {"Container": container.id, "Force": True})
                case Act.LIE:
                    await self._tell(order.node, container, order.lie)
                case Act.HEAL:
                    await self._heal(order.node, found, container)
                case _:
                    pass  # it is so already
            return (await self._look())[order.node][0]

    async def _heal(self, index: int, found: NodeFault, container: _Container) -> None:
        network = await self._network()
        if network.name not in container.network_settings.networks:
            alias = {"Aliases": [container.labels[_NAME]]}
            await self._post(f"/networks/{network.id}/connect", {"Container": container.id, "EndpointConfig": alias})
        if found.state is State.PAUSED:
            await self._post(f"/containers/{container.id}/unpause")
        elif found.state is State.KILLED:
            await self._post(f"/containers/{container.id}/start")
        if found.lie is not None:
            await self._tell(index, container, None)

    # ---- what the engine says

    async def _look(self) -> dict[int, tuple[NodeFault, _Container]]:
        """Every node of the project, by index."""
        wanted = [f"{_PROJECT}={self._project}", f"{_ONE_OFF}=False"]
        listed = await self._get("/containers/json", {"all": "1", "filters": _filters(wanted)}, list[_Container])
        network = await self._network()
        found: dict[int, tuple[NodeFault, _Container]] = {}
        for container in listed:
            name = _SERVICE.fullmatch(container.labels.get(_NAME, ""))
            if name is None or container.labels.get(_PROJECT) != self._project:
                continue
            index = int(name[1])
            state = _state(container, network)
            if container.state == "running":
                await self._learn(index, container)
            found[index] = self._noted(index, state), container
        return dict(sorted(found.items()))

    def _noted(self, index: int, state: State) -> NodeFault:
        """With the time since which we see it so."""
        lie, known = self._lies.get(index), self._seen.get(index)
        if known is None or (known.state, known.lie) != (state, lie):
            known = NodeFault(index=index, state=state, lie=lie, since_ms=self._clock.now_ms())
            self._seen[index] = known
        return known

    async def _network(self) -> _Network:
        """The one that the nodes share."""
        wanted = [f"{_PROJECT}={self._project}", f"{_NETWORK}=default"]
        listed = await self._get("/networks", {"filters": _filters(wanted)}, list[_Network])
        if not listed:
            raise Unavailable(f"the engine knows no network of the project {self._project}")
        return listed[0]

    # ---- lies

    async def _tell(self, index: int, container: _Container, lie: Lie | None) -> None:
        status, said = await self._run(container, (*_LIE, lie or "none"))
        if status:
            raise Unavailable(f"node {index} could not be told what to say: {said}")
        self._lies[index] = lie

    async def _learn(self, index: int, container: _Container) -> None:
        """Ask once for the lie that a node tells since before we were started."""
        async with self._learning:
            if index not in self._lies:
                status, said = await self._run(container, _LIE_NOW)
                self._lies[index] = Lie(said) if status == 0 and said in set(Lie) else None

    async def _run(self, container: _Container, command: Sequence[str]) -> tuple[int, str]:
        """Status and last line of a command in a container."""
        order = {"AttachStdout": True, "AttachStderr": True, "Tty": True, "Cmd": list(command)}
        made = _decoded(await self._post(f"/containers/{container.id}/exec", order), _Made)
        said = await self._post(f"/exec/{made.id}/start", {"Detach": False, "Tty": True})
        ended = await self._get(f"/exec/{made.id}/json", {}, _Ended)
        lines = said.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return (1 if ended.exit_code is None else ended.exit_code), last

    # ---- HTTP

    async def _get(self, path: str, query: Mapping[str, str], kind: type[T]) -> T:
        return _decoded(await self._send("GET", path, query=query), kind)

    async def _post(self, path: str, body: object = None) -> bytes:
        return await self._send("POST", path, body)

    async def _send(self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            reply = await self._http.request(method, path, content=content, headers=headers, params=query)
        except httpx2.HTTPError as error:
            raise Unavailable(f"the container engine does not answer: {type(error).__name__}") from None
        if reply.status_code >= 400:
            raise Unavailable(f"the container engine refuses: {_told(reply.content)}")
        return bytes(reply.content)


def _filters(labels: Sequence[str]) -> str:
    return msgspec.json.encode({"label": labels}).decode()


def _state(container: _Container, network: _Network) -> State:
    if container.state == "paused":
        return State.PAUSED
    if container.state != "running":
        return State.KILLED
    return State.UP if network.name in container.network_settings.networks else State.CUT


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the container engine's answer does not fit: {error}") from None


def _told(data: bytes) -> str:
    try:
        return str(msgspec.json.decode(data, type=dict[str, Any]).get("message", ""))
    except msgspec.DecodeError:
        return data[:200].decode(errors="replace")
