"""The embedded platform with its board, as the browser's tests and the pictures of docs/board.md use it. No pytest in here."""

from pathlib import Path
from typing import Any

import httpx2

from edgora.adapters.loopback import free_port
from edgora.ue.fleet import run_fleet
from edgora.ue.plan import draw_arrivals
from edgora.ue.records import FleetRun
from embedded import Embedded

SHOTS = Path(__file__).parents[1] / "run" / "browser"
"""Where pictures are kept; not under version control."""
SCENARIO = (
    "name=browser", "seed=11", "fleet.ues=4", "fleet.tasks=10", "fleet.rate_per_s=4", "plan.cancelled=1", "plan.expired=0",
    "market.audit_bps=5000",
)  # fmt: skip


class BoardPlatform(Embedded):
    """An embedded platform with a board, and what a fleet did on it."""

    def __init__(self, *settings: str, **how: Any) -> None:
        super().__init__(*SCENARIO, *settings, board=free_port(), **how)
        self.fleet: FleetRun | None = None

    @property
    def url(self) -> str:
        """The board's page."""
        assert self.cluster.board_url is not None
        return self.cluster.board_url

    def play(self, timeout_s: float = 240) -> FleetRun:
        """The scenario's fleet, until each of its tasks has ended; it stays at `fleet`."""
        scenario = self.cluster.scenario
        arrivals = draw_arrivals(scenario.fleet, scenario.plan, scenario.seed)
        self.fleet = self.run(
            run_fleet(
                scenario.fleet, arrivals, scenario.seed, self.cluster.urls, self.cluster.places,
                genesis_id=self.genesis_id,
            ), timeout_s,
        )  # fmt: skip
        return self.fleet

    def json(self, path: str, node: int = 0) -> Any:
        """What a node says: the truth that a view is compared with."""
        answer = self.get(path, node)
        answer.raise_for_status()
        return answer.json()

    def board(self) -> Any:
        """What the board tells its page."""
        answer = httpx2.get(f"{self.url}/board.json", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def break_node(self, index: int, act: str) -> None:
        """Kill, pause, cut off or heal it, through the board's fault panel; the scenario must allow it."""
        order = {"node": index, "act": act}
        answer = httpx2.post(f"{self.url}/faults", json=order, headers={"X-Edgora-Board": "1"}, timeout=60)
        answer.raise_for_status()

    def stop_node(self, index: int) -> None:
        self.run(self.cluster.nodes[index].stop())

    def start_node(self, index: int) -> None:
        """Start a stopped node again over its own folder."""
        self.cluster.nodes[index] = self.run(self.cluster.start_node(index))
