// One round: who won and why, every proposal, where each task went and what made the alternatives worse, and the
// instance that all allocators were given.

import { append, clear, digest, facts, fuel, gwei, h, integer, link, ms, octets, table, taskLink, times, wei } from "../dom.js";
import { Repeat, askEach } from "../each.js";
import { bars } from "../plot.js";
import { above, asGwei, percent } from "./money.js";
import { winnerWords } from "./rounds.js";

const AGAIN_MS = 1_000;

export function mountRound(root, platform, params) {
  const number = Number(params.id);
  const good = params.id !== null && Number.isSafeInteger(number) && number >= 0;
  append(root, h("p", {}, link("#/market", "Market")), h("h1", {}, good ? `Round ${number}` : "No such round"));
  if (!good) {
    append(root, h("p", {}, "A round is named by its number."));
    return () => {};
  }
  const body = h("div", {}, h("p", {}, "Asking the node."));
  append(root, h("p", { class: "tools" }, number > 1 ? link(`#/round/${number - 1}`, "round before") : null, " ", link(`#/round/${number + 1}`, "round after")), body);
  let shown = "";
  const repeat = new Repeat(AGAIN_MS, async (signal) => {
    const path = `/v1/allocations/${number}`;
    let round;
    try {
      round = await platform.get(path, { signal });
    } catch (error) {
      if (error.status !== 404) throw error;
      clear(body, h("p", {}, `${error.message}.`));
      return;
    }
    const skipped = (await askEach(platform, path, signal)).flatMap(({ index, value }) => value.skipped.map((item) => ({ node: index, ...item })));
    const sign = JSON.stringify([round.closed_ms, round.proposals.length, skipped.length]);
    if (sign === shown) return;
    shown = sign;
    clear(body, content(round, skipped));
  });
  return () => repeat.stop();
}

function content(round, skipped) {
  const closed = round.closed_ms !== null;
  return [
    h("p", { class: "verdict" }, round.verdict?.sentence ?? "The round is open: proposals are being taken."),
    facts([
      ["opened", [times(round.opened_ms), " in ", link(`#/block/${round.opened_height}`, `block ${round.opened_height}`)]],
      ["closed", closed ? [times(round.closed_ms), " in ", link(`#/block/${round.closed_height}`, `block ${round.closed_height}`)] : "not yet"],
      ["winner", winnerWords(round)], ["value", closed ? `${gwei(round.value)} = ${wei(round.value)}` : null],
      ["greedy's value", closed ? gwei(round.greedy_value) : null], ["against greedy", closed ? above(round.value, round.greedy_value) : null],
      ["proven bound", closed ? (round.bound === null ? "no proposal proved one" : gwei(round.bound)) : null],
      ["of the bound", closed && round.bound !== null ? percent(round.value, round.bound) : null],
      ["asked about", `${round.tasks} tasks, ${round.servers} servers`], ["instance", digest(round.digest, "instance digest")],
    ]),
    closed ? valuePlot(round) : null,
    h("h2", {}, "Proposals"), proposals(round), skippedWords(skipped),
    h("h2", {}, "Where the tasks went"), round.choices.length ? round.choices.map((choice) => choiceTable(choice)) : h("p", {}, closed ? "No task was in the round when it closed." : "The close tells."),
    h("h2", {}, "What the allocators were given"), instance(round.instance),
  ];
}

function valuePlot(round) {
  const accepted = round.proposals.filter((proposal) => proposal.accepted);
  const entries = [
    ["greedy (built in)", round.greedy_value], ...accepted.map(({ policy, validator, value }) => [`${policy}, node ${validator}`, value]),
    ...(round.bound === null ? [] : [["proven bound", round.bound]]),
  ];
  return bars({
    title: `Utility of the plans of round ${round.round}`, xLabel: "plan", yLabel: "utility, gwei", unit: "gwei", names: entries.map(([name]) => name), series: [{ name: "utility", values: entries.map(([, value]) => asGwei(value)) }],
    csv: { name: `round-${round.round}.csv`, headings: ["plan", "value_wei"], rows: () => entries },
  }).element;
}

function proposals({ proposals: all }) {
  if (!all.length) return h("p", {}, "None was ordered.");
  return table("All that were ordered", ["Node", "Policy", "Outcome", { text: "Value", class: "num" }, { text: "Proven bound", class: "num" }, { text: "Solver time", class: "num" }, "Why it was refused"], all.map((proposal) => (proposal.accepted
    ? [`node ${proposal.validator}`, proposal.policy, "accepted", gwei(proposal.value), proposal.bound === null ? "none" : gwei(proposal.bound), ms(proposal.solver_ms), ""]
    : [`node ${proposal.validator}`, proposal.policy, "refused", "", "", "", h("span", { title: proposal.reason.code }, proposal.reason.sentence)])));
}

function skippedWords(skipped) {
  if (!skipped.length) return null;
  return table("Allocators that made no proposal", ["Node", "Policy", "Why"], skipped.map(({ node, policy, reason }) => [`node ${node}`, policy, h("span", { title: reason.code }, reason.sentence)]));
}

function choiceTable({ task, server, alternatives }) {
  return h("div", { class: "choice" },
    h("p", {}, taskLink(task), server === null ? " went nowhere in this round." : ` went to server ${server}.`),
    alternatives.length ? table("The best alternatives, and what made them worse", ["Server", { text: "Worth", class: "num" }, "Why not"], alternatives.map((other) => [`server ${other.server}`, gwei(other.value), h("span", { title: other.reason.code }, other.reason.sentence)])) : h("p", { class: "muted" }, "There was no alternative."));
}

function instance(found) {
  if (!found) return h("p", {}, "This node no longer has it.");
  return [
    table("Tasks, in order of arrival", ["Task", "UE", "Source", { text: "Fuel limit", class: "num" }, { text: "Price, gwei/Mfuel", class: "num" }, { text: "Input", class: "num" }, "Deadline"], found.tasks.map((task) => [
      taskLink(task.offer_id), digest(task.ue, "address"), `server ${task.source}`, fuel(task.fuel_limit), integer(task.price), octets(task.input_octets), times(task.deadline_ms),
    ])),
    table("Servers", ["Server", { text: "Speed, fuel/s", class: "num" }, { text: "Slots", class: "num" }, { text: "Ask, gwei/Mfuel", class: "num" }, { text: "Capacity, fuel", class: "num" }, { text: "Credit, fuel", class: "num" }, { text: "Used, fuel", class: "num" }], found.servers.map((server) => [
      `server ${server.id}`, integer(server.speed), server.slots, integer(server.ask), integer(server.capacity), integer(server.credit), integer(server.used),
    ])),
  ];
}
