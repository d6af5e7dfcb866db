// The phases of a task as the city shows them: name, words, and a shape of its own, so that nothing hangs on colour.
//
// They are finer than the ledger's states where something moves (an OPEN task that was just sealed and uploaded, an
// ASSIGNED one on its way to its executor). Shapes are paths around 0,0 within 8 units; `solid` fills them.

export const PHASES = [
  { name: "sealed", words: "sealed input on its way to the source", shape: "M-5-1h10v7h-10zM-3-1v-2.5a3 3 0 0 1 6 0v2.5", tone: "move" },
  { name: "ordered", words: "on the ledger, waits for a round", shape: "M6 0a6 6 0 1 1-12 0a6 6 0 1 1 12 0z", tone: "wait" },
  { name: "allocated", words: "a round gave it to a server", shape: "M0-7.5 7.5 0 0 7.5-7.5 0z", tone: "move" },
  { name: "forwarded", words: "source forwards it to the executor", shape: "M-6-6.5 7.5 0-6 6.5-2.5 0z", tone: "move", solid: true },
  { name: "running", words: "runs on its executor", shape: "M-3.5-6 6.5 0-3.5 6z", tone: "run", solid: true },
  { name: "filed", words: "result filed, audit not decided", shape: "M-5.5-5.5h11v11h-11z", tone: "run", solid: true },
  { name: "final", words: "result final, waits for its batch", shape: "M-3.2-6.5h6.4l5.3 6.5-5.3 6.5h-6.4l-5.3-6.5z", tone: "wait" },
  { name: "certified", words: "batch certified, waits for the chain", shape: "M6.5 0a6.5 6.5 0 1 1-13 0a6.5 6.5 0 1 1 13 0zM-3 0l2.2 2.4 4-4.6", tone: "good" },
  { name: "paid", words: "paid on the chain", shape: "M6.5 0a6.5 6.5 0 1 1-13 0a6.5 6.5 0 1 1 13 0zM-3-1.6h6M-3 1.6h6", tone: "good", bold: true },
  { name: "ended", words: "ended without pay", shape: "M-5.5-5.5 5.5 5.5M5.5-5.5-5.5 5.5", tone: "bad", bold: true },
];

export const PHASE = Object.fromEntries(PHASES.map((phase) => [phase.name, phase]));
export const OVER = new Set(["paid", "ended"]);

// The phase that a ledger state is shown as, for tasks whose events are older than the page's history.
export const OF_STATE = {
  OPEN: "ordered", ASSIGNED: "running", DONE: "filed", FINAL: "final", CERTIFIED: "certified", SETTLED: "paid",
};

// The ledger's states by their number (wire.market.TaskState), as events name them.
export const STATES = [
  "OPEN", "ASSIGNED", "DONE", "FINAL", "CERTIFIED", "SETTLED", "EXPIRED", "CANCELLED", "LATE", "FAILED", "DISPUTED",
  "UNPAYABLE", "REFUNDED",
];
