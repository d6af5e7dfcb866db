"""Where a node stands: /v1/status and /readyz, in words and numbers (ledger.md 18, market.md 7)."""

from collections.abc import Sequence

from edgora.market.reasons import sentence
from edgora.node.duties.post import Duty
from edgora.node.duties.runs import Runs
from edgora.node.follower import Follower
from edgora.node.views import hex_of
from edgora.node.why import consensus_sentence
from edgora.ports.clock import Clock
from edgora.ports.consensus import Consensus
from edgora.wire import rest
from edgora.wire.errors import Unavailable
from edgora.wire.genesis import Genesis
from edgora.wire.market import Reason, TaskState

__all__ = ["Standing"]


class Standing:
    """Puts together what consensus, follower and duties say of themselves."""

    def __init__(
        self, genesis: Genesis, index: int, clock: Clock, follower: Follower, consensus: Consensus,
        duties: Sequence[Duty], runs: Runs,
    ) -> None:  # fmt: skip
        self._genesis, self._index, self._clock = genesis, index, clock
        self._follower, self._consensus, self._duties, self._runs = follower, consensus, duties, runs

    async def status(self) -> rest.Status:
        """Raises Unavailable while the consensus half is away."""
        found, market = await self._consensus.status(), self._follower.market
        seen, now = self._follower.chain_seen(self._clock.now_ms()), market.chain_seen_ms()
        round_ = market.round_state()
        return rest.Status(
            sentence=consensus_sentence(found), waiting=found.waiting, waiting_since_ms=found.waiting_since_ms,
            server=self._index, epoch=found.epoch, view=found.view, view_active=found.view_active,
            primary=found.primary, quorum=found.quorum, committed_height=found.committed_height,
            committed_hash=hex_of(found.committed_hash), executed_height=found.executed_height,
            follower_height=self._follower.height, header_time_ms=found.header_time_ms,
            stable_checkpoint=found.stable_checkpoint, pool_txs=found.pool_txs, next_height=found.next_height,
            votes=found.votes, timeout_ms=found.timeout_ms, view_changes=found.view_changes, alarm=found.alarm,
            chain_seen=seen,
            chain_sentence="a quorum of validators sees the chain" if seen
            else sentence(Reason("CHAIN_NOT_SEEN_SINCE", "", (now,))),
            open_tasks=len(market.core.state.open), running=self._runs.running,
            round=None if round_ is None else round_.instance.round,
            duties={duty.name: duty.says for duty in self._duties},
            voters=[
                rest.Voter(
                    index=v.index, address=hex_of(v.address), connected=v.connected, last_heard_ms=v.last_heard_ms,
                    committed_height=v.committed_height, view=v.view, voted=v.voted,
                )
                for v in found.voters
            ],
        )  # fmt: skip

    def figures(self) -> dict[str, float]:
        """What /metrics shows of the market as this node follows it; ages by its clock, never behind ledger time."""
        market, now = self._follower.market, max(self._clock.now_ms(), self._follower.header_time_ms)
        unpaid = [task.ended_ms for task in market.tasks(TaskState.FINAL, TaskState.CERTIFIED)]
        round_ = market.round_state()
        return {
            "open_tasks": len(market.core.state.open),
            "round_age_seconds": 0.0 if round_ is None else max(0, now - round_.opened_ms) / 1000,
            "unsettled_receipts": len(unpaid),
            "unsettled_age_seconds": max(0, now - min(unpaid, default=now)) / 1000,
            "chain_seen": float(self._follower.chain_seen(now)),
        }

    async def ready(self) -> rest.Health:
        """An active view, no alarm, and at most a window of blocks behind."""
        try:
            found = await self._consensus.status()
        except Unavailable as error:
            return rest.Health(ok=False, detail=f"the consensus half is away: {error.detail}")
        behind = found.committed_height - self._follower.height
        if found.alarm is not None:
            return rest.Health(ok=False, detail=f"alarm: {found.alarm}")
        if not found.view_active:
            return rest.Health(ok=False, detail=consensus_sentence(found))
        if found.waiting in {"SYNCING", "NO_QUORUM"} or behind > self._genesis.consensus.window:
            return rest.Health(ok=False, detail=f"{behind} blocks behind; {consensus_sentence(found)}")
        return rest.Health(ok=True, detail=f"height {self._follower.height}")
