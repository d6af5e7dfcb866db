// Who signed what for a task, read out of the transactions and certificates themselves (wire.market, wire.ledger).
//
// Nothing is verified here: the page has no vetted secp256k1 and no keccak (task/proof.js says why). It shows what the
// offline check then checks.

import { decode } from "../msgpack.js";
import { h, digest, integer, link, table, times, wei } from "../dom.js";

// {task, stored, voucher, result, held, settlement, certificates} as far as they are known; each signature 0x-hex.
export function signedOf({ tx, proofs }) {
  const found = { task: null, stored: null, voucher: null, result: null, held: [], settlement: null, certificates: [] };
  if (tx?.tx) {
    const [, stored, voucher] = decode(tx.tx.payload);
    Object.assign(found, { task: { sender: tx.tx.sender, hash: tx.tx.hash, signature: tx.tx.signature, height: tx.height }, stored, voucher: voucherOf(voucher) });
  }
  for (const item of proofs?.items ?? []) {
    const [first, , , headers, certificate] = decode(item.proof);
    const [vote, bitmap, signatures] = certificate;
    found.certificates.push({
      name: item.name, kind: item.kind, height: item.height, certified: item.certified_height, epoch: item.epoch,
      view: vote[2], hash: vote[4], signers: bits(bitmap), signatures, headers: headers.length,
    });
    if (item.kind !== "tx") continue;
    const [[, sender, , , , payload], signature] = first;
    const record = { sender, hash: item.tx_hash, signature, height: item.height };
    if (item.name === "TASK") {
      const [, stored, voucher] = decode(payload);
      Object.assign(found, { task: record, stored, voucher: voucherOf(voucher) });
    } else if (item.name === "RESULT_HASH") {
      found.result = record;
      found.held = decode(payload)[5].map(([server, seen_ms, signature_]) => ({ server, seen_ms, signature: signature_ }));
    } else if (item.name === "SETTLEMENT") found.settlement = record;
  }
  return found;
}

function voucherOf(part) {
  return part && { cap: BigInt(part[0]).toString(), valid_until_s: part[1], signature: part[2] };
}

function bits(bitmap) {
  const signers = [];
  for (let rest = BigInt(bitmap), index = 0; rest > 0n; rest >>= 1n, index += 1) if (rest & 1n) signers.push(index);
  return signers;
}

export function drawSigned(signed, offer) {
  const rows = [];
  const add = (what, by, at, signature) => rows.push([what, by, at, digest(signature, "signature")]);
  const block = (height) => (height === null || height === undefined ? "" : link(`#/block/${height}`, `block ${integer(height)}`));
  if (signed.stored) add("Stored: the sealed input is kept", `server ${offer.source}`, "", signed.stored);
  if (signed.voucher) add(`Voucher up to ${wei(signed.voucher.cap)} in all`, "UE", ["valid until ", times(signed.voucher.valid_until_s * 1000)], signed.voucher.signature);
  if (signed.task) add("TASK: the offer", ["UE ", digest(signed.task.sender, "UE's address")], block(signed.task.height), signed.task.signature);
  for (const held of signed.held) add("Held: the sealed result is kept", `server ${held.server}`, times(held.seen_ms), held.signature);
  if (signed.result) add("RESULT_HASH: code, digest, fuel", ["executor ", digest(signed.result.sender, "executor's address")], block(signed.result.height), signed.result.signature);
  if (signed.settlement) add("SETTLEMENT: the batch to be paid", ["validator ", digest(signed.settlement.sender, "validator's address")], block(signed.settlement.height), signed.settlement.signature);
  return rows.length
    ? table("What was signed for this task, and by whom", ["What", "By", "When", "Signature"], rows, { id: "signatures" })
    : h("p", { class: "muted" }, "No node has told this task's transactions yet.");
}

// told: whether a node has told its proofs.
export function drawCertificates(signed, told) {
  if (!signed.certificates.length) return h("p", { class: "muted" }, told ? "None yet: the block of its TASK is not certified." : "No node has told its certificates yet.");
  const rows = signed.certificates.map((one) => [
    one.name, one.kind === "tx" ? "the transaction is in the block" : "its receipt has code 0", link(`#/block/${one.height}`, integer(one.height)), integer(one.certified),
    { cell: String(one.view), class: "num" }, `nodes ${one.signers.join(", ")}`,
    h("details", {}, h("summary", {}, `${one.signatures.length} signatures`), one.signatures.map((signature, index) => h("div", {}, `node ${one.signers[index]} `, digest(signature, "vote's signature")))),
  ]);
  return table("Quorum certificates that stand behind it", ["Of", "Says", "Block", "Certified at", { text: "View", class: "num" }, "Signed by", "Signatures"], rows, { id: "certificates" });
}
