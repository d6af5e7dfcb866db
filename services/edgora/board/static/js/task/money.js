// Fuel and money of a task, to the wei, with the arithmetic beside the ledger's own figures (market.md 6).

import { facts, fuel, gwei, h, integer, wei } from "../dom.js";

const PER_GWEI_MFUEL = 1000n; // a price of 1 gwei per Mfuel is 1000 wei per fuel

export function drawMoney({ task, events, round, info }) {
  const { offer } = task;
  const final = events.find((event) => event.type === "TaskFinal")?.data;
  const settled = events.find((event) => event.type === "TaskSettled")?.data;
  const refunded = events.find((event) => event.type === "TaskRefunded")?.data;
  const price = BigInt(offer.price);
  const used = task.result?.fuel_used ?? null;
  const asked = round?.instance?.servers.find((server) => server.id === task.executor)?.ask;
  const money = (value) => [h("b", { "data-wei": String(value) }, wei(value)), h("br"), h("span", { class: "muted" }, gwei(value))];
  return facts([
    ["Fuel limit", fuel(offer.fuel_limit)],
    ["Fuel used", used === null ? "not run yet" : [fuel(used), h("span", { class: "muted" }, ` (${((100 * used) / offer.fuel_limit).toFixed(1)} % of the limit)`)]],
    ["Price", [`${integer(offer.price)} gwei/Mfuel`, asked === undefined ? null : h("span", { class: "muted" }, `; server ${task.executor} asked ${integer(asked)}`)]],
    ["Reserved", [money(task.maximum), sum(`${integer(offer.fuel_limit)} fuel x ${integer(offer.price)} x 1000`, BigInt(offer.fuel_limit) * price * PER_GWEI_MFUEL, task.maximum)]],
    ["Cost", final ? [money(final.amount), used === null ? null : sum(`${integer(used)} fuel x ${integer(offer.price)} x 1000`, BigInt(used) * price * PER_GWEI_MFUEL, final.amount)] : "none yet"],
    ["To the executor", final ? money(final.executor_share) : null],
    ["To the source", final ? [money(final.source_share), info ? sum(`floor(cost x ${info.params.lambda_bps} / 10,000)`, (BigInt(final.amount) * BigInt(info.params.lambda_bps)) / 10_000n, final.source_share) : null] : null],
    ["Paid on the chain", settled ? money(settled.paid) : null],
    ["Free again", settled ? money(settled.free) : refunded ? money(refunded.wei) : null],
  ], { id: "money" });
}

// The arithmetic, and whether it comes out as the ledger says.
function sum(words, mine, ledgers) {
  const agrees = mine === BigInt(ledgers);
  return [h("br"), h("small", { class: agrees ? "muted" : "disagrees" }, `= ${words}${agrees ? "" : `, which is ${wei(mine)} here: the figures disagree`}`)];
}
