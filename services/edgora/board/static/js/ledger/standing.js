// Who takes part in consensus, and whether that is enough: what each reachable node says of the others, together with
// what this page itself sees.
//
// A validator is *heard* if some other validator that answers this page has heard from it in the last two seconds over a
// live link (nodes speak twice a second), or, where no other one can be asked, if it answers this page itself. So a node
// that was stopped, paused or cut off from the others is silent, whichever way it fails, and one whose REST alone is
// out of reach is not.

import { clock, ms } from "../dom.js";

export const QUIET_MS = 2_000;
const STALE_MS = 2_500; // a status older than that is no witness any more

// Remembers when each node's last status came, since a status says "so many ms ago".
export class Hearing {
  #seen = new Map();

  take(statuses) {
    for (const { index, status } of statuses.values()) {
      const before = this.#seen.get(index);
      if (status && before?.status !== status) this.#seen.set(index, { status, at: Date.now() });
      if (!status) this.#seen.delete(index);
    }
  }

  // How consensus stands at this moment; null before any node has answered.
  standing(statuses, now = Date.now()) {
    const witnesses = [...this.#seen].filter(([, { at }]) => now - at <= STALE_MS).map(([index, { status, at }]) => ({ index, status, age: now - at }));
    if (!witnesses.length) return null;
    const newest = witnesses.reduce((best, one) => (one.status.committed_height > best.status.committed_height ? one : best));
    const { quorum, voters } = newest.status;
    const nodes = voters.map(({ index, address }) => hear(index, address, statuses.get(index), witnesses, now));
    const silent = nodes.filter((node) => !node.heard);
    const heard = nodes.length - silent.length;
    return { nodes, silent, heard, quorum, validators: nodes.length, enough: heard >= quorum, newest: newest.status };
  }
}

function hear(index, address, known, witnesses, now) {
  const own = witnesses.find((witness) => witness.index === index);
  const words = witnesses.filter((witness) => witness.index !== index).map(({ status, age }) => {
    const voter = status.voters.find((one) => one.index === index);
    return { connected: voter.connected, ago: voter.last_heard_ms === null ? null : voter.last_heard_ms + age, voter };
  });
  const last = words.reduce((least, { ago }) => (ago !== null && (least === null || ago < least) ? ago : least), null);
  const heard = words.length ? words.some(({ connected, ago }) => connected && ago !== null && ago < QUIET_MS) : Boolean(own);
  const gone = known?.ok === false ? known.gone_ms : null;
  return {
    index, address, heard, answers: known?.ok ?? null, gone_ms: gone,
    since_ms: heard ? null : last !== null ? now - last : gone,
    height: own?.status.committed_height ?? Math.max(0, ...words.map(({ voter }) => voter.committed_height)),
    view: own?.status.view ?? Math.max(0, ...words.map(({ voter }) => voter.view)),
    sentence: own?.status.sentence ?? null, status: own?.status ?? null,
  };
}

const one = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// "node 2 is silent since 13:04:05.120"
function silence({ index, since_ms }) {
  return since_ms === null ? `node ${index} is silent and was never heard` : `node ${index} is silent since ${clock(since_ms)}`;
}

// The standing in words, without anything that changes while it stays the same.
export function standingWords(found) {
  const needed = `${found.quorum} of ${found.validators} votes are needed to commit a block`;
  const silent = found.silent.map(silence).join(", ");
  if (found.newest.alarm) return `Voting has stopped for good: ${found.newest.alarm}`;
  if (!found.enough) return `The ledger stands still: ${needed}, and only ${found.heard} of ${found.validators} nodes are heard. ${capital(silent)}.`;
  if (found.silent.length) return `The ledger goes on: ${needed}, and ${one(found.heard, "node")} are heard. ${capital(silent)}.`;
  return `All ${found.validators} nodes are heard; ${needed}.`;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// A node's own sentence; its "since N ms" as a duration.
export function nodeWords({ sentence, status }) {
  return sentence === null ? null : sentence.replace(/; since \d+ ms$/, `, for ${ms(status.waiting_since_ms)}`);
}

export function heardWords(node, now = Date.now()) {
  if (node.heard) return "yes";
  return node.since_ms === null ? "never" : `silent for ${ms(Math.max(0, now - node.since_ms))}`;
}

export function answerWords({ answers, gone_ms }) {
  if (answers === null) return "asking";
  return answers ? "yes" : `no, since ${clock(gone_ms)}`;
}
