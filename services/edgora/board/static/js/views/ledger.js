// The ledger: who takes part and who is silent, blocks with who voted, view changes and why, checkpoints, evidence; and
// a page for each block.

import { announce, append, h, say } from "../dom.js";
import { Repeat, askEach } from "../each.js";
import { mountBlock } from "../ledger/block.js";
import { BlockList } from "../ledger/blocks.js";
import { CheckpointTable, EvidenceTable, ViewTable } from "../ledger/records.js";
import { Hearing, answerWords, heardWords, nodeWords, standingWords } from "../ledger/standing.js";
import { LiveTable } from "../rows.js";

const TICK_MS = 250;
const BLOCKS_MS = 1_000;
const RECORDS_MS = 3_000;
const STILL_CONNECTING = "No node has told its state yet.";

export function mount(root, platform, params) {
  return params.route === "block" ? mountBlock(root, platform, params) : mountLedger(root, platform);
}

function mountLedger(root, platform) {
  const hearing = new Hearing();
  const consensus = new Consensus(platform, hearing);
  const blocks = new BlockList(platform);
  const [views, checkpoints, evidence] = [new ViewTable(), new CheckpointTable(), new EvidenceTable()];
  append(root,
    h("div", { class: "view-head" }, h("h1", {}, "Ledger"), h("p", { class: "muted" }, "Who orders, who is silent, and what was ordered. Each figure is one of the nodes' public REST.")),
    consensus.element,
    h("section", { "aria-labelledby": "blocks-title" }, h("h2", { id: "blocks-title" }, "Blocks"), blocks.element),
    h("section", { "aria-labelledby": "views-title" }, h("h2", { id: "views-title" }, "View changes"), views.element),
    h("section", { "aria-labelledby": "checkpoints-title" }, h("h2", { id: "checkpoints-title" }, "Checkpoints"), checkpoints.element),
    h("section", { "aria-labelledby": "evidence-title" }, h("h2", { id: "evidence-title" }, "Evidence of misbehaviour"), evidence.element));
  const off = platform.on("status", (statuses) => consensus.take(statuses));
  consensus.take(platform.statuses);
  const tick = setInterval(() => consensus.paint(), TICK_MS);
  const repeats = [
    new Repeat(BLOCKS_MS, (signal) => blocks.refresh(signal)),
    new Repeat(RECORDS_MS, async (signal) => {
      const [steps, stable, found] = await Promise.all([
        askEach(platform, "/v1/views", signal), platform.get("/v1/checkpoints", { signal }), askEach(platform, "/v1/evidence", signal),
      ]);
      views.show(steps);
      checkpoints.show(stable);
      evidence.show(found);
    }),
  ];
  return () => {
    off();
    clearInterval(tick);
    for (const repeat of repeats) repeat.stop();
  };
}

// The sentence on the quorum, and a row for each node.
class Consensus {
  constructor(platform, hearing) {
    this.platform = platform;
    this.hearing = hearing;
    this.words = h("p", { class: "standing", id: "standing" }, STILL_CONNECTING);
    this.table = new LiveTable("Validators, as the page and the other nodes see them", [
      "Node", "Answers this page", "Heard by the others", { text: "Height", class: "num" }, { text: "View", class: "num" }, "Part in the next block", "What it says",
    ], { class: "voters" });
    this.element = h("section", { class: "consensus", "aria-label": "Consensus now" }, this.words, this.table.element);
    this.silent = "";
  }

  take(statuses) {
    this.hearing.take(statuses);
    this.paint();
  }

  paint() {
    const now = Date.now();
    const found = this.hearing.standing(this.platform.statuses, now);
    if (found === null) {
      const asked = [...this.platform.statuses.values()];
      const gone = asked.filter(({ ok }) => ok === false);
      this.words.dataset.kind = gone.length ? "bad" : "wait";
      say(this.words, gone.length === asked.length ? "No node answers this page, so nothing can be said of the ledger; trying again each second." : STILL_CONNECTING);
      return;
    }
    this.words.dataset.kind = found.newest.alarm || !found.enough ? "bad" : found.silent.length ? "warn" : "good";
    const words = standingWords(found);
    say(this.words, words);
    const silent = found.silent.map(({ index }) => index).join();
    if (silent !== this.silent) announce(words);
    this.silent = silent;
    this.table.show(found.nodes.map((node) => {
      const cells = [`node ${node.index}`, answerWords(node), heardWords(node, now), node.height, node.view, part(node, found), nodeWords(node) ?? "nothing: it cannot be asked"];
      return { key: node.index, sign: cells.join("|"), cells: () => cells, attrs: { "data-heard": node.heard } };
    }));
  }
}

// What a node has to do with the next block: its vote as the newest node holds it, and whether it proposes.
function part({ index }, { newest }) {
  const voter = newest.voters.find((one) => one.index === index);
  const proposes = newest.primary === index ? "proposes; " : "";
  if (newest.waiting === "IDLE") return `${proposes}nothing to vote on`;
  return `${proposes}${voter.voted ? "voted" : "no vote yet"} for height ${newest.next_height}`;
}
