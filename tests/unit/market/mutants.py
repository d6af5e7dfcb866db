"""Planted bugs that J1-J8 must catch (market.md 10): `python tests/unit/market/mutants.py [name ...]`.

Each mutant is a change of one module's source, made while that module is imported in a process of its own; then the
seeded load runs against the changed market with `invariants.Watch` after every block, and nothing else: no model, no
directed test. A mutant is killed if a watched run finds something; the sound market must survive all of them.
Exit code 1 if any mutant survives or the sound market is accused.
"""

import importlib.abc
import importlib.machinery
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SEEDS = range(1, 9)
BLOCKS = 160


class Mutant(NamedTuple):
    module: str
    old: str
    new: str


MUTANTS = {
    "room not reduced": Mutant(
        "edgora.market.lifecycle", "replace(server, used=server.used + weight)", "replace(server, used=server.used)"
    ),
    "room of a plan not reduced": Mutant(
        "edgora.market.rules", "room[i] -= table.weight[j][i]", "room[i] -= 0"
    ),
    "value unchecked": Mutant("edgora.market.rules", "if value != from_u128(allocation.value):", "if False:"),
    "greedy floor off": Mutant(
        "edgora.market.rules", "if value * BASIS_POINTS < floor_bps * greedy_value:", "if False:"
    ),
    "late paid": Mutant(
        "edgora.market.audit", "in_time = result.done_ms <= task.offer.deadline_ms", "in_time = True"
    ),
    "audit minority paid": Mutant("edgora.market.audit", "if len(agreeing) > core.f:", "if len(agreeing) >= 1:"),
    "reserved not freed": Mutant(
        "edgora.market.lifecycle", "reserved=account.reserved - maximum(offer)", "reserved=account.reserved"
    ),
    "lambda dust lost": Mutant(
        "edgora.wire.settlement", "return Wei(fee), Wei(wei - fee)",
        "return Wei(fee), Wei(wei * (BASIS_POINTS - lambda_bps) // BASIS_POINTS)",
    ),
    "expired left open": Mutant(
        "edgora.market.core", "return max(0, offer.deadline_ms - self.params.slack_ms - least) + 1", "return None"
    ),
    "one Held enough": Mutant("edgora.market.checks", "if len(seen) < core.f + 1:", "if len(seen) < 1:"),
    "batch not frozen": Mutant("edgora.market.settlement", "    if reason is None:\n        return\n", "    return\n"),
}  # fmt: skip


class _Patcher(importlib.machinery.PathFinder):
    """Finds the mutated module where it is and compiles it with the change."""

    mutant: Mutant

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        spec = super().find_spec(fullname, path, target)
        if fullname == cls.mutant.module and spec is not None:
            source = Path(spec.origin).read_text()
            if cls.mutant.old not in source:
                raise SystemExit(f"the mutant's source is not there any more: {cls.mutant.old!r}")
            spec.loader = _Loader(spec.origin, source.replace(cls.mutant.old, cls.mutant.new))
        return spec


class _Loader(importlib.abc.SourceLoader):
    def __init__(self, origin: str, source: str) -> None:
        self._origin, self._source = origin, source

    def get_filename(self, fullname):
        return self._origin

    def get_data(self, path):
        return self._source.encode()

    def path_stats(self, path):
        raise OSError("never from a cache")


def attack(name: str) -> str | None:
    """What the watched load finds wrong with this mutant (or with the sound market, for ""); None: nothing."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if name:
        _Patcher.mutant = MUTANTS[name]
        sys.meta_path.insert(0, _Patcher)
    from unit.market.test_market_machine import run

    for seed in SEEDS:
        try:
            run(seed, BLOCKS, with_model=False)
        except AssertionError as found:
            sentence = str(found).splitlines()[0] if str(found) else "an assertion failed"
            return f"seed {seed}: {sentence}"
    return None


def in_process_of_its_own(name: str) -> tuple[bool, str]:
    """(whether something was found, what) for a mutant; "" is the sound market."""
    done = subprocess.run([sys.executable, __file__, "--attack", name], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 3}:
        raise RuntimeError(f"the run against {name or 'the sound market'!r} broke down: {done.stderr.strip()}")
    return done.returncode == 3, done.stdout.strip()


def main(names: list[str]) -> int:
    bad = 0
    for name in names or ["", *MUTANTS]:
        found, what = in_process_of_its_own(name)
        expected = bool(name)
        verdict = ("killed" if found else "survived") if name else ("accused" if found else "sound")
        print(f"{name or 'no mutant':28} {verdict:9} {what}", flush=True)
        bad += found != expected
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        verdict = attack(sys.argv[2])
        print(verdict or "nothing found")
        raise SystemExit(3 if verdict else 0)
    raise SystemExit(main(sys.argv[1:]))
