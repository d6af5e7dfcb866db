// The offline proof: a file that `edgora verify` checks with nothing but the genesis id to trust.
//
// The page itself does not verify. The check needs secp256k1 recovery and keccak-256, which WebCrypto lacks; a library for
// browsers would have to come with a vetted package of the platform's own language registry, and there is none: those that
// exist there bind to native code. So the command line is the product, and this page says so.

import { clear, command, digest, download, facts, h, short } from "../dom.js";

const NAMES = ["TASK", "RESULT_HASH", "SETTLEMENT"];

// The document that clients/edgora/client/proofs.py reads. Throws if there is nothing to prove yet.
export function proofDocument({ info, task, proofs }) {
  const offer = JSON.stringify(task.offer).replace(/"nonce":"(\d+)"/, '"nonce":$1'); // 64 bits, which a Number does not hold
  const items = proofs.items.filter((item) => NAMES.includes(item.name)).map(({ name, kind, tx_hash, proof }) => ({ name, kind, tx_hash, proof }));
  const rest = { version: 1, genesis: info.genesis, task: task.id, offer: "OFFER", cipher_digest: task.result.cipher_digest, salt: null, proofs: items };
  return JSON.stringify(rest, null, 2).replace('"OFFER"', offer);
}

export function proofName(task) {
  return `task-${task.id.slice(2, 14)}.proof.json`;
}

export class ProofPanel {
  constructor(platform) {
    this.platform = platform;
    this.element = h("div", { id: "proof" });
    this.shown = "";
  }

  show({ task, proofs }) {
    const names = [...new Set((proofs?.items ?? []).map((item) => item.name))];
    const info = this.platform.info;
    const ready = Boolean(info && task.result?.cipher_digest && names.includes("TASK") && names.includes("RESULT_HASH"));
    const key = JSON.stringify([names, ready, proofs === null, task.result?.cipher_digest]);
    if (key === this.shown) return; // the buttons stay where they are, and keep the focus
    this.shown = key;
    const save = h("button", {
      type: "button", class: "primary", disabled: !ready, id: "proof-save",
      onclick: () => download(proofName(task), proofDocument({ info, task, proofs })),
    }, "Download the proof");
    clear(this.element,
      facts([
        ["Provable now", names.length ? names.join(", ") : proofs ? "nothing yet" : "asking a node"],
        ["Anchor", info ? ["genesis id ", digest(info.genesis_id, "genesis id")] : null],
      ]),
      h("p", {}, save, " ", ready || !proofs ? null : h("span", { class: "muted" }, lacking(task, names))),
      ready && !names.includes("SETTLEMENT") ? h("p", { class: "muted" }, "The payment is not certified yet; a proof downloaded later holds it, too.") : null,
      h("h3", {}, "Verify"),
      info ? command(`edgora verify ${proofName(task)} --genesis-id ${info.genesis_id}`, "verify command") : null,
      h("p", { class: "muted" },
        "It checks, offline, the quorum's signatures, the Merkle paths, the offer and the result against that genesis id. ",
        "This page shows and does not verify: browsers offer no secp256k1 and no keccak-256 of their own, no vetted package of them comes with the platform's, and a check by code that the same server sent would prove little. ",
        "Compare the genesis id with one that you have from elsewhere."));
  }
}

function lacking(task, names) {
  if (!names.includes("TASK")) return "The task is not certified yet.";
  if (task.result && !task.result.cipher_digest) return `It ended with ${task.result.code}, which leaves no result to prove; its receipts are at /v1/tasks/${short(task.id)}/proof.`;
  return "There is no certified result yet.";
}
