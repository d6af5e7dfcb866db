"""Training and evaluation of BaaS: what `edgora train baas` and `edgora evaluate baas` call.

Each algorithm is one file of this room with `ARGUMENTS`, an immutable record of its options, and `train`. Settings are
split by name: the environment's params to the environment, all others to the algorithm.
"""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from edgora.allocator.baas import evaluate as evaluation
from edgora.allocator.baas.instance import of_slots
from edgora.allocator.baas.learned import load_policy
from edgora.allocator.baas.model import Choice, Slots
from edgora.allocator.baas.params import Params, split
from edgora.allocator.baas.params import read as read_params
from edgora.allocator.baas.policies import SOLVERS, Policy
from edgora.allocator.baas.solution import plan
from edgora.allocator.files import number, read_settings
from edgora.allocator.learn.problem import Evaluation, Note, Progress, Proposer, Stopped, Trained
from edgora.wire.errors import NotFound, Refused

__all__ = ["ALGORITHMS", "LEARNING", "BaasLearning"]

_ROOM = "edgora.allocator.baas"
ALGORITHMS: Mapping[str, str] = {
    "pair-q": f"{_ROOM}.pair_q",
    "struct-ddqn": f"{_ROOM}.struct_ddqn",
    "qlearning": f"{_ROOM}.qlearning",
    **dict.fromkeys(
        ("dqn", "ddqn", "dqn-no-alloc", "dqn-no-select", "ddqn-no-alloc", "ddqn-no-select"), f"{_ROOM}.ddqn"
    ),
}
"""Where each algorithm lives."""

_BUDGET_S = 1.0
"""budget_s that an evaluated user's policy is told, for each slot."""
_NOTE_S = 1.0


class EvaluateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edgora evaluate baas --set` takes beside the params."""

    slots: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    """Slots of each seed; without it one episode."""
    policy_seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of policies that draw."""


class BaasLearning:
    """See `learn.problem.Learning`."""

    algorithms = tuple(sorted(ALGORITHMS))

    def train(
        self, algo: str, out: Path, seed: int, settings: Mapping[str, object], note: Note, stopped: Stopped
    ) -> Trained:
        place = ALGORITHMS.get(algo)
        if place is None:
            raise NotFound(f"baas trains no {algo!r}: use one of {', '.join(self.algorithms)}", field="--algo")
        number("seed", seed, 0, 2**63 - 1)
        mine, theirs = split(settings)
        params = read_params(mine, f"baas train {algo}")
        try:
            module: Any = importlib.import_module(place)
        except ModuleNotFoundError as error:
            detail = f"training {algo} needs the library {error.name}: install edgora with its `learn` extra"
            raise Refused(detail, field="--algo", fix='pip install "edgora[learn]"') from None
        arguments = read_settings(theirs, module.ARGUMENTS, f"baas algorithm {algo}")
        trained: Trained = module.train(algo, params, arguments, seed, out, note, stopped)
        return trained

    def evaluate(
        self, policy: str | Proposer, seeds: range, settings: Mapping[str, object], trace: Path | None, note: Note
    ) -> Evaluation:
        began = time.process_time()
        params, slots, name, player = _evaluation(policy, seeds, settings)
        total, said = len(seeds) * slots, time.monotonic()

        def progress(done: int) -> None:
            nonlocal said
            if time.monotonic() - said >= _NOTE_S:
                said = time.monotonic()
                note(Progress(done, total, {}))

        rollout = evaluation.play(params, player, seeds, slots, trace=trace is not None, progress=progress)
        if trace is not None and rollout.trace is not None:
            try:
                evaluation.write_trace(trace, params, rollout.trace)
            except OSError as error:
                raise Refused(f"--trace {trace} cannot be written: {error}", field="--trace") from None
        measure = evaluation.scale(params, seeds, slots)
        return Evaluation(
            problem="baas", policy=name, seeds=(seeds[0], seeds[-1]), slots=slots, settings=dict(settings),
            metrics=rollout.statistics(), score=measure.score(rollout),
            scale={"random": float(measure.random.mean()), "bound": float(measure.bound.mean())},
            decision_ms=rollout.decision_ms, cpu_s=round(time.process_time() - began, 3),
            trace=None if trace is None else str(trace),
        )  # fmt: skip

    def check_evaluation(self, policy: str | Proposer, seeds: range, settings: Mapping[str, object]) -> None:
        _evaluation(policy, seeds, settings)


def _evaluation(
    policy: str | Proposer, seeds: range, settings: Mapping[str, object]
) -> tuple[Params, int, str, Policy]:
    """Params, slots of each seed, the policy's name, the policy."""
    mine, theirs = split(settings)
    params = read_params(mine, "baas evaluate")
    asked = read_settings(theirs, EvaluateSettings, "baas evaluate")
    if not len(seeds) or seeds.start < 0:
        raise Refused(f"seeds are {seeds.start}..{seeds.stop - 1}: must be a range of integers >= 0", field="--seeds")
    name, player = _player(policy, asked.policy_seed)
    return params, asked.slots or params.horizon, name, player


class _Foreign:
    """A user's policy, asked for each copy in turn with the slot as an instance."""

    def __init__(self, policy: Proposer, name: str) -> None:
        self._policy, self._name = policy, name

    def decide(self, slots: Slots) -> Choice:
        plans = []
        for copy in range(slots.copies):
            instance = of_slots(slots.of(copy))
            try:
                answer = self._policy.propose(instance, _BUDGET_S)
            except Exception as error:
                detail = f"policy {self._name} raised {type(error).__name__}: {error}"
                raise Refused(detail, field="--policy") from error
            plans.append(plan(answer.get("plan", answer) if isinstance(answer, Mapping) else answer, instance))
        return Choice(*(np.concatenate([getattr(p, name) for p in plans]) for name in ("assign", "request")))


def _player(policy: str | Proposer, seed: int) -> tuple[str, Policy]:
    if not isinstance(policy, str):
        name = f"{type(policy).__module__}:{type(policy).__qualname__}"
        return name, _Foreign(policy, name)
    if policy in SOLVERS:
        return policy, SOLVERS[policy]().policy(seed)
    path = Path(policy)
    if path.suffix != ".npz" and not path.exists():
        known = ", ".join(sorted(SOLVERS))
        raise NotFound(f"no policy {policy!r}: a policy.npz, module:object, or one of {known}", field="--policy")
    loaded = load_policy(path, seed)
    return loaded.name, loaded


LEARNING = BaasLearning()
