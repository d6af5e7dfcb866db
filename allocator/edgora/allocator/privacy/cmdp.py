"""CMDP, the paper's [28]: the least average cost with at least so much average privacy.

Where one miner's tables are known it is a linear program over occupancies o(s,x) >= 0, the share of slots in state s
with decision x:

    minimise sum o c   s. t.   sum o P >= floor,   sum_x o(s,x) = K^-1 sum over (g,level) of y(D0(s),g,level) T,
                               y(u) = sum of the o(s,x) that leave afterstate u,   sum o = 1

whose answer is a table of chances: at most one state is decided by a coin. Anywhere else the floor is kept by a
multiplier: Q-learning on  multiplier P - cost  while the multiplier rises with every slot below the floor, and falls
with every slot above it.

The floor is 0.88 of DRLO's privacy (privacy.md 4); unless given, 0.88 of what the discounted optimum that DRLO learns
reaches, one miner alone: 0.566 for one stream at beta 0.5 (section 6).
"""

from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from edgora.allocator.learn.run import Run
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.evaluation import is_exact
from edgora.allocator.privacy.exact import Miner, miner
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Floats
from edgora.allocator.privacy.policies import Plan, Table
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.trained import Streams, header
from edgora.allocator.privacy.training import WATCHED, learned, watch
from edgora.allocator.search import Found, Search
from edgora.wire.errors import Refused

__all__ = ["FLOOR_SHARE", "Cmdp", "cheapest", "default_floor"]

FLOOR_SHARE = 0.88

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Cmdp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of CMDP."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "highspy")
    kind: ClassVar[str] = "streams"
    algo: ClassVar[str] = "CMDP"
    default_slots: ClassVar[tuple[int, int]] = (10_000, 10_000)

    floor: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Least average privacy; none: 0.88 of the discounted optimum's."""
    online: bool = False
    """Whether `solve` learns where it could compute; `train` always learns."""
    alpha: Share = 0.1
    """Learning rate of Q."""
    multiplier_first: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Cost that a unit of privacy is worth, to begin with."""
    multiplier_step: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    """How far it moves with a slot that misses the floor by 1."""
    epsilon_first: Share = 1.0
    epsilon_last: Share = 0.05
    explore: Share = 0.5
    """Share of the run over which epsilon falls."""
    log_every: Count = 100
    """Slots between two lines of the log."""
    slots: Count | None = None
    """Slots of the run; none: the instance's."""

    def solve(self, instance: Instance, search: Search) -> Found:
        if self.online or not is_exact(instance):
            return learned(self, instance, search)
        floor = default_floor(instance) if self.floor is None else self.floor
        chances, cost, price = cheapest(miner(instance), floor)
        plan = Plan(Table(instance, chances, search.seed))
        return Found(plan, status="optimal", info={"floor": floor, "least_cost": cost, "multiplier": price})

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        c, total = instance.constants, self.slots or instance.slots
        floor = default_floor(instance) if self.floor is None else self.floor
        epsilon = Linear(self.epsilon_first, self.epsilon_last, self.explore * total)
        rng = np.random.default_rng([seed, 3])
        simulation = Simulation(instance, 1, (seed, 2))
        table = Streams(instance, np.zeros((c.K, round(c.B / c.grid) + 1, 2, 3, 2)))
        slot, multiplier, sums = 0, self.multiplier_first, np.zeros(2)
        if run.checkpoint is not None:
            arrays, state = run.checkpoint
            table.Q, sums, slot, multiplier = arrays["Q"], arrays["sums"], state["slot"], state["multiplier"]
            simulation.restore(arrays, state["simulation"])
            rng.bit_generator.state = state["rng"]

        def save() -> tuple[Arrays, dict[str, object]]:
            arrays, generator = simulation.snapshot()
            state = {"slot": slot, "multiplier": multiplier, "simulation": generator, "rng": rng.bit_generator.state}
            return {**arrays, "Q": table.Q, "sums": sums}, state

        while slot < total and not run.over(slot, slot, save):
            here = table.places(simulation.state)
            values = table.Q[here]
            x = values[..., 1] > values[..., 0]
            wild = rng.random(x.shape) < epsilon.at(slot)
            x = np.where(wild, rng.random(x.shape) < 0.5, x)
            outcome = simulation.step(x)
            worth = (multiplier * outcome.P - outcome.cost)[:, :, None] / instance.M
            target = worth + c.gamma * table.Q[table.places(simulation.state)].max(axis=-1)
            cell = (*here, x.astype(np.int64))
            np.add.at(table.Q, cell, self.alpha * (target - table.Q[cell]))
            privacy = float(outcome.P.mean())
            multiplier = max(0.0, multiplier + self.multiplier_step * (floor - privacy))
            slot += 1
            sums += (float(outcome.reward.mean()), privacy)
            if slot % self.log_every == 0:
                mean = sums / self.log_every
                figures = {"reward": float(mean[0]), "privacy": float(mean[1]), "multiplier": multiplier}
                run.log(slot, slot, {**figures, **(watch(table, instance) if slot % WATCHED == 0 else {})})
                sums = np.zeros(2)
        if slot >= total:
            run.finish(slot, slot, {"Q": table.Q}, header(self.kind, instance), save)
        return {"Q": table.Q}


