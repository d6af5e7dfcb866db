"""fig4: the chain of problems that DAUR solves, drawn from the code that solves them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgora.allocator.conic import lift, rank, rounding
from edgora.allocator.dpe import association, daur, fp
from edgora.allocator.dpe.model import Model
from edgora.lab.reproduce.item import Note, Printed, Reproduction, Setting

__all__ = ["fig4"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A box of the diagram."""

    name: str
    says: str
    code: Sequence[Callable[..., Any]]
    """What does it, by the code's own names."""
    x: float
    y: float

    @property
    def names(self) -> list[str]:
        return [f"{c.__module__.removeprefix('edgora.allocator.')}.{c.__qualname__}" for c in self.code]


STAGES = (
    Stage("P1", "max  sum of A/B over users and servers (14)", (Model.dpe,), 0.50, 0.94),
    Stage("P2", "epigraph of every ratio (Lemma 1)", (Model.terms,), 0.50, 0.77),
    Stage("P3", "max  sum of alpha (A - beta B),\nalpha = 1/B, beta = A/B (Lemma 2)", (daur.Daur.solve, association.gains), 0.50, 0.57),
    Stage("association", "resources held: QCQP in (x, phi)", (association.associate,), 0.26, 0.37),
    Stage("resources", "x, phi held: transfer energy\nby its tangent form (Lemma 3)", (fp.allocate, fp.program), 0.82, 0.37),
    Stage("lift", "S = y y^T, rank dropped: SDP", (lift.Lift, association.relaxation), 0.09, 0.18),
    Stage("rank one", "tr S - lambda_max(S) as a penalty", (rank.alternate,), 0.50, 0.18),
    Stage("rounding", "one server a user", (rounding.hungarian, rounding.rank_one, rounding.nearest), 0.82, 0.18),
)  # fmt: skip
ARROWS = (
    ("P1", "P2", ""), ("P2", "P3", ""), ("P3", "association", ""), ("association", "resources", "at most three times"),
    ("association", "lift", ""), ("lift", "rank one", ""), ("rank one", "rounding", ""),
)  # fmt: skip


def fig4(setting: Setting, note: Note) -> Reproduction:  # noqa: ARG001 - a diagram has one size
    note("dpe.fig4: the chain of problems")
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(12, 7), layout="constrained")
    axis = drawing.subplots()
    axis.set(xlim=(-0.06, 1.0), ylim=(0.08, 1.0))
    axis.set_axis_off()
    place, boxes = {stage.name: stage for stage in STAGES}, {}
    for stage in STAGES:
        look = {"boxstyle": "round,pad=0.45", "facecolor": "#e3f2fd", "edgecolor": "#1565c0"}
        text = f"{stage.name}: {stage.says}\n" + "\n".join(stage.names)
        boxes[stage.name] = axis.text(
            stage.x, stage.y, text, ha="center", va="center", fontsize=8, bbox=look, family="monospace", zorder=2
        )
    for start, end, label in ARROWS:
        a, b = place[start], place[end]
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        arrow = {"arrowstyle": "<->" if label else "->", "color": "#37474f", **ends}
        axis.annotate("", xy=(b.x, b.y), xytext=(a.x, a.y), arrowprops=arrow, zorder=1)
        axis.text((a.x + b.x) / 2, a.y + 0.01, label, ha="center", va="bottom", fontsize=8, color="#37474f")
    return Reproduction(
        title="The chain of problems",
        how="Drawn from the names of the code that solves each problem.",
        columns=("item", "stage", "problem", "code"),
        rows=[("fig4", s.name, s.says.replace("\n", " "), " ".join(s.names)) for s in STAGES],
        paragraph=(
            "The chain is the paper's, with three differences that the code had to decide. The user terms leave P3: alpha "
            "of a user with nothing left would be 1/0, and they are worth the same for every share. The association comes "
            "first, as in the paper's experiments and against its Algorithm 1: optimal resources give pairs that are not connected nothing, "
            "so an association step after them is void unless all pairs return to nominal shares. And the lift is one "
            "block a user instead of one matrix: the same relaxation, and closer to rank one under the penalty."
        ),
        figure=drawing,
        printed=(Printed("first step of a round", "resources (Algorithm 1), association (Fig. 6, Table II)", "association; `order=fp_first` has the other"),),
    )  # fmt: skip
