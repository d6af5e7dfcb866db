"""Mutation power: planted bugs that the suite must catch (contracts.md 12).

`python tests/chain/mutants.py [NAME ...]` compiles each mutant, runs the tests of this folder that need no node against
it, and reports killed or survived; exit code 1 if one survives. A mutant is one substitution in one source file, so a
change of the contract that makes one obsolete fails loudly here.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from edgora.contracts import build

HERE = Path(__file__).resolve().parent
BATTERY = (
    "test_money_attacks.py", "test_attacks.py", "test_vectors.py", "test_one_bit.py", "test_payload_paths.py",
    "test_invariants.py",
)  # fmt: skip


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str


PROOF, CONSORTIUM, MARKET, SETTLEMENT = (
    f"src/{name}.sol" for name in ("LedgerProof", "Consortium", "TaskMarket", "Settlement")
)

MUTANTS = (
    Mutant("cap unchecked", SETTLEMENT, "&& uint96(word >> 96) + total <= terms >> 160", ""),
    Mutant("balance unchecked", SETTLEMENT, "&& uint96(word) >= total", ""),
    Mutant("expiry unchecked", SETTLEMENT, "&& block.timestamp <= uint40(terms >> 120)", ""),
    Mutant("expiry a second early", SETTLEMENT, "block.timestamp <= uint40(terms >> 120)", "block.timestamp < uint40(terms >> 120)"),
    Mutant("nobody pays", SETTLEMENT, "ue != address(0) &&", ""),
    Mutant("section skip without undo", SETTLEMENT,
           "_undoLines(payload, offset + _SECTION, end, credits);\n                    emit SectionSkipped", "emit SectionSkipped"),
    Mutant("lock skip without undo", SETTLEMENT,
           "_undoLines(payload, offset + 32, end, credits);\n                    emit LockSkipped", "emit LockSkipped"),
    Mutant("undo forgets the task", SETTLEMENT, "amount - fee + _ONE_TASK;", "amount - fee;"),
    Mutant("lock deadline unchecked", SETTLEMENT, "block.timestamp <= lock.deadline && amount", "amount"),
    Mutant("lock amount unchecked", SETTLEMENT, "block.timestamp <= lock.deadline && amount <= lock.amount", "block.timestamp <= lock.deadline"),
    Mutant("remainder keeps its deadline", SETTLEMENT, "slot.deadline = 0;", ""),
    Mutant("sequence unchecked", SETTLEMENT, "if (batchId != last + 1) revert SettlementOutOfOrder(batchId, last + 1);", ""),
    Mutant("receipt root unchecked", SETTLEMENT, "if (!included) revert SettlementBadReceipt();", ""),
    Mutant("receipt code unchecked", SETTLEMENT, "c.receiptHeight, c.receiptIndex, 0, output", "c.receiptHeight, c.receiptIndex, 1, output"),
    Mutant("kind not in the output", SETTLEMENT, "mstore(0, shl(240, kind))", "mstore(0, 0)"),
    Mutant("batch names no contract", SETTLEMENT, "uint256(uint160(address(this)))", "0"),
    Mutant("batch names no chain", SETTLEMENT, "_BATCH_TYPEHASH, block.chainid,", "_BATCH_TYPEHASH, 0,"),
    Mutant("spent not raised", SETTLEMENT, "word = word + (total << 96) - total;", "word = word - total;"),
    Mutant("shares swapped", SETTLEMENT, "mstore(word, add(mload(word), fee))", "mstore(word, add(mload(word), sub(amount, fee)))"),
    Mutant("reputation sums swapped", SETTLEMENT,
           "balance | desired << 96 | actual << 152", "balance | actual << 96 | desired << 152"),
    Mutant("sums wrap", SETTLEMENT, "if (desired > type(uint56).max) desired = type(uint56).max;", ""),
    Mutant("head not written", SETTLEMENT, "_head.batchId = batchId;", ""),
    Mutant("octets behind the end", SETTLEMENT, "if (offset != payload.length) revert SettlementBadPayload(offset);", ""),
    Mutant("place unchecked", SETTLEMENT, "iszero(and(lt(receiver, places), lt(executor, places)))", "iszero(lt(receiver, places))"),
    Mutant("unknown server", SETTLEMENT, "if (word >> 248 == 0) revert SettlementBadPayload(_COUNTS + _ROW * place);", ""),
    Mutant("fine beyond a tenth", SETTLEMENT, "uint256(id) << 96 | s.stake / TENTH", "uint256(id) << 96 | s.stake"),
    Mutant("a tenth a line", SETTLEMENT, "fined[i] -= taken;", ""),
    Mutant("fine not taken", SETTLEMENT, "s.stake -= uint96(taken);", ""),
    Mutant("signer unchecked", PROOF, "if (signer != validator) revert LedgerProofBadSigner(i);", ""),
    Mutant("quorum of q - 1", PROOF, "(n + (n - 1) / 3) / 2 + 1", "(n + (n - 1) / 3) / 2"),
    Mutant("votes counted by signatures", PROOF,
           "if (left != 0) revert LedgerProofBadQuorum((SIGNATURE * needed - left) / SIGNATURE, needed);", ""),
    Mutant("v unchecked", PROOF, "if gt(lt(sub(v, 27), 2), gt(calldataload(add(p, 0x20)), half)) {",
           "if lt(v, 2) { v := add(v, 27) }\n            if gt(lt(sub(v, 27), 2), gt(calldataload(add(p, 0x20)), half)) {"),
    Mutant("high s taken", PROOF, "gt(calldataload(add(p, 0x20)), half)", "0"),
    Mutant("links unchecked", PROOF, "if (!child) revert LedgerProofBadLink(offset / HEADER);", "child;"),
    Mutant("link heights unchecked", PROOF, "\n                    && heightOf(headers, offset) == heightOf(headers, offset - HEADER) + 1", ""),
    Mutant("path length unchecked", PROOF, "and(eq(offset, add(path.offset, shl(5, path.length))), eq(node, root))", "eq(node, root)"),
    Mutant("index beyond the count", PROOF, "held := lt(index, count)", "held := 1"),
    Mutant("epoch not raised", CONSORTIUM, "uint32 epoch = uint32(current + 1);", "uint32 epoch = uint32(current);"),
    Mutant("header epoch unchecked", CONSORTIUM, "if (epoch != current) revert ConsortiumWrongEpoch(epoch, current);", "epoch = current;"),
    Mutant("next epoch unannounced", CONSORTIUM, "|| announced != LedgerProof.nextEpochOf(header)", ""),
    Mutant("unbonding validators", CONSORTIUM, "s.stake < MIN_STAKE || s.unbondAt != 0", "s.stake < MIN_STAKE"),
    Mutant("unstaked validators", CONSORTIUM, "s.stake < MIN_STAKE || s.unbondAt != 0", "s.unbondAt != 0"),
    Mutant("stake of a validator", CONSORTIUM, "when == 0 || _isValidator(s.signer)", "when == 0"),
    Mutant("stake returned early", CONSORTIUM, "if (block.timestamp < when) revert ConsortiumTooEarly(when);", ""),
    Mutant("stake returned twice", CONSORTIUM, "        s.stake = 0;\n        emit StakeReturned", "        emit StakeReturned"),
    Mutant("slash for equal votes", CONSORTIUM, "hashA == hashB || ", ""),
    Mutant("slash of another's vote", CONSORTIUM,
           "|| signer != LedgerProof.recover(_voteDigest(phase, epoch, view_, height, hashB), sigB)",
           "|| LedgerProof.recover(_voteDigest(phase, epoch, view_, height, hashB), sigB) == address(0)"),
    Mutant("slash pays all", CONSORTIUM, "uint256 bounty = stake / TENTH;", "uint256 bounty = stake;"),
    Mutant("anyone is the owner", CONSORTIUM, "if (s.owner != msg.sender) revert ConsortiumNotOwner();", ""),
    Mutant("refund early", MARKET, "if (block.timestamp <= deadline) revert TaskMarketTooEarly(deadline);", ""),
    Mutant("refund a second early", MARKET, "if (block.timestamp <= deadline)", "if (block.timestamp < deadline)"),
    Mutant("refund keeps the lock", MARKET, "lock.amount = 0;\n        lock.deadline = 0;", ""),
    Mutant("open overwrites", MARKET, "if (lock.amount != 0) revert TaskMarketOfferOpen(key);", ""),
    Mutant("withdraw not zeroed", MARKET, "        e.balance = 0;", ""),
    Mutant("exit at once", MARKET, "if (when == 0 || block.timestamp < when)", "if (when == 0)"),
    Mutant("exit twice", MARKET, "        a.balance = 0;\n        a.exitAt = 0;", "        a.exitAt = 0;"),
    Mutant("exit forgets what was spent", MARKET, "        a.balance = 0;\n        a.exitAt = 0;", "        a.balance = 0;\n        a.spent = 0;\n        a.exitAt = 0;"),
    Mutant("deposit cancels an exit", MARKET, "a.balance = uint96(balance);", "a.balance = uint96(balance);\n        a.exitAt = 0;"),
    Mutant("exit order without its time", MARKET, "if (block.timestamp > validUntil) revert TaskMarketBadDeadline(validUntil);", ""),
    Mutant("exit nonce stays", MARKET, "a.exitNonce += 1;", ""),
    Mutant("exit of another", MARKET, "signer == address(0) || signer != ue", "signer == address(0)"),
    Mutant("refund without a guard", MARKET, "function refund(address ue, bytes32 offer) external nonReentrant {\n        bytes32 key = lockKey(ue, offer);",
           "function refund(address ue, bytes32 offer) external {\n        bytes32 key = lockKey(ue, offer);\n        _send(ue, _lock[key].amount);\n        if (_lock[key].amount == 0) return;"),
)  # fmt: skip

# Not planted, because nothing can see them: `_head` written before the sections (whatever fails reverts all of it), a
# lock line that asks whether its lock exists (a lock that does not has deadline 0), and a precompile that fails taken
# for nobody (it fails below 3,000 gas, and the 64th that EIP-150 keeps back of that pays for nothing more).

QUICK = ("section skip without undo", "v unchecked", "remainder keeps its deadline")
"""What the test run hunts, the first of them by default: the others are marked slow."""


def mutate(mutant: Mutant, sources: dict[str, str]) -> dict[str, str]:
    """The sources with the bug. Raises ValueError if its place is not there exactly once."""
    text = sources[mutant.file]
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
    return {**sources, mutant.file: text.replace(mutant.old, mutant.new)}


def hunt(mutant: Mutant, battery: tuple[str, ...] = BATTERY) -> str | None:
    """The test that kills the mutant, or None if it survives."""
    text = build.artifact_text(build.compile_sources(mutate(mutant, build.read_sources())))
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "Settlement.json"
        artifact.write_text(text, "utf-8")
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider",
             *(str(HERE / name) for name in battery)],
            env={**os.environ, "EDGORA_TEST_ARTIFACT": str(artifact)},
            capture_output=True, text=True, check=False, cwd=HERE.parents[1],
        )  # fmt: skip
    if run.returncode == 0:
        return None
    if run.returncode != 1:
        raise RuntimeError(f"{mutant.name}: the battery did not run\n{run.stdout}{run.stderr}")
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split("::")[1].split(" ")[0] if failed else "?"


def main(names: list[str]) -> int:
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        sys.stderr.write(f"no such mutant: {', '.join(sorted(unknown))}\n")
        return 2
    survivors = []
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    for mutant in chosen:
        killer = hunt(mutant)
        print(f"{'killed  ' if killer else 'SURVIVED'}  {mutant.name}{f'  by {killer}' if killer else ''}", flush=True)
        if killer is None:
            survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
