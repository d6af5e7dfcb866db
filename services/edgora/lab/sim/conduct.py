"""What a correct replica may say (ledger.md 12, 14, 19 P3 and P4).

One book per identity, kept over crashes: what it made durable and what it sent. Each message is checked against both
before it leaves:

- persist before send: the record that a message stands for is on the disk's durable part;
- no offence: one hash per (phase, view, height), no vote in a view that was left, no VIEW_CHANGE that forgets a tip or
  a commit, no second checkpoint at a height;
- nothing durable is forgotten: a VIEW_CHANGE never names less than what was voted for before;
- nobody is led astray: no correct replica asks for a view more than one above all that correct ones asked for before.
"""

from edgora.lab.sim.violation import Violation
from edgora.wire.ledger import Phase
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    WalAccepted,
    WalCheckpoint,
    WalNewView,
    WalRecord,
    WalTip,
    WalView,
)

__all__ = ["Conduct", "Frontier"]

Fact = tuple[object, ...]


def _facts(record: WalRecord) -> list[Fact]:
    match record:
        case WalAccepted():
            return [("accepted", record.view, record.height, record.block_hash)]
        case WalTip():
            vote = record.certificate.vote
            return [("tip", vote.view, vote.height, vote.block_hash)]
        case WalView():
            return [("left", record.view_change.body.new_view)]
        case WalNewView():
            return [("entered", record.new_view.view)]
        case WalCheckpoint():
            return [("checkpoint", record.body.height, record.body.state_root)]
        case _:
            return []


class Frontier:
    """The highest view that any correct replica has asked for; one for all their books."""

    def __init__(self) -> None:
        self.view = 0


class Conduct:
    """The book on one identity that claims to be correct."""

    def __init__(self, index: int, frontier: Frontier) -> None:
        self.index = index
        self._frontier = frontier
        self._durable: set[Fact] = set()
        self._votes: dict[tuple[int, int, int], bytes] = {}
        self._left = 0
        self._checkpoints: dict[int, bytes] = {}

    def durable(self, record: WalRecord) -> None:
        """This record will survive any crash."""
        self._durable.update(_facts(record))

    def sends(self, message: Message) -> None:
        """Raises Violation if a correct replica could not send this now."""
        match message:
            case PrePrepare():
                block_hash = message.header.struct_hash()
                self._vote(Phase.PREPARE, message.view, message.header.height, block_hash)
            case Prepare():
                self._vote(Phase.PREPARE, message.view, message.height, message.block_hash)
            case Commit():
                self._vote(Phase.COMMIT, message.view, message.height, message.block_hash)
            case ViewChange() if message.signer == self.index:
                self._view_change(message)
            case NewView() if self._leads(message):
                self._need("P4", ("entered", message.view), f"NEW_VIEW of view {message.view}")
            case CheckpointVote():
                self._checkpoint(message)
            case _:
                pass

    def _leads(self, message: NewView) -> bool:
        """A NEW_VIEW of our own: others are passed on as they came."""
        return ("left", message.view) in self._durable or ("entered", message.view) in self._durable

    def _need(self, rule: str, fact: Fact, what: str) -> None:
        if fact not in self._durable:
            raise Violation(rule, f"replica {self.index} sends {what} before it is durable")

    def _vote(self, phase: Phase, view: int, height: int, block_hash: bytes) -> None:
        what = f"{phase.name} at view {view}, height {height}"
        known = self._votes.get((phase, view, height))
        if known is None:
            self._votes[phase, view, height] = block_hash
        elif known != block_hash:
            raise Violation("P3", f"replica {self.index} signs two hashes: {what}")
        if known is None and view < self._left:  # an old vote may be sent again byte for byte
            raise Violation("P3", f"replica {self.index} left for view {self._left} and sends {what}")
        record = "accepted" if phase == Phase.PREPARE else "tip"
        self._need("P4", (record, view, height, block_hash), what)
        if view:
            self._need("P4", ("entered", view), f"a vote in view {view} (its NEW_VIEW)")

    def _view_change(self, message: ViewChange) -> None:
        body = message.body
        self._need("P4", ("left", body.new_view), f"VIEW_CHANGE to {body.new_view}")
        self._left = max(self._left, body.new_view)
        if body.new_view > self._frontier.view + 1:
            asked = f"no correct one had asked for more than {self._frontier.view}"
            raise Violation("P5", f"replica {self.index} leaves for {body.new_view}, {asked}")
        self._frontier.view = max(self._frontier.view, body.new_view)
        best = max((body.tip_view, body.tip_height), (body.commit_view, body.commit_height))
        forgotten = [
            (view, height)
            for phase, view, height in self._votes
            if phase == Phase.COMMIT and best < (view, height) and view < body.new_view and body.commit_height < height
        ]
        if forgotten:
            voted = max(forgotten)
            raise Violation(
                "P3", f"replica {self.index} leaves for {body.new_view} naming {best}, voted COMMIT at {voted}"
            )

    def _checkpoint(self, message: CheckpointVote) -> None:
        body = message.body
        if self._checkpoints.setdefault(body.height, body.state_root) != body.state_root:
            raise Violation("P3", f"replica {self.index} signs two checkpoints at height {body.height}")
        self._need("P4", ("checkpoint", body.height, body.state_root), f"CHECKPOINT {body.height}")
