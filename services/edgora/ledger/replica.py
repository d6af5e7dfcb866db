"""One PBFT replica (ledger.md 1): feed it inputs and time, perform what it returns, in order."""

from edgora.crypto.sign import recover as recover_signer
from edgora.ledger.config import LedgerConfig, Recover, Signer
from edgora.ledger.effects import Effects, Input
from edgora.ledger.status import ReplicaStatus
from edgora.wire.application import Application

__all__ = ["Replica"]


class Replica:
    """One PBFT replica. Deterministic: equal constructor arguments and inputs give equal effects."""

    def __init__(
        self, config: LedgerConfig, signer: Signer, application: Application, recover: Recover = recover_signer
    ) -> None:
        """Nothing happens before the first input, which must be Boot."""

    def step(self, now_ms: int, event: Input) -> Effects:
        """Take one input at this time (Unix ms, never falling by much; a leap over T re-arms timers)."""
        raise NotImplementedError

    def status(self, now_ms: int) -> ReplicaStatus:
        """Where we stand and why we wait."""
        raise NotImplementedError
