"""Positions of UEs that a fleet has told this node (wire.rest.development): in memory, bounded, development only."""

from collections import OrderedDict

from edgora.wire import rest

__all__ = ["Positions"]

MOST = 1_024


class Positions:
    """By UE the newest position; beyond `MOST` UEs those told longest ago are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, rest.Position] = OrderedDict()

    def tell(self, report: rest.PositionReport) -> rest.PositionList:
        for position in report.items:
            self._known[position.ue] = position
            self._known.move_to_end(position.ue)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return self.list()

    def list(self) -> rest.PositionList:
        return rest.PositionList(items=[*self._known.values()])
