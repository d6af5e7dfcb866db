"""Plant known bugs into the ledger core and see whether the simulator finds them (ledger.md 19, mutation power).

    python tests/sim/mutants.py [--json] [--only NAME,...] [--jobs N] [--scenarios N] [--seeds N]

A mutant is a substitution in the source text of one module, made as that module is imported in a process of its own;
the product's files are never touched. A mutant counts as caught when a generator reports any finding. As a control, the
core as it stands must pass the very schedules that caught the mutants, and the first ones of each generator.

Exit codes: 0 every mutant caught and the control clean, 1 otherwise, 2 a substitution no longer fits the source.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from mutations import MUTANTS, Mutant

SEED, SCENARIO = "seed", "scenario"


class Found(NamedTuple):
    """Which schedule caught a mutant, and how long it took to get there."""

    generator: str
    number: int
    rule: str
    detail: str
    tried: int
    seconds: float


# ---- planting --------------------------------------------------------------------------------------------------------


class _Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutated modules from changed source text."""

    def __init__(self, mutant: Mutant) -> None:
        self._edits = mutant.edits
        self._names = {edit.module for edit in mutant.edits}

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None):
        if fullname not in self._names:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert found is not None
        assert found.origin is not None
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        assert module.__spec__.origin is not None
        source = Path(module.__spec__.origin).read_text()
        for edit in self._edits:
            if edit.module == module.__name__:
                if source.count(edit.old) != 1:
                    sys.stderr.write(
                        f"{edit.module}: the text to change stands there {source.count(edit.old)} times: {edit.old!r}\n"
                    )
                    os._exit(2)
                source = source.replace(edit.old, edit.new)
        exec(compile(source, module.__spec__.origin, "exec"), module.__dict__)


# ---- hunting, inside the process of one mutant -----------------------------------------------------------------------


def _order(scenarios: int, seeds: int) -> Iterator[tuple[str, int]]:
    """Cheap schedules first, but both generators early."""
    cuts = [(0, min(300, scenarios), 0, min(40, seeds)), (300, scenarios, 40, seeds)]
    for low, high, first, last in cuts:
        yield from ((SCENARIO, i) for i in range(low, high))
        yield from ((SEED, i) for i in range(first, last))


def _hunt(name: str, scenarios: int, seeds: int) -> None:
    """Run schedules against one mutant until something is found; prints one JSON line."""
    mutant = next(m for m in MUTANTS if m.name == name)
    sys.meta_path.insert(0, _Planter(mutant))
    from edgora.lab.sim import campaign
    from edgora.lab.sim.options import expand

    started = time.perf_counter()
    found = None
    order = list(_order(scenarios, seeds))
    if mutant.first == SEED:
        order.sort(key=lambda x: (x[1] // 40, x[0] != SEED))
    if mutant.liar:
        order.sort(key=lambda x: x[0] != SEED or mutant.liar not in expand(x[1]).behaviours)
    for tried, (generator, number) in enumerate(order, 1):
        outcome = campaign.run_job(campaign.Job(generator, number))
        if outcome.rule:
            detail = outcome.detail.strip().splitlines()[-1]
            found = Found(generator, number, outcome.rule, detail, tried, time.perf_counter() - started)
            break
    json.dump(None if found is None else found._asdict(), sys.stdout)


# ---- the table -------------------------------------------------------------------------------------------------------


def hunt(mutant: Mutant, scenarios: int, seeds: int) -> Found | None:
    """Catch one mutant in a process of its own. Raises ValueError if it no longer fits the source."""
    command = [sys.executable, __file__, "--hunt", mutant.name, "--scenarios", str(scenarios), "--seeds", str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{mutant.name}: {done.stderr.strip()[-400:]}")
    found = json.loads(done.stdout)
    return None if found is None else Found(**found)


def control(numbers: Sequence[tuple[str, int]], workers: int) -> list[str]:
    """Commands of those schedules on which the core as it stands has a finding."""
    from edgora.lab.sim import campaign

    work = [campaign.Job(generator, number) for generator, number in numbers]
    return [o.job.command() for o in campaign.campaign(work, workers) if o.rule]


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant known bugs into the ledger core; the simulator must find them.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="comma-separated names")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--scenarios", type=int, default=10_000, help="scenarios that each mutant may take")
    parser.add_argument("--seeds", type=int, default=2_000, help="long schedules that each mutant may take")
    parser.add_argument("--hunt", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hunt:
        _hunt(options.hunt, options.scenarios, options.seeds)
        return 0
    chosen = [m for m in MUTANTS if not options.only or m.name in options.only.split(",")]
    rows: list[tuple[Mutant, Found | None]] = []
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            for mutant, found in zip(
                chosen, pool.map(lambda m: hunt(m, options.scenarios, options.seeds), chosen), strict=True
            ):
                rows.append((mutant, found))
                caught = (
                    "NOT CAUGHT"
                    if found is None
                    else f"{found.rule} by {found.generator} {found.number}, {found.seconds:.1f} s"
                )
                sys.stderr.write(f"{mutant.name}: {caught}\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    checked = sorted(
        {(f.generator, f.number) for _, f in rows if f}
        | {(SCENARIO, i) for i in range(200)}
        | {(SEED, i) for i in range(20)}
    )
    unclean = control(checked, options.jobs)
    if options.json:
        json.dump(
            {
                "mutants": [
                    {"name": m.name, "what": m.what, **(f._asdict() if f else {"generator": None})} for m, f in rows
                ],
                "control": {"schedules": len(checked), "findings": unclean},
            },
            sys.stdout,
            indent=2,
        )
    else:
        print(f"{'mutant':28} {'caught by':18} {'breaks':7} {'tried':>6} {'seconds':>8}")
        for mutant, found in rows:
            where = "-" if found is None else f"{found.generator} {found.number}"
            figures = ("", "", "") if found is None else (found.rule, str(found.tried), f"{found.seconds:.1f}")
            print(f"{mutant.name:28} {where:18} {figures[0]:7} {figures[1]:>6} {figures[2]:>8}")
        print(f"control: {len(checked)} schedules on the core as it stands, {len(unclean)} with a finding")
        for command in unclean:
            print(f"  {command}")
    return 1 if unclean or any(found is None for _, found in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
