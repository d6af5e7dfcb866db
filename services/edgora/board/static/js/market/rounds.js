// The rounds that have closed: kept by number, asked for again while they are open.

import { gwei, h, link, times } from "../dom.js";
import { askEach } from "../each.js";
import { lines } from "../plot.js";
import { LiveTable } from "../rows.js";
import { above, asGwei, percent } from "./money.js";

const KEPT = 300;
const ASKED = 20;
const LISTED = 50;
const MOST_POLICIES = 4;

// What all parts of the view read: rounds by number, and which allocators of which node made no proposal.
export class Rounds {
  #rounds = new Map();
  skipped = new Map(); // "round node policy" -> {round, node, policy, reason}

  constructor(platform) {
    this.platform = platform;
  }

  async refresh(signal) {
    const first = this.#rounds.size === 0;
    const items = first ? await this.platform.list("/v1/allocations", { most: KEPT, signal }) : (await this.platform.get(`/v1/allocations?limit=${ASKED}`, { signal })).items;
    if (!first && items.length && items.at(-1).round > Math.max(...this.#rounds.keys()) + 1) { // the page was away: fill the gap
      items.push(...await this.platform.list("/v1/allocations", { most: KEPT, enough: ({ round }) => this.#rounds.has(round), signal }));
    }
    for (const round of items) this.#rounds.set(round.round, round);
    const stale = [...this.#rounds.keys()].sort((a, b) => b - a).slice(KEPT);
    for (const number of stale) this.#rounds.delete(number);
  }

  // A node tells of its own allocators only, so each is asked.
  async askSkipped(signal) {
    for (const { index, value } of await askEach(this.platform, `/v1/allocations?limit=${ASKED}`, signal)) {
      for (const { round, skipped } of value.items) {
        for (const { policy, reason } of skipped) this.skipped.set(`${round} ${index} ${policy}`, { round, node: index, policy, reason });
      }
    }
    for (const key of [...this.skipped.keys()].slice(0, -KEPT)) this.skipped.delete(key);
  }

  // Closed ones, oldest first.
  get closed() {
    return [...this.#rounds.values()].filter(({ closed_ms }) => closed_ms !== null).sort((a, b) => a.round - b.round);
  }

  get newest() {
    return [...this.#rounds.values()].sort((a, b) => b.round - a.round);
  }
}

const accepted = ({ proposals }) => proposals.filter((proposal) => proposal.accepted);

// The policies that most proposals came from; the rest would share their marks.
function policiesOf(rounds) {
  const counts = new Map();
  for (const round of rounds) for (const { policy } of accepted(round)) counts.set(policy, (counts.get(policy) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, MOST_POLICIES).map(([policy]) => policy);
}

// A policy's best accepted proposal of a round, in wei; null if it had none.
function best(round, policy) {
  return accepted(round).filter((proposal) => proposal.policy === policy)
    .reduce((most, { value }) => (most === null || BigInt(value) > BigInt(most) ? value : most), null);
}

export class UtilityPlots {
  constructor(rounds) {
    this.rounds = rounds;
    this.utility = lines({
      title: "Utility of each round", xLabel: "time of the close", yLabel: "utility, gwei", unit: "gwei", time: true, series: [], empty: "no round has closed yet",
      csv: { name: "utility.csv", headings: ["round"], rows: () => [] },
    });
    this.share = lines({
      title: "Share of the proven bound", xLabel: "time of the close", yLabel: "share of the bound, %", unit: "%", time: true, zero: false, series: [], empty: "no proposal with a proven bound yet",
      csv: { name: "bound.csv", headings: ["round", "closed_ms", "winner", "value_wei", "greedy_wei", "bound_wei"], rows: () => this.#bounded().map((r) => [r.round, r.closed_ms, r.winner, r.value, r.greedy_value, r.bound]) },
    });
    this.elements = [this.utility.element, this.share.element];
  }

  paint() {
    const rounds = this.rounds.closed;
    const policies = policiesOf(rounds);
    const along = (pick) => rounds.flatMap((round) => {
      const value = pick(round);
      return value === null || value === undefined ? [] : [[round.closed_ms, asGwei(value)]];
    });
    this.utility.update({
      series: [
        { name: "proven bound", style: 0, points: along(({ bound }) => bound) }, { name: "greedy (built in)", style: 1, points: along(({ greedy_value }) => greedy_value) },
        ...policies.map((policy, place) => ({ name: policy, style: 2 + place, points: along((round) => best(round, policy)) })),
      ].filter(({ points }) => points.length),
      csv: {
        name: "utility.csv", headings: ["round", "closed_ms", "winner", "value_wei", "greedy_wei", "bound_wei", ...policies.map((policy) => `${policy}_wei`)],
        rows: () => rounds.map((r) => [r.round, r.closed_ms, r.winner, r.value, r.greedy_value, r.bound, ...policies.map((policy) => best(r, policy))]),
      },
    });
    const bounded = this.#bounded();
    const part = (pick) => bounded.map((round) => [round.closed_ms, (100 * asGwei(pick(round))) / asGwei(round.bound)]);
    this.share.update({ series: bounded.length ? [{ name: "winner", style: 2, points: part(({ value }) => value) }, { name: "greedy (built in)", style: 1, points: part(({ greedy_value }) => greedy_value) }] : [] });
  }

  #bounded() {
    return this.rounds.closed.filter(({ bound }) => bound !== null && bound !== "0");
  }
}

// One line a round, and why its winner won.
export class RoundTable {
  constructor(rounds) {
    this.rounds = rounds;
    this.table = new LiveTable(`The newest ${LISTED} rounds`, [
      { text: "Round", class: "num" }, "Closed", { text: "Tasks", class: "num" }, "Winner", { text: "Value", class: "num" }, { text: "Against greedy", class: "num" }, { text: "Of the proven bound", class: "num" }, "Proposals", "Why it won",
    ], { empty: "no round yet: one opens when an open task has a server that could take it", class: "rounds" });
    this.element = this.table.element;
  }

  paint() {
    this.table.show(this.rounds.newest.slice(0, LISTED).map((round) => ({
      key: round.round, sign: `${round.closed_ms} ${round.proposals.length}`, attrs: { "data-round": round.round }, cells: () => roundCells(round),
    })));
  }
}

export function winnerWords({ winner, winner_validator }) {
  if (winner === null) return "still open";
  return winner_validator === null ? "greedy (built in)" : `${winner}, by node ${winner_validator}`;
}

export function proposalWords({ proposals }) {
  const good = proposals.filter((proposal) => proposal.accepted).length;
  return `${good} accepted, ${proposals.length - good} refused`;
}

function roundCells(round) {
  const open = round.closed_ms === null;
  return [
    link(`#/round/${round.round}`, String(round.round)), open ? "open" : times(round.closed_ms), round.tasks, winnerWords(round), open ? "" : gwei(round.value),
    open ? "" : above(round.value, round.greedy_value), open ? "" : round.bound === null ? "no bound" : percent(round.value, round.bound) ?? "bound 0", proposalWords(round), round.verdict?.sentence ?? "",
  ];
}

// Who proposed in vain, and who did not propose, with the reason.
export class RefusedTable {
  constructor(rounds) {
    this.rounds = rounds;
    this.table = new LiveTable(`Refused proposals and allocators that made none (the newest ${LISTED})`, [
      { text: "Round", class: "num" }, "Node", "Policy", "What", "Why",
    ], { empty: "none: every allocator proposed, and every proposal was accepted", class: "refused" });
    this.element = this.table.element;
  }

  paint() {
    const refused = this.rounds.newest.flatMap(({ round, proposals }) => proposals.flatMap((proposal, place) => (proposal.accepted ? [] : [{
      key: `${round} refused ${place}`, round, node: proposal.validator, policy: proposal.policy, what: "proposal refused", reason: proposal.reason,
    }])));
    const skipped = [...this.rounds.skipped.entries()].map(([key, found]) => ({ key, ...found, what: "made no proposal" }));
    const shown = [...refused, ...skipped].sort((a, b) => b.round - a.round || (a.key < b.key ? -1 : 1)).slice(0, LISTED);
    this.table.show(shown.map(({ key, round, node, policy, what, reason }) => ({
      key, sign: reason.code, attrs: { "data-code": reason.code },
      cells: () => [link(`#/round/${round}`, String(round)), `node ${node}`, policy, what, h("span", { title: reason.code }, reason.sentence)],
    })));
  }
}
