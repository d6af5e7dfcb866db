// Why this server: the pairs of the task in its round, and what made the others worse (market.md 4).
//
// The three best alternatives and their reasons are the ledger's words. Time and value of each pair follow from the
// round's instance by the formulas that every replica applies; they are computed here in the same integers.

import { gwei, h, integer, link, ms, table, wei } from "../dom.js";

const up = (numerator, denominator) => (numerator + denominator - 1n) / denominator;

// T in ms and W in wei of one pair, as market.md 4 defines them.
export function pairOf(task, server, source) {
  const [limit, price, input, output] = [task.fuel_limit, task.price, task.input_octets, task.output_octets].map(BigInt);
  const local = server.id === task.source;
  const forward = local ? 0n : BigInt(source.forward) * up(input, 1024n);
  const time = up(1000n * limit, BigInt(server.speed)) + up(1000n * output, BigInt(server.uplink)) + (local ? 0n : up(1000n * input, BigInt(source.uplink)));
  return { time: Number(time), value: 1000n * limit * (price - BigInt(server.ask)) - forward, forward };
}

export function drawChoice({ task, why, round }) {
  const choice = why?.choice ?? round?.choices.find((one) => one.task === task.id) ?? null;
  if (!choice) return h("p", { class: "muted" }, task.round === null ? "No round has placed it yet." : "The round's choices are no longer known here.");
  const known = round?.instance?.tasks.find((one) => one.offer_id === task.id);
  const servers = new Map((round?.instance?.servers ?? []).map((server) => [server.id, server]));
  const pair = (id) => {
    const server = servers.get(id);
    const source = known && servers.get(known.source);
    return server && known && (source || id === known.source) ? pairOf(known, server, source ?? server) : null;
  };
  const row = (id, value, reason, chosen) => {
    const found = pair(id);
    const server = servers.get(id);
    return [
      { cell: [link("#/servers", `server ${id}`), chosen ? " " : null, chosen ? h("span", { class: "tag", "data-kind": "good" }, "chosen") : null] },
      { cell: server ? integer(server.ask) : "" }, { cell: found ? ms(found.time) : "" },
      { cell: value === null ? "" : h("span", { title: wei(value), "data-wei": String(value) }, gwei(value)) }, reason,
    ];
  };
  const rows = [];
  if (choice.server !== null) rows.push(row(choice.server, pair(choice.server)?.value ?? null, round?.verdict ? `${round.winner_validator === null ? "Built-in greedy" : `${round.winner} of server ${round.winner_validator}`} won the round: ${round.verdict.sentence}.` : "", true));
  for (const other of choice.alternatives) rows.push(row(other.server, other.value, `${other.reason.sentence}.`, false));
  return h("div", {},
    table(`Pairs of this task in round ${task.round ?? round?.round ?? ""}`, ["Server", { text: "Ask, gwei/Mfuel", class: "num" }, { text: "Time T", class: "num" }, { text: "Worth W", class: "num" }, "Why, or what made it worse"], rows, { id: "alternatives" }),
    h("p", { class: "muted" }, "W is what the pair is worth to the market: fuel limit times (price - ask), less what forwarding costs. A server asks its price; the plan with the most W in all wins the round."),
    task.round === null ? null : h("p", {}, link(`#/round/${task.round}`, `All of round ${task.round}: its proposals, and how each compares with greedy`)));
}
