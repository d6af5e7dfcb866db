"""fig3: a map of users and servers, and who serves whom."""

import numpy as np

from edgora.lab.reproduce.item import Cell, Note, Printed, Reproduction, Setting
from edgora.lab.reproduce.tcr.methods import LABELS, figure, instance, run

__all__ = ["fig3"]

SHADES = ("#1565c0", "#f57c00", "#2e7d32", "#7b1fa2")


def fig3(setting: Setting, note: Note) -> Reproduction:  # noqa: ARG001 - one map has one size
    note("tcr.fig3: the map of seed 0")
    e = instance(0, (("N", 20), ("M", 3)))
    chosen = {name: run(name, e) for name in ("dashf", "priced")}
    lines: list[tuple[Cell, ...]] = [
        ("fig3", "server", m, float(e.pos_s[m, 0]), float(e.pos_s[m, 1]), None, None) for m in range(e.M)
    ]
    lines += [
        (
            "fig3", "user", n, float(e.pos_u[n, 0]), float(e.pos_u[n, 1]), int(chosen["dashf"].plan.assoc[n]),
            int(chosen["priced"].plan.assoc[n]),
        )
        for n in range(e.N)
    ]  # fmt: skip
    drawing, axes = figure(2, height=4.6, width=4.8)
    for axis, (name, made) in zip(axes, chosen.items(), strict=True):
        assoc = made.plan.assoc
        for n in range(e.N):
            ends = np.stack((e.pos_u[n], e.pos_s[assoc[n]]))
            axis.plot(*ends.T, color=SHADES[assoc[n]], lw=0.8, alpha=0.7)
        axis.scatter(*e.pos_u.T, c=[SHADES[m] for m in assoc], s=22, zorder=3, label="user")
        axis.scatter(*e.pos_s.T, c=SHADES[: e.M], s=110, marker="^", edgecolors="black", zorder=4, label="server")
        crowds = ", ".join(map(str, np.bincount(assoc, minlength=e.M)))
        axis.set(
            title=f"{LABELS[name]}: TCR {made.tcr:.3f}, users a server {crowds}", xlabel="metres",
            ylabel="metres", aspect="equal", xlim=(-20, 1020), ylim=(-20, 1020),
        )  # fmt: skip
    loads = {name: np.bincount(made.plan.assoc, minlength=e.M) for name, made in chosen.items()}
    nearest = np.linalg.norm(e.pos_u[:, None] - e.pos_s, axis=2).argmin(axis=1)
    agree = {name: int((made.plan.assoc == nearest).sum()) for name, made in chosen.items()}
    return Reproduction(
        title="Users and servers of one network, and their links",
        how="Seed 0, 20 users, 3 servers, `delegate`; links by DASHF and by our solver.",
        columns=("item", "kind", "index", "x_m", "y_m", "dashf_server", "priced_server"),
        rows=lines,
        paragraph=(
            "The paper's map is one draw of 20 users and 3 servers on a square of 1000 m, without coordinates; ours is the draw "
            "of seed 0. Places enter through path loss only, and fading can favour a distant server: "
            f"{agree['dashf']} of 20 users of DASHF and {agree['priced']} of ours are at their nearest server. DASHF spreads users "
            f"{', '.join(map(str, loads['dashf']))}, since its rounding allows at most seven a server; the better decision has "
            f"{', '.join(map(str, loads['priced']))} and TCR {chosen['priced'].tcr:.3f} instead of {chosen['dashf'].tcr:.3f}."
        ),
        figure=drawing,
        printed=(Printed("network", "20 users, 3 servers, 1000 m square", "the same, seed 0 of the generator"),),
    )
