// What seldom happens: view changes with their reasons, checkpoints, evidence.

import { digest, h, link, say, table, clear, times } from "../dom.js";
import { LiveTable } from "../rows.js";

// The validators' own steps between views, all nodes' together, newest first.
export class ViewTable {
  constructor() {
    this.now = h("p", {}, "");
    this.table = new LiveTable("Views that were left and entered, as each node saw it (since its start)", ["When", "Node", "Step", "Reason", "What happened"], {
      empty: "No view was left since the nodes started: one primary has served all along.", class: "views",
    });
    this.element = h("div", {}, this.now, this.table.element);
  }

  // histories: [{index, value: rest.ViewHistory}]
  show(histories) {
    if (histories.length) say(this.now, histories.map(({ value }) => `Node ${value.server} is in view ${value.view}${value.view_active ? "" : " (not active)"}, primary ${value.primary}`).join("; ") + ".");
    const steps = histories.flatMap(({ value }) => value.items.map((step) => ({ node: value.server, ...step })));
    steps.sort((a, b) => b.at_ms - a.at_ms || b.node - a.node);
    this.table.show(steps.map((step) => ({
      key: `${step.node} ${step.at_ms} ${step.step} ${step.view}`, sign: "", attrs: { "data-step": step.step },
      cells: () => [times(step.at_ms), `node ${step.node}`, step.step === "LEFT" ? "left" : "entered", step.reason || (step.asked.length ? `asked for by nodes ${step.asked.join(", ")}` : ""), step.sentence],
    })));
  }
}

export class CheckpointTable {
  constructor() {
    this.now = h("p", {}, "");
    this.table = new LiveTable("States that a quorum signed", [{ text: "Height", class: "num" }, "Stable at", "Signed by", "State root", "Block"], { empty: "none since the node's start", class: "checkpoints" });
    this.element = h("div", {}, this.now, this.table.element);
  }

  // found: rest.CheckpointList
  show(found) {
    say(this.now, `${found.stable ? `The stable checkpoint is height ${found.stable}` : "There is no stable checkpoint yet"}; the next is due at height ${found.next}, one every ${found.every} blocks. A node that was away for longer than its peers keep blocks starts from the newest.`);
    this.table.show(found.items.map((item) => ({
      key: item.height, sign: item.state_root,
      cells: () => [link(`#/block/${item.height}`, String(item.height)), times(item.stable_ms), `nodes ${item.signers.join(", ")}`, digest(item.state_root, "state root"), digest(item.block_hash, "block hash")],
    })));
  }
}

export class EvidenceTable {
  constructor() {
    this.element = h("div", {}, h("p", {}, "Asking the nodes."));
  }

  // lists: [{index, value: rest.EvidenceList}]
  show(lists) {
    if (!lists.length) return;
    const held = new Map();
    for (const { index, value } of lists) {
      for (const item of value.held) {
        const key = `${item.accused} ${item.offence}`;
        if (!held.has(key)) held.set(key, { item, by: [] });
        held.get(key).by.push(index);
      }
    }
    const ordered = lists[0].value.items;
    const sign = JSON.stringify([[...held].map(([key, { by }]) => [key, by]), ordered]);
    if (sign === this.sign) return;
    this.sign = sign;
    if (!held.size && !ordered.length) {
      clear(this.element, h("p", {}, "None: no node holds two words of one validator that contradict each other, and the ledger has none."));
      return;
    }
    clear(this.element,
      held.size ? table("Held by the nodes: two signed items that no correct validator signs both; each proves itself", ["Accused", "Offence", "In words", "Held by", "Proof"],
        [...held.values()].map(({ item, by }) => [`node ${item.accused}`, item.offence, item.sentence, `nodes ${by.join(", ")}`, digest(item.proof, "proof")])) : null,
      ordered.length ? table("On the ledger", [{ text: "Height", class: "num" }, "Kind", "Accused", "Payload"],
        ordered.map((item) => [link(`#/block/${item.height}`, String(item.height)), item.kind, item.accused === null ? "in the payload" : `node ${item.accused}`, digest(item.payload, "payload")])) : null);
  }
}
