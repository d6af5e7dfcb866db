"""How a learner's exploration falls with the slots it has played."""

from dataclasses import dataclass

__all__ = ["Linear"]


@dataclass(frozen=True, slots=True)
class Linear:
    """From `first` to `last` in equal steps over the first `over` slots, `last` from then on."""

    first: float
    last: float
    over: float

    def at(self, slot: int) -> float:
        if slot >= self.over:
            return self.last
        return self.first + (self.last - self.first) * slot / self.over
