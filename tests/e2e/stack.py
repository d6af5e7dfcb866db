"""One compose project under test: started from the repository's own file, under a name and on ports of its own.

Everything is done with the `docker` and `docker compose` commands that a user has. What was started is removed with
its volumes; nothing else is touched.
"""

import asyncio
import base64
import json
import os
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec

from edgora.adapters.loopback import free_port
from edgora.client import AsyncClient, Wallet
from edgora.wire import rest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
NODES = range(4)
ONE_SHOTS = ("genesis", "deployer")
SERVICES = ("chain", "redis", "node0", "node1", "node2", "node3", "allocator", "board")
VOLUMES = ("genesis", "deployer", "chain", "node0", "node1", "node2", "node3")
_POLL_S = 0.5


def engine_answers() -> bool:
    """Whether a container engine with compose is there."""
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def run(*command: str, data: bytes | None = None, check: bool = True, timeout_s: float = 300, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    """A command; its words are in the error if it fails."""
    done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s, env=env, check=False)
    if check and done.returncode != 0:
        words = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{words}")
    return done


async def until(what: str, ask: Callable[[], Awaitable[T]], within_s: float = 180) -> T:
    """Ask until the answer is true; fail with the last answer otherwise."""
    end = time.monotonic() + within_s
    while True:
        answer = await ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {within_s:.0f} s: {what}; last answer {answer!r}")
        await asyncio.sleep(_POLL_S)


