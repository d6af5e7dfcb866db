// The life of a task as one list of stages, each with its instant, its block and what was said and signed there.
//
// Instants are the ledger's: header times of the blocks that made it so, but for "run ended", which is when the executor
// and the holders of the result signed (market.md 5). Steps that leave no mark on the ledger are named without one.

import { digest, fuel, gwei, h, integer, link, ms, wei } from "../dom.js";
import { kernelName } from "../kernels.js";

// [{key, title, at, height, notes: [node or text], kind}] in order; `at` null: the ledger has no instant for it.
export function stagesOf(source, signed) {
  const { task, events, round, batch, settlement } = source;
  const stages = [];
  const add = (key, title, at, rest = {}) => stages.push({ key, title, at, height: null, notes: [], ...rest });
  const { offer } = task;

  add("sealed", "Sealed and stored", null, {
    notes: [
      `Input sealed by its UE and uploaded to server ${offer.source}, which signed that it keeps the ${integer(offer.input_octets)} octets.`,
      signed.stored ? ["Stored signature ", digest(signed.stored, "Stored signature")] : null,
    ],
  });
  for (const event of events) STAGES[event.type]?.(event, add, { task, round, signed });
  if (!events.some((event) => event.type === "TaskOpened")) add("ordered", "Ordered on the ledger", task.opened_ms);
  if (batch) {
    add("frozen", `Batch ${batch.id} frozen`, batch.frozen_ms, {
      height: batch.frozen_height, rank: 1, notes: [`${batch.lines} ${batch.lines === 1 ? "receipt" : "receipts"}: ${batch.reason.sentence}.`, ["batch hash ", digest(batch.batch_hash, "batch hash")]],
    });
    if (settlement) {
      add("certified", "Settlement certified", settlement.time_ms, {
        height: settlement.height, rank: 2, notes: ["A quorum signed the block that orders the payment.", ["SETTLEMENT ", digest(batch.settlement_tx, "SETTLEMENT hash")]],
      });
    }
  }
  return inOrder(stages);
}

const STAGES = {
  TaskOpened(event, add, { task, signed }) {
    add("ordered", "Ordered on the ledger", event.time_ms, {
      height: event.height, notes: [
        `${kernelName(task.offer.module_digest)}, at most ${fuel(task.offer.fuel_limit)} at ${integer(task.offer.price)} gwei/Mfuel; ${wei(task.maximum)} reserved.`,
        signed.task ? ["signed by the UE ", digest(signed.task.signature, "UE's signature"), ", transaction ", digest(task.tx_hash, "TASK hash")] : null,
      ],
    });
  },
  TaskAssigned(event, add, { task, round }) {
    const { executor, expected_ms, file_by_ms } = event.data;
    if (round?.round === event.data.round) {
      add("opened", `Round ${round.round} opened`, round.opened_ms, {
        height: round.opened_height, notes: [`${round.tasks} ${round.tasks === 1 ? "task" : "tasks"}, ${round.servers} servers, ${round.proposals.length} proposals.`],
      });
    }
    add("allocated", `Allocated to server ${executor}`, event.time_ms, {
      height: event.height, notes: [
        [`In `, link(`#/round/${event.data.round}`, `round ${event.data.round}`), `: ${round?.round === event.data.round ? round.verdict?.sentence ?? "" : ""}`],
        `Expected to take ${ms(expected_ms)}, to be filed within ${ms(file_by_ms - event.time_ms)}.`,
      ],
    });
    add(`forwarded-${event.id}`, executor === task.offer.source ? "Run on its source" : "Forwarded and run", null, {
      notes: [executor === task.offer.source
        ? `Server ${executor} holds the input itself: nothing was forwarded.`
        : `Server ${task.offer.source} sealed the input's key to server ${executor} and sent it the ciphertext.`],
    });
  },
  TaskReopened(event, add) {
    add(`reopened-${event.id}`, "Back to open", event.time_ms, { height: event.height, kind: "bad", notes: [`Without server ${event.data.server}: ${event.data.reason.sentence}.`] });
  },
  ResultFiled(event, add, { signed }) {
    const { executor, fuel_used, result_digest, cipher_digest, holders, done_ms } = event.data;
    if (done_ms < event.time_ms) add("done", "Run ended", done_ms, { notes: ["The latest of the holders' signatures that they keep the sealed result."] });
    add("filed", "Result filed", event.time_ms, {
      height: event.height, notes: [
        [`Server ${executor}: `, h("code", {}, CODES[event.data.code]), `, ${fuel(fuel_used)}.`],
        ["result digest ", digest(result_digest, "result digest")],
        cipher_digest ? ["sealed result ", digest(cipher_digest, "digest of the sealed result"), holders.length ? ` kept by ${servers(holders)} too` : ""] : null,
        signed.result ? ["RESULT_HASH signed by the executor ", digest(signed.result.signature, "executor's signature")] : null,
      ],
    });
  },
  AuditDrawn(event, add) {
    const { audited, auditors, witness, number } = event.data;
    const by = witness === null ? "by a block's hash" : `by server ${witness}`;
    add(`drawn-${event.id}`, audited ? `Drawn for audit${number > 1 ? " again" : ""}` : "Drawn: no audit", event.time_ms, {
      height: event.height, notes: [audited ? `Drawn ${by}: ${servers(auditors.map((one) => one.server))} re-execute it.` : `Drawn ${by}: it is final without one.`],
    });
  },
  AuditFiled(event, add) {
    add(`audit-${event.id}`, `Audit by server ${event.data.auditor}`, event.time_ms, {
      height: event.height, notes: [[h("code", {}, CODES[event.data.code]), `, ${fuel(event.data.fuel_used)}, `, digest(event.data.result_digest, "auditor's result digest")]],
    });
  },
  AuditMissed(event, add) {
    add(`missed-${event.id}`, `Server ${event.data.auditor} missed its audit`, event.time_ms, { height: event.height, kind: "bad" });
  },
  DrawMissed(event, add) {
    add(`undrawn-${event.id}`, `Server ${event.data.witness} missed its draw`, event.time_ms, { height: event.height, kind: "bad" });
  },
  Verdict(event, add) {
    const { upheld, agreeing, against } = event.data;
    add("verdict", upheld ? "Verdict: result upheld" : "Verdict: result refuted", event.time_ms, {
      height: event.height, kind: upheld ? null : "bad", notes: [`${servers(agreeing)} agree${against.length ? `, against ${servers(against)}` : ""}.`],
    });
  },
  TaskFinal(event, add) {
    add("final", "Final", event.time_ms, { height: event.height, notes: [`It costs ${wei(event.data.amount)}.`] });
  },
  TaskRequeued(event, add) {
    add(`requeued-${event.id}`, "Waits for a further batch", event.time_ms, { height: event.height, kind: "bad", notes: [`The chain skipped its line in batch ${event.data.batch_id}.`] });
  },
  TaskSettled(event, add) {
    add("paid", "Paid on the chain", event.time_ms, {
      height: event.height, rank: 3, notes: [`${wei(event.data.paid)} moved (${gwei(event.data.paid)}), ${wei(event.data.free)} free again.`],
    });
  },
  TaskEnded(event, add) {
    add("ended", "Ended without pay", event.time_ms, { height: event.height, kind: "bad", notes: [`${event.data.reason.sentence}.`] });
  },
  TaskRefunded(event, add) {
    add("refunded", "Refunded", event.time_ms, { height: event.height, rank: 3, notes: [`${wei(event.data.wei)} free again.`] });
  },
};

