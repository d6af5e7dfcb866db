// One block: its header, who certified it, and its transactions by kind with what became of them.

import { append, clear, digest, facts, h, integer, link, table, times } from "../dom.js";
import { Repeat } from "../each.js";
import { kindWords } from "./blocks.js";

const AGAIN_MS = 1_000;
const EXPLAINED = {
  ADVERT: "servers' speeds and prices", TASK: "tasks offered", ALLOCATION: "plans proposed for a round", RESULT_HASH: "results filed", SETTLEMENT: "batches to be paid",
  CHAIN_FACT: "what validators saw on the chain", RECONFIG: "changes of the validator set", EVIDENCE: "evidence of misbehaviour", NOOP: "nothing", DRAW: "audit draws", CANCEL: "tasks called off",
};

export function mountBlock(root, platform, params) {
  const height = Number(params.id);
  const body = h("div", {}, h("p", {}, "Asking the node."));
  const title = Number.isSafeInteger(height) && height >= 0 && params.id !== null ? `Block ${height}` : "No such block";
  append(root, h("p", {}, link("#/ledger", "Ledger")), h("h1", {}, title));
  if (title === "No such block") {
    append(root, h("p", {}, "A block is named by its height, a whole number."));
    return () => {};
  }
  append(root, h("p", { class: "tools" }, height > 1 ? link(`#/block/${height - 1}`, "block before") : null, " ", link(`#/block/${height + 1}`, "block after")), body);
  let shown = "";
  const repeat = new Repeat(AGAIN_MS, async (signal) => {
    const [block, info] = await Promise.all([read(platform, height, signal), platform.get("/v1/info", { signal })]);
    const sign = JSON.stringify([block.missing, block.certified, block.signers]);
    if (sign === shown) return;
    shown = sign;
    clear(body, block.missing ? h("p", {}, block.missing) : content(block, info));
    if (block.signers?.length) repeat.stop(); // nothing of it will change any more
  });
  return () => repeat.stop();
}

async function read(platform, height, signal) {
  try {
    return await platform.get(`/v1/blocks/${height}`, { signal });
  } catch (error) {
    if (error.status !== 404) throw error;
    return { missing: `${error.message}.` };
  }
}

function content(block, info) {
  const { header } = block;
  const nodes = info.validators.map((_, index) => index);
  const kinds = new Map();
  block.txs.forEach((tx, index) => {
    if (!kinds.has(tx.kind_name)) kinds.set(tx.kind_name, []);
    kinds.get(tx.kind_name).push([tx, block.receipts[index]]);
  });
  const counts = Object.fromEntries([...kinds].map(([name, items]) => [name, items.length]));
  return [
    h("h2", {}, "Certificate"),
    h("p", { class: "certificate" }, certificateWords(block, nodes, info.quorum)),
    facts([
      ["committed", block.certified ? "certified" : "not certified yet"], ["ledger time", times(header.time_ms)], ["proposer", `node ${info.validators.indexOf(header.proposer)}`],
      ["transactions", kindWords(counts)], ["hash", digest(header.hash, "hash")], ["parent", header.height > 1 ? [link(`#/block/${header.height - 1}`, String(header.height - 1)), " ", digest(header.parent, "hash")] : digest(header.parent, "hash")],
      ["transaction root", digest(header.tx_root, "transaction root")], ["results of height", String(header.exec_height)], ["their state root", digest(header.state_root, "state root")],
      ["state root after it", digest(block.state_root, "state root")], ["epoch", String(header.epoch)],
    ]),
    h("h2", {}, "Transactions by kind"),
    kinds.size ? [...kinds].map(([name, items]) => transactions(name, items, info)) : h("p", {}, "None: the block certifies the results of earlier ones."),
  ];
}

function certificateWords(block, nodes, quorum) {
  if (!block.signers.length) return block.certified ? "This block has no certificate of its own: that of a later block covers it, since blocks are linked by hash." : "No certificate covers this block yet.";
  const absent = nodes.filter((index) => !block.signers.includes(index));
  const rest = absent.length ? `; the vote of ${absent.length === 1 ? "node" : "nodes"} ${absent.join(", ")} is not in it: late or silent` : "";
  return `Voted in view ${block.view}: nodes ${block.signers.join(", ")} (${quorum} of ${nodes.length} are needed)${rest}.`;
}

function transactions(name, items, info) {
  const sender = (address) => {
    const index = info.validators.indexOf(address);
    return index < 0 ? digest(address, "address") : `node ${index}`;
  };
  const refused = items.filter(([, receipt]) => receipt.code !== 0).length;
  return [
    h("h3", {}, `${items.length} ${name}`, h("small", { class: "muted" }, ` ${EXPLAINED[name] ?? ""}${refused ? `; ${refused} refused` : ""}`)),
    table(`${name} transactions of this block`, ["Hash", "Sender", { text: "Lane", class: "num" }, { text: "Sequence", class: "num" }, "Outcome", "In words"], items.map(([tx, receipt]) => [
      digest(tx.hash, "transaction hash"), sender(tx.sender), integer(tx.lane), integer(tx.seq), receipt.code === 0 ? "accepted" : `refused: ${receipt.rule}`, receipt.code === 0 ? "" : receipt.sentence,
    ])),
  ];
}
