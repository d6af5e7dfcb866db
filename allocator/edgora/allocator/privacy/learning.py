"""Training and evaluation: `edgora train privacy`, `edgora evaluate privacy` (README.md 2, privacy.md 8).

Settings of a run are those of an instance and the algorithm's own options, in one namespace; `slots` is the length of
training, or in an evaluation the counted slots of each copy. One miner with one stream is evaluated exactly, so seeds
make no difference and intervals are null; otherwise each seed is `copies` systems on its own draws, and random and
lookahead play the same draws. A learner that is named instead of its file plays the weights that ship with the package,
where there are any for N and M, else what it learns in the instance's slots.
"""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, cast

import msgspec
import numpy as np

from edgora.allocator.files import read_settings
from edgora.allocator.learn.intervals import mean, ratio
from edgora.allocator.learn.problem import Evaluation, Note, Progress, Proposer, Statistic, Stopped, Trained
from edgora.allocator.learn.run import Run
from edgora.allocator.privacy import evaluation
from edgora.allocator.privacy.evaluation import Played, decisions, exactly, is_exact, play
from edgora.allocator.privacy.instance import DrawSettings, Instance, draw
from edgora.allocator.privacy.policies import Policy, Uniform, lookahead
from edgora.allocator.privacy.problem import LEARNERS, PRIVACY, SOLVERS, planned, trainable
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.solution import SCORED_STREAMS, copies_of
from edgora.allocator.privacy.trained import load, shipped
from edgora.allocator.privacy.training import Learner
from edgora.allocator.search import Search
from edgora.allocator.solvers import Traced
from edgora.wire.errors import NotFound, Refused

__all__ = ["LEARNING", "PrivacyLearning"]

BUDGET_S = 60.0
"""What a user's policy is given to prepare itself."""


class _Evaluated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of an evaluation that are not an instance's."""

    copies: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    """Systems side by side for each seed; none: 128, fewer for more than ten miners."""
    settling: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = evaluation.SETTLING
    """Slots before counting starts."""


class PrivacyLearning:
    """See `learn.problem.Learning`."""

    algorithms = tuple(sorted(LEARNERS))

    def train(
        self, algo: str, out: Path, seed: int, settings: Mapping[str, object], note: Note, stopped: Stopped
    ) -> Trained:
        place = LEARNERS.get(algo)
        if place is None:
            raise NotFound(f"privacy has no algorithm {algo!r}: use one of {', '.join(self.algorithms)}", field="algo")
        module, _, attribute = place.partition(":")
        kind: type[msgspec.Struct] = getattr(importlib.import_module(module), attribute)
        given = dict(settings)
        tensorboard = given.pop("tensorboard", False)
        if not isinstance(tensorboard, bool):
            raise Refused(f"tensorboard is {tensorboard!r}: must be true or false", field="tensorboard")
        about_instance, options = _split(given, kind, f"privacy algorithm {algo}")
        instance = draw(0, about_instance)
        learner = cast(Learner, read_settings(options, kind, f"privacy algorithm {algo}"))
        if learner.slots is None:
            one, many = learner.default_slots
            learner = cast(Learner, msgspec.structs.replace(kind_of(learner), slots=one if instance.N == 1 else many))
        trainable(learner.libraries, algo, "algo")
        everything = {**_constants(instance), **msgspec.to_builtins(learner)}
        run = Run(
            out, "privacy", algo, seed, everything, learner.slots or instance.slots, note, stopped,
            tensorboard=tensorboard,
        )  # fmt: skip
        if not run.finished:
            learner.learn(instance, seed, run)
        return run.trained()

    def evaluate(
        self, policy: str | Proposer, seeds: range, settings: Mapping[str, object], trace: Path | None, note: Note
    ) -> Evaluation:
        began = time.process_time()
        instance, about, about_instance = _evaluation(seeds, settings)
        slots = instance.slots if "slots" in about_instance else evaluation.SLOTS
        name, chosen = _named(policy, instance)
        copies = about.copies or copies_of(instance)
        if is_exact(instance):
            averages = exactly(decisions(chosen, instance), instance)
            floor, best = evaluation.score(instance, seeds[0])
            metrics = {
                "reward": averages.reward, "privacy": averages.privacy, "cost": averages.cost,
                "energy_mj": 1e3 * averages.energy, "latency_ms": 1e3 * averages.latency,
            }  # fmt: skip
            found = {key: Statistic(value, None, None) for key, value in metrics.items()}
            worth: Statistic | None = Statistic((averages.reward - floor) / (best - floor), None, None)
            scale, slots = {"random": floor, "best": best}, 0
        else:
            rows: dict[str, list[float]] = {}
            floors: list[float] = []
            bests: list[float] = []
            scored = instance.M <= SCORED_STREAMS and instance.tabular
            for done, seed in enumerate(seeds):
                run = play(chosen, instance, seed, copies=copies, slots=slots, settling=about.settling)
                for key, value in _metrics(run, instance).items():
                    rows.setdefault(key, []).append(value)
                if scored:
                    for reference, values in ((Uniform(seed), floors), (lookahead(instance), bests)):
                        other = play(reference, instance, seed, copies=copies, slots=slots, settling=about.settling)
                        values.append(other.averages.reward)
                note(Progress(done + 1, len(seeds), {"reward": run.averages.reward}))
            found = {key: mean(values) for key, values in rows.items()}
            worth, scale = None, {}
            if scored:
                low, high = np.array(floors), np.array(bests)
                worth = ratio(np.array(rows["reward"]) - low, high - low)
                scale = {"random": float(low.mean()), "lookahead": float(high.mean())}
        if trace is not None:
            evaluation.trace(chosen, instance, seeds[0], instance.slots if "slots" in about_instance else 1000, trace)
        return Evaluation(
            problem="privacy", policy=name, seeds=(seeds[0], seeds[-1]), slots=slots * copies,
            settings={**_constants(instance), "copies": copies, "settling": about.settling}, metrics=found, score=worth,
            scale=scale, decision_ms=_decision_ms(chosen, instance), cpu_s=round(time.process_time() - began, 3),
            trace=None if trace is None else str(trace),
        )  # fmt: skip

    def check_evaluation(self, policy: str | Proposer, seeds: range, settings: Mapping[str, object]) -> None:
        instance, _, _ = _evaluation(seeds, settings)
        if not isinstance(policy, str) or policy not in SOLVERS:
            _named(policy, instance)
        elif policy in LEARNERS and shipped(policy, instance) is None:  # it learns first; that is the evaluation's
            _solver(policy)


