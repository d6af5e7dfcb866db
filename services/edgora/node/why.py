"""Why a task waits and why consensus waits, as this node sees it (market.md 7, ledger.md 18).

`market.reasons` knows what the state says and is the only renderer of market reasons. Here the node adds what only it
sees: a transaction that is not ordered yet, an input on its way, holders of a result so far, and the votes.
"""

from collections.abc import Mapping

from edgora.market.reasons import sentence, why
from edgora.market.records import Task
from edgora.node.archive import TaskRecord
from edgora.node.follower import Follower
from edgora.ports.clock import Clock
from edgora.ports.consensus import ConsensusStatus
from edgora.wire.market import Reason, TaskState

__all__ = ["Explainer", "consensus_sentence"]


class Explainer:
    """Reasons of tasks. `progress` is what this node's own workers say of tasks in their hands."""

    def __init__(self, follower: Follower, clock: Clock, progress: Mapping[bytes, Reason]) -> None:
        self._follower, self._clock, self._progress = follower, clock, progress

    def reasons(self, record: TaskRecord, task: Task | None) -> list[Reason]:
        """The most telling first."""
        if task is None:  # the state has forgotten it, the archive has not
            if record.state == TaskState.SETTLED:
                return [Reason("SETTLED", record.offer_id.hex(), (record.batch or 0,))]
            return [] if record.reason is None else [record.reason]
        now = max(self._clock.now_ms(), self._follower.header_time_ms)
        found = why(self._follower.market, record.offer_id, now)
        own = self._progress.get(record.offer_id)
        return [own, *found] if own is not None and task.state == TaskState.ASSIGNED else found

    def sentence(self, record: TaskRecord, task: Task | None) -> str:
        """All reasons in one sentence; never empty."""
        words = "; ".join(sentence(reason) for reason in self.reasons(record, task))
        return words or f"the task is {record.state.name}"


_WAITING = {
    "IDLE": "nothing to order: height {height} is committed",
    "ORDERING": "waiting for primary {primary} to propose height {next}; transactions in the pool: {pool}",
    "PREPARING": "height {next} is being prepared: {votes} of {quorum} votes",
    "COMMITTING": "height {next} is being committed: {votes} of {quorum} votes",
    "VIEW_CHANGE": "the view is changing to {view}: {votes} of {quorum} validators have said so",
    "SYNCING": "this node is fetching blocks that it missed; it has height {height}",
    "OBSERVING": "this node only observes: it follows the ledger and votes for nothing; it has height {height}",
    "NO_QUORUM": "{connected} of {validators} validators are connected, {quorum} are needed",
    "ALARM": "voting has stopped for good: {alarm}",
}


def consensus_sentence(status: ConsensusStatus) -> str:
    """What consensus waits for, with the numbers, and who is silent."""
    silent = [v.index for v in status.voters if not v.connected and v.index != status.own_index]
    text = _WAITING.get(status.waiting, status.waiting).format(
        height=status.committed_height, pool=status.pool_txs, primary=status.primary, next=status.next_height,
        votes=status.votes, quorum=status.quorum, view=status.view, validators=status.validators,
        connected=sum(v.connected for v in status.voters), alarm=status.alarm,
    )  # fmt: skip
    if silent:
        text += f"; silent: {', '.join(map(str, silent))}"
    if status.waiting != "IDLE":
        text += f"; since {status.waiting_since_ms} ms"
    return text