def default_floor(instance: Instance) -> float:
    """0.88 of the privacy that one miner's discounted optimum reaches."""
    tables = miner(instance)
    gamma = instance.constants.gamma
    U = tables.discounted(gamma)[1]
    return FLOOR_SHARE * tables.averages(tables.table(tables.greedy(U, gamma))).privacy


def cheapest(tables: Miner, floor: float) -> tuple[Floats, float, float]:
    """The program above for one stream: chances by (D1, D0, g, level), the least cost, and the floor's multiplier."""
    import highspy
    from scipy.sparse import coo_array

    states, afterstates = tables.reward.shape[0], 6 * tables.buffers
    K = tables.instance.constants.K
    o = np.arange(2 * states).reshape(states, 2)  # columns of o(s,x); y(u) follow them
    y = 2 * states + np.arange(afterstates)
    rows, columns, values = [], [], []

    def entries(row: Floats | np.ndarray, column: np.ndarray, value: np.ndarray | float) -> None:
        row, column, value = np.broadcast_arrays(row, column, value)
        rows.append(row.ravel())
        columns.append(column.ravel())
        values.append(value.ravel())

    # Where a state comes from: the six (g, level) of its own buffer.
    state = np.arange(states)
    entries(state[:, None], o, 1.0)
    block = state % afterstates // 6 * 6
    entries(state[:, None], y[0] + block[:, None] + np.arange(6)[None, :], -tables.moves.T[state % 6] / K)
    # What leaves an afterstate, all of it, and the floor.
    entries(states + np.arange(afterstates), y, 1.0)
    entries(states + tables.after, o, -1.0)
    entries(np.full(o.shape, states + afterstates), o, 1.0)
    entries(np.full(o.shape, states + afterstates + 1), o, tables.metric("privacy"))
    count = states + afterstates + 2
    matrix = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, y[-1] + 1)
    ).tocsc()
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = int(y[-1]) + 1, count
    program.col_cost_ = np.concatenate([tables.metric("cost").ravel(), np.zeros(afterstates)])
    program.col_lower_ = np.zeros(y[-1] + 1)
    program.col_upper_ = np.full(y[-1] + 1, highspy.kHighsInf)
    program.row_lower_ = np.concatenate([np.zeros(count - 2), [1.0, floor]])
    program.row_upper_ = np.concatenate([np.zeros(count - 2), [1.0, highspy.kHighsInf]])
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_, program.a_matrix_.index_ = matrix.indptr, matrix.indices
    program.a_matrix_.value_ = matrix.data
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]  # highspy publishes none
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(program)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        detail = f"floor is {floor:.6g}: no policy keeps that much privacy on average"
        raise Refused(detail, field="floor")
    found = solver.getSolution()
    occupancy = np.maximum(np.array(found.col_value)[: 2 * states].reshape(states, 2), 0.0)
    price = float(found.row_dual[-1])
    # States that are never entered: the optimum of cost less priced privacy decides, should one be.
    U = tables.relative(price * tables.metric("privacy") - tables.metric("cost"))[1]
    fallback = tables.greedy(U, 1.0, price * tables.metric("privacy") - tables.metric("cost"))
    share = occupancy.sum(axis=1)
    entered = share > 1e-12
    chances = np.where(entered, occupancy[:, 1] / np.where(entered, share, 1.0), fallback)
    return chances.reshape(tables.shape), float(solver.getObjectiveValue()), price
