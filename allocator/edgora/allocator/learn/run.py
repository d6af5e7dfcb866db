"""The folder of one training run, and how a run survives being killed.

    policy.npz       the trained policy; there only when the run is finished
    log.jsonl        one line a logged moment
    checkpoint.npz   everything that the rest of the run depends on

Rule 1: a checkpoint is written whole or not at all, and remembers how long the log was. A resumed run cuts the log
back to there, so it holds every moment once, and goes on from the checkpoint's own generators: the weights are those of
a run that was never interrupted.
Rule 2: a folder belongs to one run. Another algorithm, seed or settings is refused; the same finished run is returned.

A learner uses it so:

    run = Run(out, "baas", "ddqn", seed, settings, total, note, stopped)
    if run.finished: return run.trained()
    if run.checkpoint: restore(run.checkpoint.arrays, run.checkpoint.state)
    while slot < total and not run.over(slot, updates, save):   # saves now and then, and when it is stopped
        ...
        run.log(slot, updates, {...})
    return run.finish(slot, updates, arrays, header, save) if slot >= total else run.trained()
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.learn.problem import Note, Progress, Stopped, Trained
from edgora.allocator.learn.weights import Arrays, read, write
from edgora.wire.errors import Refused

__all__ = ["CHECKPOINT_S", "Checkpoint", "Run", "Tally"]

CHECKPOINT_S = 5.0
"""CPU seconds between two checkpoints."""


class Checkpoint(NamedTuple):
    arrays: dict[str, NDArray[Any]]
    state: dict[str, Any]
    """JSON: counters and generators' states."""


Save = Callable[[], tuple[Arrays, Mapping[str, object]]]
"""Everything that the rest of the run depends on, as arrays and JSON."""


class _Scalars(Protocol):
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def close(self) -> None: ...


