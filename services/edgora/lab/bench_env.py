"""How fast the learners' environments step: `edgora bench env`.

A slot is one copy's step, observations included, with actions drawn beforehand. The figure is the best of several short
bursts in CPU seconds of this process, one thread: what the code can do, not how busy the machine was.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

__all__ = ["Speed", "measure_environments"]

BURST_S = 0.15
"""CPU seconds of a burst, roughly."""
BURSTS = 8
ACTIONS = 16
"""Batches of actions drawn beforehand and used in turn."""


class Case(NamedTuple):
    env: str
    module: str
    settings: dict[str, object]
    batch: int
    goal: float | None
    """Slots per second."""


CASES = (
    Case("edgora/BaaS-v0", "edgora.allocator.baas.env", {"U": 20, "M": 10}, 512, 600_000.0),
    Case("edgora/BaaS-v0", "edgora.allocator.baas.env", {"U": 1000, "M": 100}, 16, 30_000.0),
    Case("edgora/Privacy-v0", "edgora.allocator.privacy.env", {}, 1024, 5_000_000.0),
    Case("edgora/Privacy-v0", "edgora.allocator.privacy.env", {"N": 5, "M": 2}, 128, None),
    Case("edgora/Privacy-v0", "edgora.allocator.privacy.env", {}, 1, None),
)


class Speed(msgspec.Struct, frozen=True):
    """One environment at one batch size."""

    env: str
    settings: dict[str, object]
    batch: int
    slots_per_s: float
    goal: float | None
    reached: bool | None


def measure_environments(note: Callable[[str], None], only: str = "") -> Iterator[Speed]:
    """Every case, or those of one environment; the vectorised form in one process."""
    import importlib

    import gymnasium

    for case in (case for case in CASES if only in {"", case.env}):
        importlib.import_module(case.module)  # registers the id
        shown = " ".join(f"{key}={value}" for key, value in case.settings.items())
        note(f"{case.env} {shown} batch {case.batch} ...")
        settings: dict[str, Any] = dict(case.settings)
        env = gymnasium.make_vec(case.env, num_envs=case.batch, vectorization_mode="vector_entry_point", **settings)
        rate = _rate(env)
        yield Speed(
            case.env, case.settings, case.batch, rate, case.goal, None if case.goal is None else rate >= case.goal
        )


def _rate(env: Any) -> float:
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(ACTIONS)]
    env.step(actions[0])
    steps, best = ACTIONS, 0.0
    for _ in range(BURSTS):
        began = time.process_time()
        for k in range(steps):
            env.step(actions[k % ACTIONS])
        spent = max(time.process_time() - began, 1e-9)
        best = max(best, steps * env.num_envs / spent)
        steps = max(ACTIONS, int(steps * BURST_S / spent))
    return best
