"""The fault panel's routes: who may ask, what may be asked, and how a refusal reads. Sidecar's client and server together."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from edgora.adapters.http_faults import HttpFaults
from edgora.board.app import build_board
from edgora.board.faults import HEADER, fault_routes, fault_service
from edgora.board.nodes import BoardNodes
from edgora.board.settings import BoardSettings
from edgora.ports.faults import Act, FaultOrder, Lie, NodeFault, State, allowed_order
from edgora.wire.errors import Conflict, NotFound, Refused, Unavailable

URL = "http://127.0.0.1:8080"
GOOD = {HEADER: "1", "Origin": URL}
_AFTER = {Act.KILL: State.KILLED, Act.PAUSE: State.PAUSED, Act.CUT: State.CUT, Act.HEAL: State.UP, Act.LIE: State.UP}


@dataclass
class Pretended:
    """Four nodes that become what they are told."""

    known: dict[int, NodeFault] = field(
        default_factory=lambda: {i: NodeFault(index=i, state=State.UP, lie=None, since_ms=1) for i in range(4)}
    )
    asked: list[FaultOrder] = field(default_factory=list)

    async def nodes(self) -> Sequence[NodeFault]:
        return list(self.known.values())

    async def act(self, order: FaultOrder) -> NodeFault:
        self.asked.append(order)
        found = allowed_order(order, await self.nodes())
        self.known[order.node] = replace(found, state=_AFTER[order.act], lie=order.lie, since_ms=2)
        return self.known[order.node]


@pytest.fixture
def pretended() -> Pretended:
    return Pretended()


@pytest.fixture
async def board(pretended: Pretended) -> AsyncIterator[httpx2.AsyncClient]:
    settings = BoardSettings(nodes=("http://127.0.0.1:8100",))
    app = build_board(settings, BoardNodes(settings), fault_routes(pretended))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=URL) as http:
        yield http


async def test_what_is_asked_for_is_done_and_shown(board: httpx2.AsyncClient, pretended: Pretended) -> None:
    done = await board.post("/faults", json={"node": 2, "act": "lie", "lie": "equivocate"}, headers=GOOD)
    assert done.json() == {"index": 2, "state": "up", "lie": "equivocate", "since_ms": 2}
    assert (await board.get("/faults")).json()["nodes"][2] == done.json()
    assert (await board.get("/board.json")).json()["faults"] is True
    killed = await board.post("/faults", json={"node": 1, "act": "kill"}, headers={HEADER: "1"})
    assert killed.json()["state"] == "killed", "a script has no origin"
    assert [order.node for order in pretended.asked] == [2, 1]


@pytest.mark.parametrize(
    ("headers", "order", "status", "code", "field"),
    [
        ({"Origin": URL}, {"node": 0, "act": "kill"}, 403, "forbidden", HEADER),
        ({HEADER: "yes", "Origin": URL}, {"node": 0, "act": "kill"}, 403, "forbidden", HEADER),
        ({HEADER: "1", "Origin": "http://evil.example"}, {"node": 0, "act": "kill"}, 403, "forbidden", "Origin"),
        ({HEADER: "1", "Origin": "https://127.0.0.1:8080"}, {"node": 0, "act": "kill"}, 403, "forbidden", "Origin"),
        ({HEADER: "1", "Origin": "http://127.0.0.1:8081"}, {"node": 0, "act": "kill"}, 403, "forbidden", "Origin"),
        ({HEADER: "1", "Origin": "null"}, {"node": 0, "act": "kill"}, 403, "forbidden", "Origin"),
        (GOOD, {"node": 7, "act": "kill"}, 404, "not_found", "node"),
        (GOOD, {"node": -1, "act": "kill"}, 404, "not_found", "node"),
        (GOOD, {"node": "0", "act": "kill"}, 400, "bad_request", "node"),
        (GOOD, {"node": 0, "act": "explode"}, 400, "bad_request", "act"),
        (GOOD, {"node": 0}, 400, "bad_request", "body"),
        (GOOD, {"node": 0, "act": "lie"}, 400, "bad_request", "lie"),
        (GOOD, {"node": 0, "act": "lie", "lie": "flatter"}, 400, "bad_request", "lie"),
        (GOOD, {"node": 0, "act": "kill", "lie": "equivocate"}, 400, "bad_request", "lie"),
        (GOOD, {"node": 0, "act": "kill", "signal": 9}, 400, "bad_request", "body"),
        (GOOD, {"node": 0, "act": "kill", "padding": "x" * 2_000}, 413, "too_large", "body"),
    ],
)
async def test_a_refusal_says_what_was_wrong(
    board: httpx2.AsyncClient, pretended: Pretended, headers: dict[str, str], order: dict[str, Any], status: int,
    code: str, field: str,
) -> None:  # fmt: skip
    before = dict(pretended.known)
    reply = await board.post("/faults", json=order, headers=headers)
    assert reply.headers["content-type"] == "application/problem+json"
    told = reply.json()
    assert (reply.status_code, told["code"], told["field"]) == (status, code, field), told
    assert told["detail"]
    assert pretended.known == before


async def test_a_body_that_is_no_json(board: httpx2.AsyncClient) -> None:
    reply = await board.post("/faults", content=b"\xff{", headers=GOOD)
    assert (reply.status_code, reply.json()["field"]) == (400, "body")


async def test_another_sites_page_is_not_answered_when_it_asks_first(board: httpx2.AsyncClient) -> None:
    """No preflight is granted, so a browser never sends the foreign page's POST with the header."""
    asks = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": HEADER,
    }
    reply = await board.options("/faults", headers=asks)
    assert reply.status_code == 405
    assert "access-control-allow-origin" not in reply.headers


