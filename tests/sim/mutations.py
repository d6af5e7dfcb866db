"""The planted bugs of ledger.md 19, as substitutions in the ledger core's source text.

Each is a mistake that somebody has made or could make; several are safe to the eye. `first` names the generator that is
asked first; `liar` what a Byzantine replica must do for the mistake to show, so that of all seeds those are asked first.
"""

from typing import Literal, NamedTuple

L = "edgora.ledger."


class Edit(NamedTuple):
    """Replace this text, which stands in the module exactly once."""

    module: str
    old: str
    new: str


class Mutant(NamedTuple):
    name: str
    what: str
    edits: tuple[Edit, ...]
    first: Literal["scenario", "seed"] = "scenario"
    liar: str = ""


MUTANTS = (
    Mutant(
        "quorum_minus_one",
        "certificates of q - 1 signers are made and believed",
        (
            Edit(L + "quorum", "self._need = quorum(len(validators))", "self._need = quorum(len(validators)) - 1"),
            Edit(
                L + "quorum",
                "or len(signers) < quorum(len(validators))",
                "or len(signers) < quorum(len(validators)) - 1",
            ),
            Edit(L + "config", "return quorum(self.n)", "return quorum(self.n) - 1"),
        ),
    ),
    Mutant(
        "tip_not_reported",
        "VIEW_CHANGE names no tip",
        (Edit(L + "views", "    headers = _tip_headers(core)\n", "    headers: tuple[Header, ...] | None = ()\n"),),
    ),
    Mutant(
        "base_by_height",
        "the base is chosen by height before view",
        (
            Edit(
                L + "views",
                "key=lambda base: (base.view, base.height, not base.is_tip, base.hash)",
                "key=lambda base: (base.height, base.view, not base.is_tip, base.hash)",
            ),
        ),
    ),
    Mutant(
        "base_not_enforced",
        "the first block of a view need not be its base",
        (
            Edit(
                L + "views",
                "view.last_height, view.last_hash, view.pending_base = base.height - 1, tip_header.parent, base",
                "view.last_height, view.last_hash, view.pending_base = base.height - 1, tip_header.parent, None",
            ),
        ),
    ),
    Mutant(
        "bottom_up_reproposal",
        "a new view votes on the base's ancestors one by one, lowest first",
        (
            Edit(
                L + "state",
                '    last_height: int = 0\n    """Last block accepted in this view',
                "    rebase: list[Base] = field(default_factory=list)\n"
                '    last_height: int = 0\n    """Last block accepted in this view',
            ),
            Edit(
                L + "views",
                "        view.last_height, view.last_hash, view.pending_base = base.height - 1, tip_header.parent, base\n",
                "        row = [base.hash] if chain.missing_path(core, base.hash) else chain.ancestry(core, base.hash)[::-1]\n"
                "        view.rebase = [Base(base.view, core.chain.header(h).height, h, is_tip=True) for h in row]\n"
                "        base = view.rebase.pop(0)\n"
                "        tip_header = core.chain.header(base.hash)\n"
                "        view.last_height, view.last_hash, view.pending_base = base.height - 1, tip_header.parent, base\n",
            ),
            Edit(
                L + "normal",
                "        view.pending_base = None\n        for block_hash in chain.ancestry",
                "        view.pending_base = view.rebase.pop(0) if view.rebase else None\n        for block_hash in chain.ancestry",
            ),
        ),
    ),
    Mutant(
        "parent_unchecked",
        "a proposal may hang on any parent",
        (
            Edit(L + "normal", " or header.parent != core.view.last_hash:", ":"),
            Edit(
                L + "normal",
                "    parent = core.chain.header(header.parent)\n",
                "    parent = core.chain.header(header.parent) or core.chain.header(core.view.last_hash)\n",
            ),
        ),
        "seed",
        "bad_blocks",
    ),
    Mutant(
        "send_before_sync",
        "PREPARE leaves before its record is on the disk",
        (
            Edit(
                L + "normal",
                "    core.persist(record, sync=True)\n    known.accepted_view",
                "    core.persist(record)\n    known.accepted_view",
            ),
        ),
        "seed",
    ),
    Mutant(
        "mixed_views",
        "votes of another view count towards a certificate",
        (
            Edit(
                L + "normal",
                "    slot = (phase, message.view, message.height)\n    earlier",
                "    slot = (phase, core.view.view, message.height)\n    earlier",
            ),
            Edit(
                L + "quorum",
                "if self._recover(digest, cast.signature) != self._validators[signer]:",
                "if not any(self._recover(Vote(phase, self._epoch, v, height, block_hash).digest(self._domain), cast.signature)"
                " == self._validators[signer] for v in range(max(0, view - 1), view + 2)):",
            ),
        ),
    ),
    Mutant(
        "view_change_tip_unchecked",
        "the tip certificate of a VIEW_CHANGE is believed as it comes",
        (Edit(L + "views", " or not core.check.good(tip, Phase.PREPARE):", ":"),),
    ),
    Mutant(
        "votes_after_leaving",
        "a replica goes on voting in the view that it sent VIEW_CHANGE for",
        (
            Edit(
                L + "views",
                "    view.view, view.active, view.own_change, view.left_because = new_view, False, change, why\n"
                "    view.changes[core.me] = change\n    _forget_view(core)\n",
                "    view.own_change, view.left_because = change, why\n    view.changes[core.me] = change\n"
                # Its timers start again as well, and it asks once, else it would ask without end at one instant.
                "    core.timers.progress_since = core.timers.heartbeat_ms = core.timers.rearmed_ms = core.now\n"
                "    core.timers.overdue.clear()\n",
            ),
            Edit(L + "views", "    if why and ", "    if why and view.own_change is None and "),
            Edit(
                L + "views",
                "    if len(above) > core.f:\n",
                "    if len(above) > core.f and view.own_change is None:\n",
            ),
        ),
        "seed",
    ),
    Mutant(
        "leaves_alone",
        "a replica whose patience is at its end leaves the view although no other suspects the primary",
        (Edit(L + "views", "    if why and _suspecting(core) >= core.f:\n", "    if why:\n"),),
        "seed",
    ),
    Mutant(
        "join_on_one",
        "one VIEW_CHANGE for a higher view is enough to follow",
        (Edit(L + "views", "    if len(above) > core.f:\n", "    if above:\n"),),
        "seed",
        "huge_views",
    ),
    Mutant(
        "seq_consumed_twice",
        "an executed sequence number runs again",
        (
            Edit(
                L + "executor",
                "elif tx.seq != (due := self.next_seq(lane)):",
                "elif tx.seq > (due := self.next_seq(lane)):",
            ),
        ),
        "seed",
        "bad_blocks",
    ),
    Mutant(
        "tx_signature_unchecked",
        "a proposal's transaction signatures are believed",
        (Edit(L + "normal", "    if all(ok):\n", "    if ok is not None:\n"),),
        "seed",
        "bad_blocks",
    ),
    Mutant(
        "commit_quorum_by_prepare",
        "a PREPARE counts as COMMIT",
        (
            Edit(
                L + "normal",
                "    phase = Phase.PREPARE if isinstance(message, Prepare) else Phase.COMMIT\n    if not",
                "    phase = Phase.COMMIT\n    if not",
            ),
        ),
    ),
    Mutant(
        "results_unchecked",
        "a header's state and receipt roots are believed",
        (
            Edit(L + "normal", "    if root != header.state_root:\n", "    if root is None:\n"),
            Edit(
                L + "normal",
                "    if receipts is not None and receipts != (header.receipt_root, header.receipt_count):\n"
                '        return f"receipts up',
                '    if receipts is None:\n        return f"receipts up',
            ),
        ),
        "seed",
        "bad_blocks",
    ),
)
