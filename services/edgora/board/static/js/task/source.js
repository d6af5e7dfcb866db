// Everything that the nodes tell of one task, kept fresh while the task lives.
//
// The task's own event stream says when something happened; then the resources that it changed are asked again. Why it
// waits depends on more than events (elapsed fuel, votes, holders), so that is asked each second while it waits.

import { readEvents } from "../feed.js";
import { isSilence } from "../platform.js";

const WHY_MS = 1_000;
const PROOF_MS = 3_000;
export const FINISHED = new Set(["SETTLED", "REFUNDED"]);
export const UNPAID = new Set(["EXPIRED", "CANCELLED", "LATE", "FAILED", "DISPUTED", "UNPAYABLE", "REFUNDED"]);

export class TaskSource {
  #stop = new AbortController();
  #timers = [];
  #headers = new Map();

  constructor(platform, id, onChange) {
    this.platform = platform;
    this.id = id;
    this.onChange = onChange;
    this.task = null;
    this.why = null;
    this.tx = null;
    this.round = null;
    this.batch = null;
    this.settlement = null; // {height, time_ms} of the SETTLEMENT transaction's block
    this.proofs = null;
    this.events = [];
    this.missing = null; // what a node says if it does not know the task
  }

  start() {
    this.#repeat(WHY_MS, () => this.#askWhy());
    this.#repeat(PROOF_MS, () => this.#askProofs());
    this.#follow();
  }

  stop() {
    this.#stop.abort();
    for (const timer of this.#timers) clearTimeout(timer);
  }

  // No further news is to be expected of it.
  get settled() {
    return this.task !== null && FINISHED.has(this.task.state);
  }

  async #follow() {
    let after = 0;
    while (!this.#stop.signal.aborted) {
      await this.#askTask();
      try {
        await readEvents(`${this.platform.node.url}/v1/tasks/${this.id}/events`, {
          after, signal: this.#stop.signal,
          onEvent: (event) => {
            if (event.id <= after) return;
            after = event.id;
            this.events.push(event);
            this.#soon();
          },
        });
        await this.#askTask();
        if (this.settled) return; // the stream ends with the task
      } catch { /* the node is gone, or does not know the task yet: the shell says the one, `missing` the other */ }
      await new Promise((done) => { this.#timers.push(setTimeout(done, 1_000)); });
    }
  }

  // Several events of one block: one round of questions.
  #soon() {
    if (this.pending) return;
    this.pending = setTimeout(() => {
      this.pending = 0;
      this.#askTask();
      this.#askWhy();
    }, 50);
    this.#timers.push(this.pending);
  }

  async #askTask() {
    const task = await this.#read(`/v1/tasks/${this.id}`, (problem) => { this.missing = problem.message; });
    if (task) {
      this.missing = null;
      const first = this.task === null;
      this.task = task;
      if (first) this.#askProofs(); // and not only with the next turn
      if (this.tx === null && task.tx_hash) this.tx = await this.#read(`/v1/tx/${task.tx_hash}`);
      if (task.round !== null && this.round?.round !== task.round) this.round = await this.#read(`/v1/allocations/${task.round}`);
      if (task.batch !== null && this.batch?.state !== "SETTLED") await this.#askBatch(task.batch);
    }
    this.onChange();
  }

  async #askBatch(number) {
    this.batch = (await this.#read(`/v1/batches/${number}`)) ?? this.batch;
    if (this.settlement || !this.batch?.settlement_tx) return;
    const status = await this.#read(`/v1/tx/${this.batch.settlement_tx}`);
    if (status?.height) this.settlement = { height: status.height, time_ms: await this.#timeOf(status.height), tx: status.tx };
  }

  async #timeOf(height) {
    if (!this.#headers.has(height)) {
      const found = await this.#read(`/v1/headers?from=${height}&to=${height}`);
      if (found) this.#headers.set(height, found.items[0]?.time_ms ?? null);
    }
    return this.#headers.get(height) ?? null;
  }

  async #askWhy() {
    if (this.settled && this.why && FINISHED.has(this.why.state)) return;
    const why = await this.#read(`/v1/tasks/${this.id}/why`);
    if (why === null) return;
    this.why = why;
    this.onChange();
  }

  async #askProofs() {
    if (!this.task || this.#provenToTheEnd()) return;
    const proofs = await this.#read(`/v1/tasks/${this.id}/proof`);
    if (proofs === null) return;
    this.proofs = proofs;
    this.onChange();
  }

  #provenToTheEnd() {
    const names = new Set(this.proofs?.items.map((item) => item.name));
    const last = UNPAID.has(this.task.state) ? (this.task.result ? "RESULT_HASH" : "TASK") : "SETTLEMENT";
    return names.has(last) && this.settled;
  }

  async #read(path, onProblem) {
    try {
      return await this.platform.get(path, { signal: this.#stop.signal });
    } catch (error) {
      if (!isSilence(error)) throw error;
      if (error.status) onProblem?.(error);
      return null;
    }
  }

  #repeat(period, act) {
    const turn = async () => {
      if (this.#stop.signal.aborted) return;
      if (!document.hidden) await act();
      this.#timers.push(setTimeout(turn, period));
    };
    turn();
  }
}
