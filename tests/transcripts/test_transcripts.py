"""Text scripts of what one replica is told and what it does: the protocol explained to newcomers.

A script is comments (#), commands (> ...) and, below each command, the effects that it must have:

    > replica 1 n=4 window=4         the replica under test; the script plays all others
    > block A on genesis             name a block (empty; `with a=1` gives it a transaction of client 0)
    > pre-prepare A view=0           from that view's primary
    > prepare A from 2 view=0        and: commit
    > certificate-from A view=0 from 3          a peer pushes a certificate
    > suspicion of 3                 its patience with the present primary is at its end
    > view-change 3 to 1 [tip=A@0] [commit=A@0]   tip and commit name a block and the view of its certificate
    > new-view 1 of 0,1,3 [tip=A@0 by 3]
    > checkpoint A from 2            for the block at that height; the state is the replica's own
    > submit 0 a=1                   a transaction of client 0 by our own API
    > fire progress                  let a timer reach its deadline
    > restart                        crash, and boot from the disk
    > status

`pytest tests/transcripts --rewrite` rewrites the effects; they are reviewed as diffs.
"""

from pathlib import Path

import pytest

from edgora.ledger.effects import ALL
from edgora.wire.ledger import CheckpointBody, Phase
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    PutCertificate,
    Status,
    TxGossip,
    ViewChange,
    WalAccepted,
    WalBlock,
    WalCheckpoint,
    WalCommit,
    WalNewView,
    WalStable,
    WalTip,
    WalView,
)  # fmt: skip
from unit.ledger.harness import DOMAIN, KEYS, Solo, standing

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


