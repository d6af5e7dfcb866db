// The newest blocks as they are committed, older ones on demand; by block who voted and who did not.
//
// A certificate holds the first q votes that came and no more, so a validator outside it was late or silent: the list
// says "not in it", and the bars over many blocks show the difference.

import { append, h, link, say, times } from "../dom.js";
import { bars } from "../plot.js";
import { LiveTable } from "../rows.js";

const NEWEST = 40;
const OLDER = 100;
const COUNTED = 200;

// "3 TASK, 1 ALLOCATION"
export function kindWords(kinds) {
  return Object.entries(kinds).map(([name, count]) => `${count} ${name}`).join(", ") || "none";
}

export class BlockList {
  #blocks = new Map();
  #cursor = null;
  #validators = 0;
  #shown = -1;
  #held = false;

  constructor(platform) {
    this.platform = platform;
    this.table = new LiveTable("Blocks, newest first", [
      { text: "Height", class: "num" }, "Committed at", "Proposer", "Transactions", { text: "Refused", class: "num" }, "Votes in its certificate", "Not in it", { text: "View", class: "num" },
    ], { class: "blocks" });
    this.hold = h("button", { type: "button", onclick: () => this.#toggle() }, "Hold the list");
    this.older = h("button", { type: "button", onclick: () => this.#more() }, "Older blocks");
    this.note = h("p", { class: "muted" }, "A certificate holds the first votes that suffice: who is not in it was late or silent.");
    this.votes = bars({
      title: "Votes in certificates", xLabel: "node", yLabel: "certificates it is in", whole: true, names: [], series: [{ name: "votes", values: [] }], empty: "no certificate yet",
      csv: { name: "votes.csv", headings: ["height", "time_ms", "view", "proposer", "signers", "not_in_it"], rows: () => this.#rows() },
    });
    this.element = append(h("div", {}), h("div", { class: "tools" }, this.hold, this.older), this.note, this.table.element, this.votes.element);
  }

  // Takes in what was committed since the last time.
  async refresh(signal) {
    const { items, cursor } = await this.platform.get(`/v1/blocks?limit=${NEWEST}`, { signal });
    const newest = items[0]?.height ?? 0;
    if (newest < this.#shown - NEWEST) this.#blocks.clear(); // another ledger under the same address
    if (this.#blocks.size && items.length && items.at(-1).height > Math.max(...this.#blocks.keys()) + 1) this.#blocks.clear(); // we were away
    if (!this.#blocks.size) this.#cursor = cursor;
    for (const block of items) this.#blocks.set(block.height, block);
    this.#validators ||= (await this.platform.get("/v1/info", { signal })).validators.length;
    this.#shown = newest;
    if (!this.#held) this.#paint();
  }

  async #more() {
    this.older.disabled = true;
    try {
      const { items, cursor } = await this.platform.get(`/v1/blocks?limit=${OLDER}${this.#cursor ? `&cursor=${this.#cursor}` : ""}`);
      for (const block of items) this.#blocks.set(block.height, block);
      this.#cursor = cursor;
      this.#paint();
    } finally {
      this.older.disabled = this.#cursor === null;
      say(this.older, this.#cursor === null ? "No older blocks here" : "Older blocks");
    }
  }

  #toggle() {
    this.#held = !this.#held;
    say(this.hold, this.#held ? "Let the list go on" : "Hold the list");
    if (!this.#held) this.#paint();
  }

  #sorted() {
    return [...this.#blocks.values()].sort((a, b) => b.height - a.height);
  }

  #absent({ signers }) {
    return Array.from({ length: this.#validators }, (_, index) => index).filter((index) => !signers.includes(index));
  }

  #rows() {
    return this.#sorted().reverse().map((block) => [block.height, block.time_ms, block.view, block.proposer, block.signers.join(" "), block.signers.length ? this.#absent(block).join(" ") : ""]);
  }

  #paint() {
    const blocks = this.#sorted();
    this.table.show(blocks.map((block) => ({
      key: block.height, sign: `${block.hash} ${block.certified} ${block.signers}`, cells: () => this.#cells(block), attrs: { "data-height": block.height },
    })));
    const counted = blocks.filter(({ signers }) => signers.length).slice(0, COUNTED);
    const nodes = Array.from({ length: this.#validators }, (_, index) => index);
    this.votes.update({
      title: `Votes in the newest ${counted.length} certificates`, names: counted.length ? nodes.map((index) => `node ${index}`) : [],
      series: [{ name: "votes", values: nodes.map((index) => counted.filter(({ signers }) => signers.includes(index)).length) }],
    });
  }

  #cells(block) {
    const signed = block.signers.length > 0;
    return [
      link(`#/block/${block.height}`, String(block.height)), times(block.time_ms), block.proposer < 0 ? "unknown" : `node ${block.proposer}`,
      kindWords(block.kinds), block.refused, signed ? block.signers.join(", ") : block.certified ? "covered by a later block's" : "not certified yet",
      signed ? this.#absent(block).join(", ") || "nobody" : "", block.view ?? "",
    ];
  }
}
