// What UEs pay, and what settling costs in gas: from the tasks and batches that the nodes still know.

import { short } from "../dom.js";
import { askEach } from "../each.js";
import { bars, lines } from "../plot.js";
import { asGwei } from "./money.js";

const TASKS = 2_000;
const AGAIN = 200;
const SHOWN = 8;
const SPENDERS = 5;
const BATCHES = 200;
const PAID = new Set(["FINAL", "CERTIFIED", "SETTLED"]);
const RUNNING = new Set(["OPEN", "ASSIGNED", "DONE"]);

export class Spending {
  #tasks = new Map();
  #batches = new Map();

  constructor(platform) {
    this.platform = platform;
    this.bars = bars({
      title: "UEs' spending", xLabel: "UE", yLabel: "gwei", unit: "gwei", names: [], series: [{ name: "charged", values: [] }, { name: "reserved", values: [] }], empty: "no UE has offered a task yet",
      csv: { name: "spending.csv", headings: ["ue", "tasks", "charged_wei", "reserved_wei"], rows: () => this.#ues().map(({ ue, tasks, charged, reserved }) => [ue, tasks, charged, reserved]) },
    });
    this.curve = lines({
      title: `Charged so far, the ${SPENDERS} largest spenders`, xLabel: "time of the result", yLabel: "gwei", unit: "gwei", time: true, series: [], empty: "no task was charged yet",
      csv: { name: "charges.csv", headings: ["done_ms", "ue", "task", "amount_wei"], rows: () => this.#charges().map((task) => [task.done_ms, task.offer.ue, task.id, task.amount]) },
    });
    this.gas = lines({
      title: "Gas of settling, for each task", xLabel: "time of the batch", yLabel: "gas for each task", unit: "gas", time: true, series: [], empty: "no batch was settled yet",
      csv: { name: "gas.csv", headings: ["batch", "frozen_ms", "state", "lines", "gas_by_model", "gas_used"], rows: () => this.#settled().map((b) => [b.id, b.frozen_ms, b.state, b.lines, b.gas, b.gas_used]) },
    });
    this.elements = [this.bars.element, this.curve.element, this.gas.element];
  }

  async refresh(signal) {
    const tasks = this.#tasks.size ? (await this.platform.get(`/v1/tasks?limit=${AGAIN}`, { signal })).items : await this.platform.list("/v1/tasks", { most: TASKS, signal });
    // what a batch cost on the chain only the node that settled it knows
    const lists = await askEach(this.platform, `/v1/batches?limit=${this.#batches.size ? 20 : BATCHES}`, signal);
    // kept only when all is there: the CSV must never be ahead of the picture
    for (const task of tasks) this.#tasks.set(task.id, task);
    for (const batch of lists.flatMap(({ value }) => value.items)) {
      const known = this.#batches.get(batch.id);
      const further = !known || known.state !== "SETTLED" || batch.state === "SETTLED" ? batch : known;
      this.#batches.set(batch.id, { ...further, gas_used: batch.gas_used ?? known?.gas_used ?? null });
    }
  }

  paint() {
    const ues = this.#ues();
    const shown = ues.slice(0, SHOWN);
    this.bars.update({
      title: ues.length > SHOWN ? `UEs' spending, the ${SHOWN} largest of ${ues.length}` : "UEs' spending", names: shown.map(({ ue }) => short(ue, 4, 2)),
      series: [{ name: "charged", values: shown.map(({ charged }) => asGwei(charged)) }, { name: "reserved", values: shown.map(({ reserved }) => asGwei(reserved)) }],
    });
    const charges = this.#charges();
    this.curve.update({ series: ues.filter(({ charged }) => charged > 0n).slice(0, SPENDERS).map(({ ue }) => ({ name: short(ue, 4, 4), points: summed(charges.filter(({ offer }) => offer.ue === ue)) })) });
    const batches = this.#settled();
    this.gas.update({
      series: [
        { name: "by the model", points: batches.map((batch) => [batch.frozen_ms, batch.gas / batch.lines]) },
        { name: "by the chain's receipt", points: batches.filter(({ gas_used }) => gas_used !== null).map((batch) => [batch.frozen_ms, batch.gas_used / batch.lines]) },
      ].filter(({ points }) => points.length),
    });
  }

  // UEs by what they were charged, the largest first; sums in wei as BigInt.
  #ues() {
    const found = new Map();
    for (const { offer, state, amount, maximum } of this.#tasks.values()) {
      if (!found.has(offer.ue)) found.set(offer.ue, { ue: offer.ue, tasks: 0, charged: 0n, reserved: 0n });
      const sums = found.get(offer.ue);
      sums.tasks += 1;
      if (PAID.has(state)) sums.charged += BigInt(amount);
      if (RUNNING.has(state)) sums.reserved += BigInt(maximum);
    }
    return [...found.values()].sort((a, b) => (a.charged === b.charged ? (a.ue < b.ue ? -1 : 1) : a.charged > b.charged ? -1 : 1));
  }

  #charges() {
    return [...this.#tasks.values()].filter(({ state, done_ms }) => PAID.has(state) && done_ms !== null).sort((a, b) => a.done_ms - b.done_ms);
  }

  #settled() {
    return [...this.#batches.values()].filter(({ lines: count }) => count > 0).sort((a, b) => a.id - b.id);
  }
}

function summed(tasks) {
  let sum = 0n;
  return tasks.map(({ done_ms, amount }) => [done_ms, asGwei(sum += BigInt(amount))]);
}