class Run:
    """One run's folder."""

    def __init__(
        self, out: Path, problem: str, algo: str, seed: int, settings: Mapping[str, object], total: int, note: Note,
        stopped: Stopped, *, tensorboard: bool = False, checkpoint_s: float = CHECKPOINT_S,
    ) -> None:  # fmt: skip
        """`settings` are all of the run's, defaults included. Raises Refused for a folder that cannot be used."""
        self._out, self._total, self._note, self._stopped = out, total, note, stopped
        self._problem, self._algo, self._seed, self._settings = problem, algo, seed, dict(settings)
        self._checkpoint_s = checkpoint_s
        self._figures: dict[str, float] = {}
        self._done = self._updates = 0
        self._before_s = 0.0
        self.finished = False
        self._logged = 0
        self.checkpoint: Checkpoint | None = None
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"--out {out} cannot be made: {error}", field="--out") from None
        held = self._checkpoint_path.exists()
        if held:
            self._adopt()
        elif self._policy_path.exists():
            raise Refused(f"--out {out} holds a policy of another run: choose an empty folder", field="--out")
        self._scalars = (
            _tensorboard(out, self._done + 1 if held else None) if tensorboard and not self.finished else None
        )
        try:
            self._log = self._log_path.open("ab" if held else "wb")
        except OSError as error:
            raise Refused(f"--out {out} cannot be written: {error}", field="--out") from None
        self._log.truncate(self._logged)
        self._log.seek(self._logged)  # else a checkpoint before the next line would remember the length of before
        self._began_s = self._saved_s = time.process_time()

    @property
    def _checkpoint_path(self) -> Path:
        return self._out / "checkpoint.npz"

    @property
    def _policy_path(self) -> Path:
        return self._out / "policy.npz"

    @property
    def _log_path(self) -> Path:
        return self._out / "log.jsonl"

    def _adopt(self) -> None:
        arrays, state = read(self._checkpoint_path, "checkpoint")
        mine = json.loads(json.dumps(self._identity()))
        run = state.get("run", {})
        if run.get("identity") != mine:
            was = run.get("identity", {})
            detail = (
                f"--out {self._out} holds a run of {was.get('algo')} with seed {was.get('seed')} and other settings"
            )
            same = was.get("algo") == mine["algo"] and was.get("seed") == mine["seed"]
            if same and isinstance(was.get("settings"), dict):
                other = [key for key in mine["settings"] if was["settings"].get(key) != mine["settings"][key]]
                detail += f" ({', '.join(other)})"
            raise Refused(f"{detail}: choose another folder", field="--out")
        self.checkpoint = Checkpoint(arrays, state)
        self.finished = bool(run["finished"]) and self._policy_path.exists()
        self._done, self._updates, self._before_s = run["done"], run["updates"], run["cpu_s"]
        self._logged, self._figures = run["log"], run["figures"]

    def _identity(self) -> dict[str, object]:
        return {"problem": self._problem, "algo": self._algo, "seed": self._seed, "settings": self._settings}

    def log(self, done: int, updates: int, figures: Mapping[str, float]) -> None:
        """A line in the log, and progress to whoever listens; `done` slots are behind us."""
        self._done, self._updates, self._figures = done, updates, dict(figures)
        line = {"slot": done, "updates": updates, **figures, "cpu_s": round(self._cpu_s(), 3)}
        self._log.write(msgspec.json.encode(line) + b"\n")
        self._log.flush()
        if self._scalars is not None:
            for name, value in figures.items():
                self._scalars.add_scalar(name, value, done)
        self._note(Progress(done, self._total, self._figures))

    def over(self, done: int, updates: int, save: Save) -> bool:
        """Whether to end here: asked at every step. Writes a checkpoint now and then, and before a stop."""
        self._done, self._updates = done, updates
        stopped = self._stopped()
        if stopped or time.process_time() - self._saved_s >= self._checkpoint_s:
            self._save(save)
        return stopped

    def finish(
        self, done: int, updates: int, arrays: Arrays, header: Mapping[str, object], save: Save
    ) -> Trained:  # fmt: skip
        """Write the policy. Its header names the run, so that a policy alone says where it comes from.

        The checkpoint comes first: killed between both, the run is found again and writes its policy.
        """
        self._done, self._updates = done, updates
        self.finished = True
        self._save(save)
        write(self._policy_path, arrays, {"problem": self._problem, **header, "run": self._identity()})
        return self.trained()

    def trained(self) -> Trained:
        """Close the folder and say what is there."""
        self._log.close()
        if self._scalars is not None:
            self._scalars.close()
        return Trained(
            problem=self._problem, algo=self._algo, seed=self._seed, settings=self._settings, slots=self._done,
            updates=self._updates, finished=self.finished, policy=str(self._policy_path) if self.finished else None,
            cpu_s=round(self._cpu_s(), 3), figures=self._figures,
        )  # fmt: skip

    def _cpu_s(self) -> float:
        return self._before_s + time.process_time() - self._began_s

    def _save(self, save: Save) -> None:
        arrays, state = save()
        run = {
            "identity": self._identity(), "log": self._log.tell(), "finished": self.finished, "done": self._done,
            "updates": self._updates, "cpu_s": self._cpu_s(), "figures": self._figures,
        }  # fmt: skip
        write(self._checkpoint_path, arrays, {**state, "run": run})
        self._saved_s = time.process_time()


class Tally:
    """A mean of what came since it was last taken; its state goes into checkpoints."""

    def __init__(self) -> None:
        self.state = [0.0, 0]

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        self.state = [self.state[0] + float(values.sum()), self.state[1] + values.size]

    def take(self) -> float:
        total, count = self.state
        self.state = [0.0, 0]
        return total / count if count else 0.0


def _tensorboard(out: Path, purge_step: int | None) -> _Scalars:
    """A writer of scalars; where a run goes on from a checkpoint, readers forget what came after that."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        missing = (error.name or "tensorboard").partition(".")[0]
        detail = f"tensorboard=true needs the library {missing}"
        fix = 'pip install "edgora[learn]" tensorboard' if missing == "torch" else "pip install tensorboard"
        raise Refused(detail, field="tensorboard", fix=fix) from None
    writer: _Scalars = SummaryWriter(str(out / "tensorboard"), purge_step=purge_step)
    return writer