class Stack:
    """A compose project."""

    def __init__(self) -> None:
        self.project = f"edgora-e2e-{os.getpid()}-{secrets.token_hex(3)}"
        self.ports = [free_port() for _ in NODES]
        self.chain_port, self.board_port = free_port(), free_port()
        self.env = {
            **os.environ, **{f"EDGORA_NODE{i}_PORT": str(port) for i, port in enumerate(self.ports)},
            "EDGORA_CHAIN_PORT": str(self.chain_port), "EDGORA_BOARD_PORT": str(self.board_port),
        }  # fmt: skip
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.chain_url = f"http://127.0.0.1:{self.chain_port}"

    # ---- commands

    def compose(self, *arguments: str, data: bytes | None = None, check: bool = True, timeout_s: float = 300) -> bytes:
        """`docker compose` for this project; its standard output."""
        return self.composed(*arguments, data=data, check=check, timeout_s=timeout_s).stdout

    def composed(
        self, *arguments: str, data: bytes | None = None, check: bool = False, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[bytes]:
        """As `compose`, with status and standard error."""
        command = ("docker", "compose", "--project-name", self.project, "--file", str(ROOT / "docker-compose.yml"))
        return run(*command, *arguments, data=data, check=check, timeout_s=timeout_s, env=self.env)

    def build(self) -> None:
        """One image after the other: an engine without BuildKit would make the shared layers twice at a time."""
        for service in ("genesis", "allocator", "fleet"):
            self.compose("build", service, timeout_s=900)

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20", timeout_s=300)

    def save_logs(self) -> Path:
        """Everything that the containers said, kept where git does not look."""
        path = ROOT / "run" / f"{self.project}.log"
        path.parent.mkdir(exist_ok=True)
        states = json.dumps(self.states(), indent=1).encode()
        path.write_bytes(states + b"\n" + self.compose("logs", "--no-color", "--timestamps", check=False))
        return path

    # ---- containers

    def container(self, service: str) -> str:
        """Id of a service's container, running or not."""
        found = self.compose("ps", "--all", "--quiet", service).decode().split()
        assert len(found) == 1, f"{service} has containers {found}"
        return found[0]

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(run("docker", "inspect", self.container(service)).stdout)
        document: dict[str, Any] = found
        return document

    def states(self) -> dict[str, dict[str, Any]]:
        """Service -> what `docker compose ps` says of it."""
        lines = self.compose("ps", "--all", "--format", "json").decode().splitlines()
        return {item["Service"]: item for item in map(json.loads, lines)}

    def sick(self) -> dict[str, str]:
        """Services that are not as they must be, with their state; empty when all is well. The fleet is apart."""
        states = self.states()
        found = {}
        for service in SERVICES:
            state = states.get(service, {"State": "missing", "Health": ""})
            if (state["State"], state["Health"]) != ("running", "healthy"):
                found[service] = f"{state['State']} {state['Health']}"
        for service in ONE_SHOTS:
            state = states.get(service, {"State": "missing", "ExitCode": None})
            if (state["State"], state["ExitCode"]) != ("exited", 0):
                found[service] = f"{state['State']} {state['ExitCode']}"
        return found

    async def all_well(self, within_s: float = 240) -> None:
        """Wait until every container is healthy, one-shots are done and every node votes in an active view."""

        async def look() -> bool:
            self._last_sick = await asyncio.to_thread(self.sick)
            return not self._last_sick

        try:
            await until("all containers healthy", look, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._last_sick}") from None
        await self.quorum(within_s=within_s)

    async def quorum(self, nodes: Sequence[int] = NODES, within_s: float = 180) -> None:
        """Wait until REST of these nodes answers and at least three of all are ready.

        One node alone may be out of its view for as long as nobody else leaves it (ledger.md 10): with three others
        ready that is no fault.
        """
        async with httpx2.AsyncClient(timeout=5.0) as http:

            async def look() -> bool:
                replies = await asyncio.gather(*(self._status(http, i, "/readyz") for i in NODES))
                return all(replies[i] is not None for i in nodes) and sum(code == 200 for code in replies) >= 3

            await until(f"nodes {list(nodes)} answer and a quorum is ready", look, within_s)

    async def _status(self, http: httpx2.AsyncClient, node: int, path: str) -> int | None:
        try:
            return (await http.get(self.urls[node] + path)).status_code
        except httpx2.HTTPError:
            return None

    # ---- nodes

    @cached_property
    def genesis_id(self) -> str:
        """From the volume, so that clients trust no node's word for it."""
        document = json.loads(self.compose("exec", "--no-TTY", "node0", "cat", "/genesis/genesis.json"))
        found: str = document["genesis_id"]
        return found

    def client(self, first: int = 0, wallet: Wallet | None = None) -> AsyncClient:
        """A UE whose nearby node is `first`; it knows the others too."""
        urls = [self.urls[(first + step) % len(self.urls)] for step in NODES]
        return AsyncClient(urls, wallet, genesis_id=self.genesis_id)

    async def get(self, node: int, path: str, kind: type[T]) -> T:
        """A resource of one node and no other."""
        async with httpx2.AsyncClient(timeout=10.0) as http:
            reply = await http.get(self.urls[node] + path)
            assert reply.status_code == 200, f"node {node} {path}: {reply.status_code} {reply.text}"
            return msgspec.json.decode(reply.content, type=kind)

    async def height(self, node: int) -> int:
        """How far a node has committed; -1 while it does not answer."""
        try:
            return (await self.get(node, "/v1/status", rest.Status)).committed_height
        except (httpx2.HTTPError, AssertionError):
            return -1

    async def primary(self) -> int:
        """The primary of the highest active view."""
        found = [await self.get(i, "/v1/status", rest.Status) for i in NODES]
        return max((s.view, s.primary) for s in found if s.view_active)[1]

    async def caught_up(self, node: int, within_s: float = 180) -> None:
        """Wait until a node is as far as the others were when we asked."""
        goal = max([await self.height(i) for i in NODES])

        async def look() -> bool:
            return await self.height(node) >= goal

        await until(f"node {node} at height {goal}", look, within_s)

    async def headers(self, node: int, upto: int) -> dict[int, str]:
        """Height -> block hash by one node's ledger; a state transfer leaves out what came before it."""
        found: dict[int, str] = {}
        for first in range(1, upto + 1, 256):
            path = f"/v1/headers?from={first}&to={min(upto, first + 255)}"
            found |= {h.height: h.hash for h in (await self.get(node, path, rest.HeaderList)).items}
        return found

    async def ledgers_agree(self) -> list[dict[int, str]]:
        """Each node's blocks up to the height that all have reached; fails where two differ or one has gone."""
        common = min([await self.height(i) for i in NODES])
        chains = [await self.headers(i, common) for i in NODES]
        for height in range(1, common + 1):
            said = [chain[height] for chain in chains if height in chain]
            assert len(set(said)) == 1, f"block {height}: {[chain.get(height) for chain in chains]}"
            assert len(said) >= 2, f"block {height} is kept by {len(said)} nodes"
        assert all(common in chain for chain in chains), f"not every node has block {common}"
        return chains


# ---- looking for a secret --------------------------------------------------------------------------------------------


def disguises(marker: bytes) -> list[bytes]:
    """The marker as it would look raw, in hex, or within base64 at each of its three alignments."""
    found = [marker, marker.hex().encode(), marker.hex().upper().encode()]
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + marker + bytes(2))
        # The characters that depend on the marker alone: the neighbours' bits are in the first and last ones.
        found.append(coded[-(-8 * shift // 6) : (8 * (shift + len(marker))) // 6])
    return [*found, *(f.replace(b"+", b"-").replace(b"/", b"_") for f in found[3:])]


def told(text: bytes, marker: bytes) -> bool:
    """Whether the text has the marker in any disguise."""
    return any(form in text for form in disguises(marker))


def volume_tells(volume: str, marker: bytes) -> list[str]:
    """Files of a volume that have the marker in any disguise."""
    patterns = [word for form in disguises(marker) for word in ("-e", form.decode())]
    command = (
        "docker", "run", "--rm", "--network", "none", "--user", "0", "--volume", f"{volume}:/v:ro", "--entrypoint", "grep",
        "edgora-node", "--recursive", "--files-with-matches", "--text", "--fixed-strings", *patterns, "/v",
    )  # fmt: skip
    done = run(*command, check=False)
    assert done.returncode in {0, 1}, done.stderr.decode()  # 2: grep could not read something
    return done.stdout.decode().split()