class Stage:
    """Runs the commands of one script."""

    def __init__(self):
        self.solo = None
        self.blocks, self.txs, self.names = {}, {}, {}

    # ---- words ----

    def name(self, block_hash):
        return self.names.get(block_hash, block_hash.hex()[:8] if any(block_hash) else "-")

    def learn(self, letter, header):
        self.blocks[letter] = header
        self.names[header.hash] = letter

    def certificate(self, text, phase):
        letter, view = text.split("@")
        return self.solo.forge.certificate(phase, int(view), self.blocks[letter])

    def show(self, effects):
        lines = [f"persist {self.record(r)}" for r in effects.persist]
        if effects.snapshot is not None:
            lines.append(f"snapshot of height {effects.snapshot.height}")
        lines += ["sync"] if effects.sync else []
        lines += ["compacted: earlier records may go"] if effects.compacted else []
        for send in effects.send:
            lines.append(f"send {'all' if send.dest == ALL else send.dest}: {self.message(send.message)}")
        for e in effects.executed:
            proven = "" if e.certificate is None else f" (certified in view {e.certificate.vote.view})"
            lines.append(f"execute {self.name(e.block.header.hash)} at height {e.block.header.height}{proven}")
        lines += [f"answer {a.reason}" for a in effects.answers]
        lines += [f"verify {len(v.items)} signatures" for v in effects.verify]
        lines += [f"fault of {f.peer}: {f.reason}" for f in effects.faults]
        lines += [f"evidence against {e.accused}" for e in effects.evidence]
        lines += [f"alarm: {effects.alarm}"] if effects.alarm else []
        for timer in effects.timers:
            if timer.name not in {"status", "heartbeat"}:
                wait = None if timer.deadline_ms is None else timer.deadline_ms - self.solo.world.now
                lines.append(f"timer {timer.name} " + ("off" if wait is None else f"in {wait} ms"))
        return lines or ["nothing"]

    def cert(self, certificate):
        if certificate is None:
            return "none"
        vote = certificate.vote
        return f"{Phase(vote.phase).name}({vote.view},{vote.height},{self.name(vote.block_hash)}) of {certificate.signers()}"

    def record(self, record):
        match record:
            case WalBlock(_, block):
                return f"block {self.name(block.header.hash)}"
            case WalAccepted(_, view, height, block_hash):
                return f"accepted ({view},{height},{self.name(block_hash)})"
            case WalTip(_, certificate):
                return f"tip {self.cert(certificate)}"
            case WalView(_, change):
                return f"view {change.body.new_view}"
            case WalNewView(_, message):
                return f"new view {message.view}"
            case WalCommit(_, certificate):
                return f"commit {self.cert(certificate)}"
            case WalCheckpoint(_, body):
                return f"checkpoint {body.height}"
            case WalStable(_, certificate):
                return f"stable checkpoint {certificate.body.height} of {certificate.signers()}"
        return type(record).__name__

    def message(self, message):
        match message:
            case PrePrepare():
                block_hash = message.header.hash
                if block_hash not in self.names:
                    self.learn(f"P{message.header.height}", message.header)
                return f"PRE_PREPARE ({message.view},{message.header.height},{self.name(block_hash)}) {len(message.txs)} txs"
            case Prepare() | Commit():
                word = type(message).__name__.upper()
                return f"{word} ({message.view},{message.height},{self.name(message.block_hash)})"
            case ViewChange():
                return f"VIEW_CHANGE to {message.body.new_view}: commit {self.cert(message.commit)}, tip {self.cert(message.tip)}"
            case NewView():
                return f"NEW_VIEW {message.view} of {[c.signer for c in message.view_changes]}"
            case CheckpointVote():
                return f"CHECKPOINT {message.body.height}"
            case PutCertificate():
                return f"certificate {self.cert(message.certificate)}"
            case Status():
                suspicion = ", suspects the primary" if message.suspects else ""
                return f"STATUS view {message.view} height {message.height}{suspicion}"
            case TxGossip():
                return f"TX_GOSSIP {len(message.txs)}"
        return type(message).__name__

    # ---- commands ----

    def run(self, line):
        verb, *words = line.split()
        options = dict(word.split("=", 1) for word in words if "=" in word and verb not in {"submit", "block"})
        plain = [word for word in words if "=" not in word or verb in {"submit", "block"}]
        return getattr(self, verb.replace("-", "_"))(plain, options)

    def replica(self, plain, options):
        n = int(options.pop("n", "4"))
        self.solo = Solo(int(plain[0]), n, **{key: int(value) for key, value in options.items()})
        self.learn("genesis", self.solo.world.genesis)
        return self.show(self.solo.log[0])

    def block(self, plain, _options):
        letter, parent = plain[0], self.blocks[plain[2]]
        view = int(plain[plain.index("view") + 1]) if "view" in plain else 0
        self.txs[letter] = [self.solo.tx(0, plain[plain.index("with") + 1].encode())] if "with" in plain else []
        time_ms = max(parent.time_ms + 1, self.solo.world.now) + ord(letter[0])
        self.learn(letter, self.solo.forge.header(parent, self.txs[letter], view=view, time_ms=time_ms))
        return [f"height {self.blocks[letter].height}"]

    def pre_prepare(self, plain, options):
        view = int(options.get("view", "0"))
        message = self.solo.forge.pre_prepare(view, self.blocks[plain[0]], self.txs[plain[0]])
        return self.show(self.solo.recv(view % self.solo.world.n, message))

    def prepare(self, plain, options):
        signer = int(plain[2])
        return self.show(
            self.solo.recv(signer, self.solo.forge.prepare(signer, int(options["view"]), self.blocks[plain[0]]))
        )

    def commit(self, plain, options):
        signer = int(plain[2])
        return self.show(
            self.solo.recv(signer, self.solo.forge.commit(signer, int(options["view"]), self.blocks[plain[0]]))
        )

    def certificate_from(self, plain, options):
        certificate = self.certificate(f"{plain[0]}@{options['view']}", Phase.COMMIT)
        return self.show(self.solo.recv(int(plain[-1]), PutCertificate(0, certificate)))

    def change(self, signer, view, options):
        commit = self.certificate(options["commit"], Phase.COMMIT) if "commit" in options else None
        tip = self.certificate(options["tip"], Phase.PREPARE) if "tip" in options else None
        headers = []
        if tip is not None:
            floor = self.solo.world.genesis.hash if commit is None else commit.vote.block_hash
            block_hash = tip.vote.block_hash
            while block_hash != floor:
                headers.insert(0, self.blocks[self.names[block_hash]])
                block_hash = headers[0].parent
        return self.solo.forge.view_change(signer, view, commit, tip, headers)

    def suspicion(self, plain, _options):
        now = self.solo.status
        return self.show(self.solo.recv(int(plain[1]), standing(now.view, now.height, suspects=True)))

    def view_change(self, plain, options):
        return self.show(self.solo.recv(int(plain[0]), self.change(int(plain[0]), int(plain[2]), options)))

    def new_view(self, plain, options):
        view, signers = int(plain[0]), [int(s) for s in plain[2].split(",")]
        holder = int(plain[plain.index("by") + 1]) if "by" in plain else -1
        changes = [self.change(s, view, options if s == holder else {}) for s in signers]
        return self.show(self.solo.recv(view % self.solo.world.n, self.solo.forge.new_view(view, changes)))

    def checkpoint(self, plain, _options):
        header, signer = self.blocks[plain[0]], int(plain[2])
        own = self.solo.replica._core.checkpoints.own.body
        body = CheckpointBody(0, header.height, header.hash, own.state_root)
        return self.show(self.solo.recv(signer, CheckpointVote(0, body, KEYS[signer].sign(body.digest(DOMAIN)))))

    def submit(self, plain, _options):
        return self.show(self.solo.submit(self.solo.tx(int(plain[0]), plain[1].encode())))

    def fire(self, plain, _options):
        return self.show(self.solo.fire(plain[0]))

    def restart(self, _plain, _options):
        self.solo = self.solo.reborn()
        return self.show(self.solo.log[0])

    def status(self, _plain, _options):
        s = self.solo.status
        tip = f"({s.tip_view},{s.tip_height})"
        return [
            (
                f"view {s.view} {'active' if s.active else 'asked for'}, height {s.height}, accepted {s.accepted}, tip {tip}, "
                f"stable {s.checkpoint}, T {s.timeout_ms} ms"
            ),
            s.waiting.sentence(),
        ]


def performed(script):
    """The script with the effects that its commands have now."""
    stage, lines = Stage(), []
    commands = [line for line in script.splitlines() if line.startswith((">", "#")) or not line]
    for line in commands:
        lines.append(line)
        if line.startswith("> "):
            lines += ["    " + effect for effect in stage.run(line[2:])]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_transcript(path, request):
    script = path.read_text()
    now = performed(script)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(now)
    assert now == script or request.config.getoption("--rewrite", default=False)


def test_there_are_transcripts_of_the_three_parts_of_the_protocol():
    assert {path.stem for path in SCRIPTS} >= {"normal_case", "view_change_base_is_tip", "checkpoint"}
