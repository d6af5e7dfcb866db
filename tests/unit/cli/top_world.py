"""REST documents of a small platform for tests of `edgora top`, and nodes that answer with them. No network."""

from collections.abc import Callable
from typing import Any

import httpx2
import msgspec

from edgora.cli.top_model import NodeView, Picture
from edgora.wire import rest

_Client = httpx2.AsyncClient  # a test may put `client` in its place
NOW = 1_700_000_000_000
SPIN = "0x" + "51" * 32


def hex32(number: int) -> str:
    return "0x" + number.to_bytes(32, "big").hex()


def offer(**changes: Any) -> rest.OfferBody:
    base: dict[str, Any] = {
        "ue": "0x" + "aa" * 20, "nonce": 1, "module_digest": SPIN, "input_digest": hex32(1), "input_octets": 10,
        "output_octets": 10, "memory_pages": 1, "fuel_limit": 5_000_000, "price": 25, "desired_ms": 1_000,
        "deadline_ms": NOW + 60_000, "result_key": hex32(2), "key_commit": hex32(3), "source": 1, "flags": 0,
    }  # fmt: skip
    return rest.OfferBody(**(base | changes))


def task(number: int, state: str = "OPEN", **changes: Any) -> rest.Task:
    base: dict[str, Any] = {
        "id": f"0x{number:08x}" + "0" * 56, "offer": offer(), "state": state, "executor": None, "round": None,
        "opened_ms": NOW - 1_000 * number, "assigned_ms": None, "done_ms": None, "reopened": 0, "maximum": "125000000000000",
        "amount": "0", "result": None, "batch": None, "reason": None, "why": f"the reason of task {number}",
        "tx_hash": None, "trace_id": "0" * 32, "height": 7,
    }  # fmt: skip
    return rest.Task(**(base | changes))


def reason(sentence: str, code: str = "CODE") -> rest.ReasonBody:
    return rest.ReasonBody(code=code, subject="", numbers=[], sentence=sentence)


def allocation(number: int, **changes: Any) -> rest.Allocation:
    base: dict[str, Any] = {
        "round": number, "opened_height": 5, "opened_ms": NOW - 900, "closed_height": 6, "closed_ms": NOW - 500,
        "digest": hex32(number), "tasks": 3, "servers": 4, "instance": None, "winner": "priced", "winner_validator": 2,
        "value": "1100", "greedy_value": "1000", "bound": "1250", "verdict": reason("worth more than greedy"),
        "pairs": [rest.Pair(task=hex32(1), server=0), rest.Pair(task=hex32(2), server=1)],
        "proposals": [rest.Proposal(
            validator=3, policy="liar", accepted=False, value="0", bound=None, solver_ms=0, reason=reason("its value is not right"),
        )],
        "skipped": [], "choices": [],
    }  # fmt: skip
    return rest.Allocation(**(base | changes))


def server(number: int, **changes: Any) -> rest.Server:
    base: dict[str, Any] = {
        "id": number, "signer": "0x" + f"{number:02x}" * 20, "meta_hash": hex32(number), "live": True, "bonded": True,
        "advert": rest.Advert(speed=40_000_000, capacity=2_000, slots=2, ask=20, uplink=1_000, forward="1000", until_ms=NOW + 9_000),
        "credit": 1_000, "used": 250, "tasks": 1, "earned": "2500000000000000",
        "reputation": rest.Reputation(desired_ms=100, actual_ms=80, done=7, late=1, failed=0, disputed=0, score=1.25),
        "keys": rest.KeyDocument(
            document="0x", meta_hash=hex32(number), signer="0x" + "00" * 20, rsa_spki="0x", link_key="0x",
            public_url=f"http://node{number}.test", network_url=f"http://inside{number}",
        ),
        "position_m": None,
    }  # fmt: skip
    return rest.Server(**(base | changes))


def status(number: int, **changes: Any) -> rest.Status:
    base: dict[str, Any] = {
        "sentence": "nothing to order: height 41 is committed", "waiting": "IDLE", "waiting_since_ms": 5, "server": number,
        "epoch": 0, "view": 2, "view_active": True, "primary": 2, "quorum": 3, "committed_height": 41,
        "committed_hash": hex32(9), "executed_height": 41, "follower_height": 41, "header_time_ms": NOW - 300,
        "stable_checkpoint": 32, "pool_txs": 0, "next_height": 42, "votes": 1, "timeout_ms": 1_000, "view_changes": 0,
        "alarm": None, "chain_seen": True, "chain_sentence": "a quorum of validators sees the chain", "open_tasks": 1,
        "running": 0, "round": None, "duties": {},
        "voters": [
            rest.Voter(
                index=i, address="0x" + f"{i:02x}" * 20, connected=i != 3, last_heard_ms=None if i == number else 12_500 if i == 3 else 40,
                committed_height=41, view=2, voted=i == 2,
            )
            for i in range(4)
        ],
    }  # fmt: skip
    return rest.Status(**(base | changes))