async def test_without_a_port_there_are_no_routes() -> None:
    settings = BoardSettings(nodes=("http://127.0.0.1:8100",))
    app = build_board(settings, BoardNodes(settings))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=URL) as http:
        assert (await http.get("/faults")).status_code == 404
        assert (await http.post("/faults", json={"node": 0, "act": "kill"}, headers=GOOD)).status_code == 404
        assert (await http.get("/board.json")).json()["faults"] is False


@pytest.mark.parametrize(
    ("state", "act", "possible"),
    [(state, act, state is State.UP or act in {Act.KILL, Act.HEAL} or _AFTER[act] is state) for state in State for act in Act if act is not Act.LIE]
    + [(state, Act.LIE, state is State.UP) for state in State],
)  # fmt: skip
def test_which_act_fits_which_state(state: State, act: Act, possible: bool) -> None:
    nodes = [NodeFault(index=0, state=state, lie=None, since_ms=0)]
    order = FaultOrder(node=0, act=act, lie=Lie.EQUIVOCATE if act is Act.LIE else None)
    if possible:
        assert allowed_order(order, nodes) == nodes[0]
    else:
        with pytest.raises(Conflict, match=f"node 0 is {state}"):
            allowed_order(order, nodes)


# ---- the board's way to the sidecar


@pytest.fixture
def through(pretended: Pretended) -> HttpFaults:
    service = fault_service(pretended, ["faults"])
    return HttpFaults("http://faults:8090/", httpx2.ASGITransport(app=service))


async def test_the_sidecar_is_the_same_port_further_away(through: HttpFaults, pretended: Pretended) -> None:
    found = await through.act(FaultOrder(node=3, act=Act.CUT))
    assert found == pretended.known[3]
    assert found.state is State.CUT
    assert await through.nodes() == tuple(pretended.known.values())
    with pytest.raises(Conflict, match="node 3 is cut"):
        await through.act(FaultOrder(node=3, act=Act.PAUSE))
    with pytest.raises(NotFound):
        await through.act(FaultOrder(node=9, act=Act.HEAL))
    with pytest.raises(Refused) as refused:
        await through.act(FaultOrder(node=0, act=Act.LIE))
    assert refused.value.field == "lie"


async def test_a_board_without_a_panel_says_why() -> None:
    settings = BoardSettings(nodes=("http://127.0.0.1:8100",))
    app = build_board(settings, BoardNodes(settings))
    with pytest.raises(Refused, match="does not allow faults"):
        await HttpFaults(URL, httpx2.ASGITransport(app=app)).nodes()


async def test_the_sidecar_answers_under_its_own_name_only(pretended: Pretended) -> None:
    service = fault_service(pretended, ["faults"])
    elsewhere = HttpFaults("http://127.0.0.1:8090", httpx2.ASGITransport(app=service))
    with pytest.raises(Unavailable):
        await elsewhere.nodes()


async def test_a_sidecar_that_is_not_there(pretended: Pretended) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    with pytest.raises(Unavailable, match="/faults does not answer") as told:
        await HttpFaults("http://faults:8090", httpx2.MockTransport(refuse)).nodes()
    assert told.value.fix is not None
