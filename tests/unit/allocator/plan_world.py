"""Plan requests for tests."""

from typing import Any

import numpy as np

from edgora.allocator.plan_files import PlanRequest, PlanServer, PlanUser


def address(i: int) -> str:
    return f"0x{i + 1:040x}"


def user(i: int, position: tuple[float, float], **changes: Any) -> PlanUser:
    given: dict[str, Any] = {
        "bits": 160_000.0, "fuel": 1_000_000.0, "output_bits": 56_000.0, "splittable": True, "clock": 10_000_000,
        "compute_w": 0.1, "power_w": 0.2,
    }  # fmt: skip
    return PlanUser(ue=address(i), position_m=position, **{**given, **changes})


def server(i: int, position: tuple[float, float], **changes: Any) -> PlanServer:
    given: dict[str, Any] = {
        "speed": 40_000_000 + 10_000_000 * i, "slots": 2, "uplink": 12_500_000, "bandwidth_hz": 2e7, "power_w": 10.0,
        "compute_w": 40.0,
    }  # fmt: skip
    return PlanServer(id=i, position_m=position, **{**given, **changes})


def request(policy: str, users: int = 6, servers: int = 3, seed: int = 1, **changes: Any) -> PlanRequest:
    """UEs and servers anywhere in a square of 400 m, all asking the same of them."""
    draw = np.random.default_rng(seed)
    places = [(float(x), float(y)) for x, y in draw.uniform(0, 400, (users + servers, 2))]
    return PlanRequest(
        policy=policy, seed=seed, users=tuple(user(i, places[i]) for i in range(users)),
        servers=tuple(server(i, places[users + i]) for i in range(servers)), **changes,
    )  # fmt: skip
