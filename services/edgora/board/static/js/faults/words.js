// What the fault panel says: states, what an act will do, and what the others made of a liar. Text only, no DOM.

export const STATES = {
  up: { mark: "●", tone: "good", words: "up" },
  paused: { mark: "❚❚", tone: "warn", words: "paused: it stands still" },
  killed: { mark: "✕", tone: "bad", words: "killed: its processes are gone" },
  cut: { mark: "⇹", tone: "warn", words: "cut off from the other nodes" },
};

export const LIES = {
  equivocate: {
    name: "Equivocate", state: "proposes another block to each node",
    does: "Whenever it is the primary, it proposes a different block to each of the others for one height. Each votes for the one it got, so none gets a quorum; after a timeout the others move to the next primary.",
  },
  false_allocation: {
    name: "False allocation", state: "proposes false plans",
    does: "In every round it orders a plan that claims twice its worth, and one that the rules forbid. Every node recomputes both, refuses them, and the reason stands in the round's event.",
  },
  false_result: {
    name: "False result", state: "files false results",
    does: "Whatever it runs, for a user or as an auditor, comes out with a wrong octet, sealed and signed as usual. Only another run can tell: where a task is audited the user does not pay, and the liar does.",
  },
};

const ACTS = {
  kill: (n) => `Node ${n} ends as in a crash: its REST, its votes and what it was running are gone. Its disk stays.`,
  pause: (n) => `Node ${n} stands still as a stopped process does: connections stay open, and nothing comes out of them.`,
  cut: (n) => `Node ${n} loses every way to the other nodes. By itself it is well, and can order nothing.`,
  heal: (n) => `Node ${n} becomes a correct node again, over the disk that it has, and catches up with the others.`,
};

export const ACT_NAMES = { kill: "Kill", pause: "Pause", cut: "Cut off", lie: "Make it lie", heal: "Heal" };

// What will happen, before it is done.
export function consequences(index, act, lie, nodes) {
  const first = act === "lie" ? `Node ${index} lies under its own key. ${LIES[lie].does}` : ACTS[act](index);
  return [first, quorumForecast(index, act, nodes)];
}

// How many faulty nodes that makes, and whether the rest are enough.
export function quorumForecast(index, act, nodes) {
  const n = nodes.length;
  const f = Math.floor((n - 1) / 3);
  const quorum = Math.floor((n + f) / 2) + 1;
  const after = nodes.map((node) => (node.index === index ? act !== "heal" : isFaulty(node)));
  const bad = after.filter(Boolean).length;
  if (bad === 0) return `Then all ${n} nodes are correct.`;
  const count = `Then ${bad} of ${n} ${bad === 1 ? "is" : "are"} faulty`;
  if (bad <= f) return `${count}: the ${n - bad} others are enough for the ${quorum} votes that a block needs, so work goes on.`;
  return `${count}, more than the ${f} that ${n} nodes bear: while fewer than ${quorum} vote alike nothing can be ordered. Nothing is lost; it goes on when one is healed.`;
}

export function isFaulty(node) {
  return node.state !== "up" || node.lie !== null;
}

export function stateWords(node) {
  const lie = node.lie === null ? "" : `${LIES[node.lie].state}`;
  const { words } = STATES[node.state];
  if (!lie) return words;
  return node.state === "up" ? `up, and lying: ${lie}` : `${words}; it was lying: ${lie}`;
}

const DISPUTED = new Set(["LOST_DISPUTE", "NO_VERDICT", "NO_KEY"]);
const nodesOf = (indexes) => `node${indexes.length === 1 ? "" : "s"} ${indexes.join(", ")}`;

// What a ledger event tells of a fault, as {text, task}; null for all other events.
export function noticed(event) {
  const { data } = event;
  switch (event.type) {
    case "ProposalRefused":
      if (data.reason.code === "DUPLICATE_PLAN") return null; // two honest servers may think alike
      return { text: `round ${data.round}: the plan "${data.policy}" of node ${data.server} was refused: ${data.reason.sentence}` };
    case "Verdict":
      if (!data.against.length) return null;
      return {
        task: data.offer_id,
        text: `run again, ${nodesOf(data.agreeing)} agree, and ${nodesOf(data.against)} filed something else: the result ${data.upheld ? "stands" : "is void"}`,
      };
    case "TaskEnded":
      return DISPUTED.has(data.reason.code) ? { task: data.offer_id, text: `ended without pay: ${data.reason.sentence}` } : null;
    case "TaskReopened":
      return { task: data.offer_id, text: `open again: ${data.reason.sentence}` };
    case "AuditMissed":
      return { task: data.offer_id, text: `node ${data.auditor} did not answer as an auditor` };
    default:
      return null;
  }
}
