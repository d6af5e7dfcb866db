"""What a simulation finds wrong, named by the property of ledger.md 19 that it breaks."""

__all__ = ["Violation"]


class Violation(Exception):
    """A property does not hold. `rule` is P1..P10, J (market.md 10), or HALT: a correct replica found
    itself diverged or forked and stopped. `detail` says what was seen.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail
