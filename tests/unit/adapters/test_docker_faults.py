"""Faults on containers, against a pretended engine: which calls it gets, and that no other container can be named."""

import json
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from edgora.adapters.docker_faults import DockerFaults
from edgora.ports.faults import Act, FaultOrder, Lie, State
from edgora.wire.errors import Conflict, NotFound, Unavailable

PROJECT = "city"
_LABEL = "com.docker.compose."


class Stopped:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ms = 1_000

    def now_ms(self) -> int:
        return self.ms


class Engine:
    """As much of the engine's API as the adapter uses; it keeps states, networks and each node's lie."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.states: dict[str, str] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.attached: dict[str, set[str]] = {}
        self.lies: dict[str, str] = {}
        self.execs: dict[str, tuple[str, list[str]]] = {}
        self.fails = False
        for project in (PROJECT, "other"):
            for service in ("node0", "node1", "node2", "node3", "chain", "nodes", "node1-copy"):
                name = f"{project}-{service}"
                self.states[name], self.attached[name] = "running", {f"{project}_default"}
                self.labels[name] = {
                    _LABEL + "project": project,
                    _LABEL + "service": service,
                    _LABEL + "oneoff": "False",
                }

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.fails:
            return httpx2.Response(500, json={"message": "the disk is full"})
        path, query = request.url.path, parse_qs(request.url.query.decode())
        wanted = json.loads(query["filters"][0])["label"] if "filters" in query else []
        if path == "/containers/json":
            shown = [
                n for n, labels in self.labels.items() if {f"{k}={v}" for k, v in labels.items()}.issuperset(wanted)
            ]
            return httpx2.Response(200, json=[self._summary(name) for name in shown])
        if path == "/networks":
            project = next(label.partition("=")[2] for label in wanted if label.startswith(_LABEL + "project="))
            return httpx2.Response(200, json=[{"Id": f"net-{project}", "Name": f"{project}_default"}])
        return self._act(request, path, json.loads(request.content or b"{}"))

    def _summary(self, name: str) -> dict[str, Any]:
        networks = {network: {} for network in self.attached[name]}
        return {"Id": name, "State": self.states[name], "Labels": self.labels[name], "NetworkSettings": {"Networks": networks}, "Image": "x"}  # fmt: skip

    def _act(self, request: httpx2.Request, path: str, body: dict[str, Any]) -> httpx2.Response:
        _, room, name, verb = path.split("/")
        if room == "exec":
            container, words = self.execs[name]
            if words == ["cat", "/node/lie"]:
                said = self.lies.get(container, "none")
                code, text = (1, "cat: /node/lie: No such file or directory") if said == "none" else (0, said)
            else:
                *command, self.lies[container] = words
                code, text = (0, words[-1]) if command == ["edgora", "node", "lie"] else (127, "no such command")
            if verb == "json":
                return httpx2.Response(200, json={"ExitCode": code, "Running": False})
            return httpx2.Response(200, content=f"{text}\r\n".encode())
        if room == "networks":
            change = self.attached[body["Container"]]
            (change.discard if verb == "disconnect" else change.add)(f"{PROJECT}_default")
            self.calls.append(
                f"{verb} {body['Container']} {body.get('EndpointConfig', {}).get('Aliases', '')}".rstrip()
            )
            return httpx2.Response(200)
        if verb == "exec":
            self.execs[f"e{len(self.execs)}"] = (name, body["Cmd"])
            if len(body["Cmd"]) == 4:
                self.calls.append(f"exec {name} {' '.join(body['Cmd'])}")
            return httpx2.Response(201, json={"Id": f"e{len(self.execs) - 1}"})
        self.states[name] = {"kill": "exited", "start": "running", "pause": "paused", "unpause": "running"}[verb]
        self.calls.append(f"{verb} {name}")
        return httpx2.Response(204)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def clock() -> Stopped:
    return Stopped()


@pytest.fixture
def faults(engine: Engine, clock: Stopped, tmp_path: Any) -> DockerFaults:
    return DockerFaults(tmp_path / "docker.sock", PROJECT, clock, httpx2.MockTransport(engine))  # type: ignore[arg-type]


async def test_the_projects_own_nodes_and_nothing_else(faults: DockerFaults, engine: Engine) -> None:
    assert [node.index for node in await faults.nodes()] == [0, 1, 2, 3]
    for act in Act:
        with pytest.raises(NotFound):
            await faults.act(FaultOrder(node=4, act=act))
    for node in range(4):
        await faults.act(FaultOrder(node=node, act=Act.KILL))
    assert {name for name, state in engine.states.items() if state != "running"} == {f"city-node{i}" for i in range(4)}


@pytest.mark.parametrize(
    ("act", "state", "there", "back"),
    [
        (Act.KILL, State.KILLED, ["kill city-node2"], ["start city-node2"]),
        (Act.PAUSE, State.PAUSED, ["pause city-node2"], ["unpause city-node2"]),
        (Act.CUT, State.CUT, ["disconnect city-node2"], ["connect city-node2 ['node2']"]),
    ],
)
async def test_there_and_back(
    faults: DockerFaults, engine: Engine, clock: Stopped, act: Act, state: State, there: list[str], back: list[str]
) -> None:
    await faults.nodes()
    clock.ms = 5_000
    done = await faults.act(FaultOrder(node=2, act=act))
    assert (done.index, done.state, done.since_ms) == (2, state, 5_000)
    clock.ms = 6_000
    assert await faults.act(FaultOrder(node=2, act=act)) == done, "twice does no harm, and is no new beginning"
    assert engine.calls == there
    healed = await faults.act(FaultOrder(node=2, act=Act.HEAL))
    assert (healed.state, healed.since_ms) == (State.UP, 6_000)
    assert engine.calls == there + back
    assert [node.state for node in await faults.nodes()] == [State.UP] * 4


async def test_what_is_paused_or_cut_can_be_killed_and_comes_back_whole(faults: DockerFaults, engine: Engine) -> None:
    for first in (Act.PAUSE, Act.CUT):
        await faults.act(FaultOrder(node=1, act=first))
        with pytest.raises(Conflict, match="node 1 is"):
            await faults.act(FaultOrder(node=1, act=Act.LIE, lie=Lie.EQUIVOCATE))
        assert (await faults.act(FaultOrder(node=1, act=Act.KILL))).state is State.KILLED
        assert (await faults.act(FaultOrder(node=1, act=Act.HEAL))).state is State.UP
        assert engine.attached["city-node1"] == {"city_default"}


async def test_a_lie_is_the_nodes_own_word_and_outlives_the_sidecar(
    faults: DockerFaults, engine: Engine, clock: Stopped, tmp_path: Any
) -> None:
    done = await faults.act(FaultOrder(node=3, act=Act.LIE, lie=Lie.FALSE_RESULT))
    assert done.lie is Lie.FALSE_RESULT
    assert engine.calls == ["exec city-node3 edgora node lie false_result"]
    again = DockerFaults(tmp_path / "docker.sock", PROJECT, clock, httpx2.MockTransport(engine))  # type: ignore[arg-type]
    assert [node.lie for node in await again.nodes()] == [None, None, None, Lie.FALSE_RESULT]
    assert (await again.act(FaultOrder(node=3, act=Act.HEAL))).lie is None
    assert engine.lies["city-node3"] == "none"


async def test_an_engine_that_fails_is_told_in_its_words(faults: DockerFaults, engine: Engine, tmp_path: Any) -> None:
    engine.fails = True
    with pytest.raises(Unavailable, match="the disk is full"):
        await faults.act(FaultOrder(node=0, act=Act.KILL))
    nobody = DockerFaults(tmp_path / "no.sock", PROJECT, Stopped())  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="does not answer"):
        await nobody.nodes()
    await nobody.close()
