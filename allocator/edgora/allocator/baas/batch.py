"""The environment itself, vectorised, in numpy alone: copies that step together through episodes of `horizon` slots.

Gymnasium's forms (`env`), learners and evaluation all step this. Copies are in lockstep, so they truncate together; the
end of an episode is a time limit: the last step draws a slot too, and `final` keeps it for whoever bootstraps.
"""

from dataclasses import replace

import numpy as np

from edgora.allocator.baas.model import Choice, Outcome, Slots, settle
from edgora.allocator.baas.stream import Drawn, Layout, Source

__all__ = ["Batch"]


class Batch:
    """Copies of the environment. `slots` is what there is to decide now."""

    def __init__(self, source: Source) -> None:
        self.source, self.params = source, source.params
        self.clock = 0
        """Slots played in this episode."""
        self.episode = 0
        """Episodes begun, 1 in the first."""
        self.final: Slots | None = None
        """The slot after the last one of the episode that has just ended; None within an episode."""
        self.slots = self.reset()

    def reset(self) -> Slots:
        """Begin an episode: a new layout, no history."""
        self.clock, self.final = 0, None
        self.episode += 1
        layout, nothing = self.source.layout(), np.zeros((self.source.copies, self.params.M))
        self.slots = _slots(self, layout, self.source.slot(), nothing, nothing)
        return self.slots

    def step(self, choice: Choice) -> Outcome:
        """Play a slot. After the last one of an episode `final` is set and `slots` is the next episode's first."""
        before = self.slots
        outcome = settle(before, choice)
        self.clock += 1
        self.slots = _slots(self, Layout(before.f, before.rate), self.source.slot(), outcome.A, outcome.B)
        if self.clock < self.params.horizon:
            self.final = None
        else:
            ended = self.slots
            self.reset()
            self.final = ended
        return outcome

    def restore(self, slots: Slots, clock: int, episode: int) -> None:
        """Go on from a checkpoint, whose source has been set back as well."""
        self.slots, self.clock, self.episode, self.final = replace(slots, params=self.params), clock, episode, None


def _slots(batch: Batch, layout: Layout, drawn: Drawn, A: np.ndarray, B: np.ndarray) -> Slots:
    return Slots(
        params=batch.params, d=drawn.d, xi=drawn.xi, tau=drawn.tau, b=drawn.b, f=layout.f, A=A, B=B, rate=layout.rate
    )