// wire.market.ResultCode by number.
const CODES = ["OK", "TRAP", "OUT_OF_FUEL", "MEMORY", "OUTPUT", "WALL", "BAD_INPUT", "BAD_MODULE", "UNAVAILABLE", "NO_KEY"];

function servers(ids) {
  if (ids.length === 0) return "no server";
  if (ids.length === 1) return `server ${ids[0]}`;
  return `servers ${ids.slice(0, -1).join(", ")} and ${ids.at(-1)}`;
}

// By instant; a stage without one stays behind the one that it was told after.
function inOrder(stages) {
  const known = [];
  let anchor = -1;
  stages.forEach((stage, index) => {
    if (stage.at !== null) anchor = stage.at;
    known.push({ stage, at: stage.at ?? anchor, rank: stage.rank ?? 0, index });
  });
  known.sort((one, other) => one.at - other.at || one.rank - other.rank || one.index - other.index);
  return known.map((entry) => entry.stage);
}

// ---- drawing

// The list, with bars that show how the whole time was spent.
export function drawStages(stages, { times }) {
  const timed = stages.filter((stage) => stage.at !== null);
  const first = timed[0]?.at ?? 0;
  const whole = Math.max(1, (timed.at(-1)?.at ?? first) - first);
  let before = null;
  return h("ol", { class: "stages", id: "stages" }, stages.map((stage) => {
    const took = stage.at !== null && before !== null ? stage.at - before : null;
    const start = before === null ? 0 : before - first;
    if (stage.at !== null) before = stage.at;
    return h("li", { class: "stage", "data-stage": stage.key, "data-kind": stage.kind, "data-timed": stage.at !== null },
      h("div", { class: "stage-head" }, h("h3", {}, stage.title),
        took === null ? null : h("span", { class: "stage-took", title: "since the stage before" }, `+${ms(took)}`)),
      h("div", { class: "stage-when" },
        stage.at === null ? h("span", { class: "muted" }, "the ledger has no instant for it") : times(stage.at),
        stage.height === null ? null : link(`#/block/${stage.height}`, `block ${integer(stage.height)}`, { class: "stage-block" })),
      took === null ? null : h("div", { class: "stage-bar", "aria-hidden": "true" }, h("span", { style: { "margin-left": `${(100 * start) / whole}%`, width: `${Math.max(0.4, (100 * took) / whole)}%` } })),
      stage.notes.filter(Boolean).map((note) => h("p", { class: "stage-note" }, note)));
  }));
}
