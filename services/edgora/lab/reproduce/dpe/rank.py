"""fig3: the rank gap against the penalty's weight, and what the penalty is worth at the sizes of Table II."""

import numpy as np

from edgora.allocator.dpe import draw
from edgora.lab.reproduce.dpe.methods import COLUMNS, SIZES, figure, ours, rows, run, spread, warm
from edgora.lab.reproduce.item import Cell, Note, Printed, Reproduction, Setting

__all__ = ["fig3"]

WEIGHTS = (1.0, 5.0, 25.0, 50.0, 100.0, 175.0, 250.0)
SEEDS = {(10, 2): 10, (20, 3): 6, (30, 4): 6}
"""Networks of part (b), as in dpe.md 6."""


def fig3(setting: Setting, note: Note) -> Reproduction:
    lines: list[tuple[Cell, ...]] = []
    note("dpe.fig3 (a): rank gap against tau_w")
    warm(10, 2)
    gaps: dict[float, list[float]] = {tau: [] for tau in WEIGHTS}
    for seed in setting.seeds(5):
        model = draw(seed).model
        for tau in WEIGHTS:
            made = run("aauco", model, tau_w=tau)
            gaps[tau].append(made.found.info["steps"][0]["rank_gaps"][-1])  # type: ignore[index]  # JSON values
            lines.append(("fig3a", tau, "rank_gap", seed, gaps[tau][-1], None, made.cpu_s))
    losses: dict[tuple[int, int], dict[str, list[float]]] = {}
    for users, servers in SIZES[: 2 if setting.quick else 3]:
        note(f"dpe.fig3 (b): rank kept and dropped at {users} x {servers}")
        warm(users, servers)
        losses[users, servers] = {"keep": [], "drop": []}
        for seed in setting.seeds(SEEDS[users, servers]):
            model = draw(seed, {"N": users, "M": servers}).model
            best = ours(model)
            runs = {rank: run("daur", model, rank=rank, gamma="half") for rank in ("keep", "drop")}
            lines += rows("fig3b", f"{users}x{servers}", seed, {**runs, "optimum": best})
            for rank, made in runs.items():
                losses[users, servers][rank].append(100 * (best.server_part - made.server_part) / best.server_part)

    drawing, (left, right) = figure(2)
    means = [float(np.mean(gaps[tau])) for tau in WEIGHTS]
    left.plot(WEIGHTS, means, "o-", color="#1565c0")
    left.set(xlabel="weight of the rank penalty tau_w", ylabel="rank gap after the step", xscale="log", ylim=(0, None))
    at = np.arange(len(losses))
    for k, (rank, color, label) in enumerate(
        (("keep", "#1565c0", "rank penalty"), ("drop", "#f57c00", "rank dropped"))
    ):
        values = [spread(loss[rank]) for loss in losses.values()]
        right.bar(
            at + 0.4 * k - 0.2, [v.mean for v in values], 0.38, yerr=[v.half for v in values], color=color, label=label
        )
    right.set(ylabel="server part below the optimum, %", xticks=at, xticklabels=[f"{n} x {m}" for n, m in losses])
    right.set_xlabel("users x servers")
    right.legend(frameon=False, loc="upper left")
    gains = [float(np.mean(loss["drop"]) - np.mean(loss["keep"])) for loss in losses.values()]
    open_ = sum(gap > 1e-3 for gap in gaps[175.0])
    paragraph = (
        f"(a) holds in its shape: a weight of 1 leaves a mean rank gap of {means[0]:.2f}, 5 leaves {means[1]:.2f}, and from 25 "
        f"on nothing changes ({means[2]:.3f}, at 250 {means[-1]:.3f}); the paper's curve is flat beyond 175, but so is ours "
        "seven times earlier. It is not flat at zero: the rounds stop at critical points of higher rank on "
        f"{open_} of {len(gaps[175.0])} networks, whatever the weight. (b) does not hold as written: the paper calls the gain of keeping "
        f"rank one slight, and it is {', '.join(f'{gain:.1f}' for gain in gains)} points of the server part, growing with the size "
        "(gamma = 1/2, rank-1 rounding). It looks slight only in DPE, where a constant user part of four fifths hides it."
    )
    return Reproduction(
        title="The rank-one penalty: its weight, and what it is worth",
        how=f"(a) {len(gaps[1.0])} networks 10 x 2, one association step from GUCAA; (b) DAUR with gamma = 1/2, "
        f"{', '.join(str(len(loss['keep'])) for loss in losses.values())} networks by size, 95 % intervals.",
        columns=COLUMNS,
        rows=lines,
        paragraph=paragraph,
        figure=drawing,
        printed=(
            Printed(
                "(a) flat beyond tau_w",
                "175",
                f"25; mean rank gap {means[0]:.2f}, {means[1]:.2f}, then {means[-1]:.3f}",
            ),
            Printed(
                "(b) gain of keeping rank one",
                '"slight improvement"',
                f"{', '.join(f'{g:.1f}' for g in gains)} points of the server part",
            ),
        ),
    )
