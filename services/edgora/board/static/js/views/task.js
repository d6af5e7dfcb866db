// A task's page: what it waits for, its life from offer to payment, who signed, why that server, what it costs, its proof.
//
// Sections are drawn anew only when what they show has changed, so that what a reader opened, selected or has the focus on
// stays. The sentence on top follows the state live.

import { announce, append, clear, clock, digest, facts, fuel, h, integer, link, ms, octets, say, short, time, times } from "../dom.js";
import { kernelName } from "../kernels.js";
import { drawChoice } from "../task/choice.js";
import { drawMoney } from "../task/money.js";
import { ProofPanel } from "../task/proof.js";
import { drawCertificates, drawSigned, signedOf } from "../task/signed.js";
import { TaskSource, UNPAID } from "../task/source.js";
import { drawStages, stagesOf } from "../task/stages.js";

const ID = /^0x[0-9a-f]{64}$/;

export async function mount(root, platform, params) {
  if (!ID.test(params.id ?? "")) {
    append(root, h("h1", {}, "No task"), h("p", {}, "A task's address is #/task/ and its id: 0x and 64 hex digits. "), h("p", {}, link("#/city", "The tasks in view")));
    return () => {};
  }
  const view = new TaskView(root, platform, params.id);
  view.source.start();
  const timer = setInterval(() => view.tick(), 1_000);
  return () => {
    clearInterval(timer);
    view.source.stop();
  };
}

// Instants in a reason's sentence are Unix ms (market.reasons): said in the viewer's zone here.
export function readable(sentence) {
  return sentence.replace(/\b1\d{12}\b/g, (at) => clock(Number(at)));
}

class TaskView {
  constructor(root, platform, id) {
    this.platform = platform;
    this.id = id;
    this.source = new TaskSource(platform, id, () => this.show());
    this.proof = new ProofPanel(platform);
    this.drawn = {};
    this.state = h("span", { class: "tag", id: "task-state" }, "asking");
    this.sentence = h("p", { id: "task-why", class: "task-why" }, "asking a node");
    this.since = h("span", { class: "muted", id: "task-since" }, "");
    this.parts = Object.fromEntries(["summary", "stages", "choice", "money", "signed", "certificates"].map((name) => [name, h("div", { id: `task-${name}` })]));
    const section = (title, ...content) => h("section", { "aria-label": title }, h("h2", {}, title), content);
    this.body = h("div", { class: "task-body", hidden: true },
      this.parts.summary,
      h("div", { class: "task-columns" },
        h("div", {}, section("Timeline", this.parts.stages)),
        h("div", {}, section("Why this server", this.parts.choice), section("Fuel and money", this.parts.money), section("Proof", this.proof.element))),
      section("Signatures", this.parts.signed, this.parts.certificates));
    this.reading = h("p", { class: "muted" }, "Reading the task.");
    append(root,
      h("p", { class: "crumb" }, link("#/city", "City"), " / task"),
      h("h1", { class: "task-title" }, "Task ", h("code", { title: id }, short(id, 8, 6))),
      h("div", { class: "panel task-now" }, h("p", { class: "task-now-head" }, this.state, " ", this.since), this.sentence),
      this.reading, this.body);
  }

  show() {
    const { source } = this;
    const { task, why } = source;
    const state = why?.state ?? task?.state;
    if (state) {
      say(this.state, state);
      this.state.dataset.kind = state === "SETTLED" || state === "CERTIFIED" ? "good" : UNPAID.has(state) ? "bad" : "";
    }
    say(this.sentence, why ? capital(readable(why.sentence)) : source.missing ? `${capital(source.missing)}. It is asked for again each second.` : "Asking a node.");
    this.#tellReader(why);
    this.tick();
    this.reading.hidden = task !== null || source.missing !== null;
    if (this.reading.hidden) say(this.reading, "");
    if (!task) return;
    this.body.hidden = false;
    const signed = signedOf(source);
    const info = this.platform.info;
    this.#part("summary", [task.state, task.executor, task.result], () => this.#summary(task));
    this.#part("stages", [source.events.length, source.round?.closed_ms, source.batch, source.settlement, signed.task?.hash, signed.result?.hash],
      () => drawStages(stagesOf(source, signed), { times }));
    this.#part("choice", [source.round?.round, source.round?.closed_ms, why?.choice, task.round], () => drawChoice(source));
    this.#part("money", [task.amount, task.result, source.events.length, source.round?.round, Boolean(info)], () => drawMoney({ ...source, info }));
    this.#part("signed", [signed.task?.hash, signed.result?.hash, signed.settlement?.hash, signed.stored], () => drawSigned(signed, task.offer));
    const told = source.proofs !== null;
    this.#part("certificates", [signed.certificates.length, told], () => drawCertificates(signed, told));
    this.proof.show(source);
  }

  // A screen reader is told when the state or the reason is another one, not each second of a run.
  #tellReader(why) {
    const told = why && [why.state, ...why.reasons.map(({ code }) => code)].join(" ");
    if (!why || told === this.told) return;
    this.told = told;
    announce(`${why.state}: ${readable(why.sentence)}`);
  }

  tick() {
    const since = this.source.why?.since_ms;
    if (since === null || since === undefined) return;
    const waits = !this.source.settled;
    clear(this.since, "since ", time(since), waits ? `, ${ms(Math.max(0, this.platform.now() - since))}` : "");
  }

  #part(name, key, draw) {
    const text = JSON.stringify(key);
    if (this.drawn[name] === text) return;
    this.drawn[name] = text;
    clear(this.parts[name], draw());
  }

  #summary(task) {
    const { offer } = task;
    return facts([
      ["Task id", digest(task.id, "task id")],
      ["UE", digest(offer.ue, "UE's address")],
      ["Kernel", [kernelName(offer.module_digest), " ", digest(offer.module_digest, "module digest")]],
      ["Source", `server ${offer.source}`],
      ["Executor", task.executor === null ? "none yet" : `server ${task.executor}`],
      ["Input", [octets(offer.input_octets), ", sealed: ", digest(offer.input_digest, "digest of the sealed input")]],
      ["Deadline", times(offer.deadline_ms)],
      ["Desired", ms(offer.desired_ms)],
      ["Limits", `${fuel(offer.fuel_limit)}, ${integer(offer.memory_pages)} pages, ${octets(offer.output_octets)} out`],
      ["Result", task.result ? [h("code", {}, task.result.code), " ", digest(task.result.result_digest, "result digest")] : "none yet"],
      ["Sealed result", task.result?.cipher_digest ? [digest(task.result.cipher_digest, "digest of the sealed result"), ` kept by servers ${task.result.holders.join(", ")} too`] : null],
      ["Result key", digest(offer.result_key, "hash of the result key")],
      ["Input's key", ["commitment ", digest(offer.key_commit, "commitment to the input's key")]],
      ["Nonce", h("code", {}, String(offer.nonce))],
      ["Trace id", digest(task.trace_id, "trace id")],
      ["Sold again", task.reopened ? `${task.reopened} times back to open` : null],
    ]);
  }
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