def _evaluation(seeds: range, settings: Mapping[str, object]) -> tuple[Instance, _Evaluated, dict[str, object]]:
    """The instance, the evaluation's own settings, and those that the instance was drawn with."""
    if len(seeds) == 0:
        raise Refused("seeds: at least one is needed", field="seeds")
    about_instance, options = _split(dict(settings), _Evaluated, "privacy evaluation")
    about = read_settings(options, _Evaluated, "privacy evaluation") if options else _Evaluated()
    return draw(seeds[0], about_instance), about, about_instance


def kind_of(learner: Learner) -> msgspec.Struct:
    """A learner is the Struct of its options."""
    assert isinstance(learner, msgspec.Struct)
    return learner


def _split(
    given: Mapping[str, object], kind: type[msgspec.Struct], what: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Settings of the instance and of the rest; `slots` may be of both. Unknown keys are refused with all that is known."""
    of_instance = {field.encode_name for field in msgspec.structs.fields(DrawSettings)}
    of_kind = {field.encode_name for field in msgspec.structs.fields(kind)}
    for key in given:
        if key not in of_instance | of_kind:
            detail = f"{what}: {key} is not known; keys it takes: {', '.join(sorted(of_instance | of_kind))}"
            raise Refused(detail, field=key)
    return (
        {key: value for key, value in given.items() if key in of_instance},
        {key: value for key, value in given.items() if key in of_kind},
    )


def _constants(instance: Instance) -> dict[str, object]:
    said = cast(dict[str, object], msgspec.to_builtins(instance.params))
    return {"N": instance.N, "M": instance.M, "beta": instance.beta, "w_P": instance.w_P, **said}


def _named(policy: str | Proposer, instance: Instance) -> tuple[str, Policy]:
    if not isinstance(policy, str):
        name = f"{type(policy).__module__}:{type(policy).__qualname__}"
        try:
            return name, planned(PRIVACY.foreign(policy.propose(instance, BUDGET_S), instance))
        except Refused as error:
            raise Refused(f"policy {name} {error.detail}", field="--policy") from error
        except Exception as error:
            raise Refused(f"policy {name} raised {type(error).__name__}: {error}", field="--policy") from error
    if policy in LEARNERS and (ready := shipped(policy, instance)) is not None:
        return policy, ready
    if policy in SOLVERS:
        return policy, planned(PRIVACY.search(_solver(policy), instance, Search(instance.seed or 0)))
    path = Path(policy)
    if not path.is_file():
        known = ", ".join(PRIVACY.solvers)
        raise NotFound(f"no policy {policy!r}: give a policy.npz, module:object, or one of {known}", field="policy")
    return policy, load(path, instance)[0]


def _solver(policy: str) -> Traced:
    """A solver by its name. Raises Refused where it has to learn first and cannot."""
    try:
        return PRIVACY.solver(policy, {})
    except Refused as error:
        raise Refused(error.detail, field="policy", fix=error.fix) from None


def _metrics(played: Played, instance: Instance) -> dict[str, float]:
    a = played.averages
    return {
        "reward": a.reward, "privacy": a.privacy, "cost": a.cost, "energy_mj": 1e3 * a.energy,
        "latency_ms": 1e3 * a.latency, "power_w": played.power,
        "table_cost": instance.beta * played.power + (1.0 - instance.beta) * 1e3 * a.latency,
        "late": float(played.late), "backlogged": played.backlogged,
    }  # fmt: skip


def _decision_ms(policy: Policy, instance: Instance, count: int = 50) -> float:
    simulation = Simulation(instance, 1, instance.seed or 0)
    policy.act(simulation.state)
    began = time.process_time()
    for _ in range(count):
        simulation.step(policy.act(simulation.state))
    whole = time.process_time() - began
    x = policy.act(simulation.state)
    began = time.process_time()
    for _ in range(count):
        simulation.step(x)
    return max(0.0, 1e3 * (whole - (time.process_time() - began)) / count)


LEARNING = PrivacyLearning()