def info(number: int, **changes: Any) -> rest.Info:
    zeros = dict.fromkeys(rest.MarketParams.__slots__, 0)
    base: dict[str, Any] = {
        "version": "0.1.0", "time_ms": NOW, "height": 41, "header_time_ms": NOW - 300, "epoch": 0, "server": number,
        "consortium_id": 1, "genesis_id": hex32(77), "genesis": "0x", "chain_id": 31337, "market_address": "0x" + "00" * 20,
        "validators": ["0x" + f"{i:02x}" * 20 for i in range(4)], "quorum": 3, "chain_seen": True, "development": True,
        "params": rest.MarketParams(**(zeros | {"prefer": "", "audit_pay": "0"})),
        "consensus": rest.ConsensusParams(**dict.fromkeys(rest.ConsensusParams.__slots__, 0)),
        "limits": rest.Limits(**dict.fromkeys(rest.Limits.__slots__, 0)),
    }  # fmt: skip
    return rest.Info(**(base | changes))


def picture(**changes: Any) -> Picture:
    base: dict[str, Any] = {
        "node": "http://node0.test", "info": info(0),
        "servers": rest.ServerList(items=[server(i) for i in range(4)], height=41, time_ms=NOW),
        "under_way": [task(65), task(2, "ASSIGNED", executor=3)], "lately": [task(1, "SETTLED", amount="9"), task(2, "ASSIGNED")],
        "rounds": [allocation(9), allocation(8, winner="greedy", winner_validator=None, value="1000", bound="1000")],
        "batches": [], "says": [],
        "nodes": [
            NodeView(url=f"http://node{i}.test", server=i, status=status(i) if i != 3 else None,
                     problem=None if i != 3 else "does not answer (ConnectError)")
            for i in range(4)
        ],
    }  # fmt: skip
    return Picture(**(base | changes))


class Nodes:
    """Four nodes behind one transport. `dead`: refuse connections; `strange`: answer with something else."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.strange: set[int] = set()
        self.asked: list[str] = []
        self.tasks = [task(1, "SETTLED"), task(2, "ASSIGNED", executor=3), task(65)]

    def client(self) -> httpx2.AsyncClient:
        return _Client(transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        number = int(request.url.host.removeprefix("node").removesuffix(".test").removeprefix("alias"))
        self.asked.append(str(request.url))
        if number in self.dead:
            raise httpx2.ConnectError("refused", request=request)
        if number in self.strange:
            return httpx2.Response(200, content=b"<html>")
        found = self._document(number, request.url.path, request.url.params.get("state"))
        if found is None:
            problem = rest.Problem(
                type="urn:edgora:problem:not_found", title="", status=404, code="not_found", detail="no such task"
            )
            return httpx2.Response(404, content=msgspec.json.encode(problem))
        return httpx2.Response(200, content=msgspec.json.encode(found))

    def _document(self, number: int, path: str, state: str | None) -> object:
        if path.startswith("/v1/tasks/"):
            return next((why(t) for t in self.tasks if path == f"/v1/tasks/{t.id}/why"), None)
        answers: dict[str, Callable[[], object]] = {
            "/v1/info": lambda: info(number),
            "/v1/servers": lambda: rest.ServerList(items=[server(i) for i in range(4)], height=41, time_ms=NOW),
            "/v1/tasks": lambda: rest.TaskPage(
                items=[t for t in self.tasks if state in {None, t.state}], cursor=None, height=41
            ),
            "/v1/allocations": lambda: rest.AllocationPage(items=[allocation(9)], cursor=None),
            "/v1/batches": lambda: rest.BatchPage(items=[], cursor=None),
            "/v1/status": lambda: status(number),
        }  # fmt: skip
        return answers[path]()


def why(about: rest.Task) -> rest.Why:
    other = rest.Alternative(server=1, value="5", reason=reason("its ask of 30 is above the price of 25 gwei/Mfuel"))
    choice = rest.Choice(task=about.id, server=3, alternatives=[other]) if about.executor is not None else None
    return rest.Why(
        task=about.id, state=about.state, sentence=about.why, reasons=[reason(about.why)], choice=choice, since_ms=NOW,
        height=41, time_ms=NOW,
    )  # fmt: skip


def without_consensus(found: Picture) -> Picture:
    """The same, but the answering node's consensus half is away."""
    views = [
        msgspec.structs.replace(v, status=None, problem="answers HTTP 503: the consensus half is away") if v.url == found.node else v
        for v in found.nodes
    ]  # fmt: skip
    return msgspec.structs.replace(found, nodes=views)
