// The fault panel: break nodes on purpose, and see what that does to consensus and to paying users' tasks.
//
// Theory of operation. GET /faults of the board's own server says what was done to each node; everything else comes from
// the nodes' public REST and events. An act is asked for in a dialog that says first what will happen. Elements are kept
// and only their text changes, so that focus and selection stay where they are.

import { announce, append, clear, clock, h, integer, link, ms, say, short, taskLink, time, wei } from "../dom.js";
import { ACT_NAMES, LIES, STATES, consequences, isFaulty, noticed, stateWords } from "../faults/words.js";

const POLL_MS = 1_000;
const TIMEOUT_MS = 40_000; // a container that starts again on a busy machine takes its time
const STAYS_MS = 60_000; // how long a task that has ended stays in the list
const TASKS = 50;
const NOTED = 30;
const ENDED = new Set(["SETTLED", "REFUNDED"]);
const sleep = (delay) => new Promise((done) => { setTimeout(done, delay); });

export async function mount(root, platform) {
  if (!platform.config.faults) {
    explain(root);
    return null;
  }
  const view = new FaultView(root, platform);
  view.start();
  return () => view.stop();
}

function explain(root) {
  append(root, h("h1", {}, "Faults"),
    h("p", {}, "This platform's scenario does not allow nodes to be broken on purpose, so this page has no way to do it."),
    h("p", {}, "A demonstration allows it: ", h("code", {}, "edgora demo --serve"), ", or a scenario file with ",
      h("code", {}, "[faults] allowed = true"), ". In containers a sidecar carries the faults out: ",
      h("code", {}, "docker compose --env-file deploy/faults.env up"), "."),
    h("p", {}, link("#/ledger", "The ledger view"), " shows who votes and who is silent, whatever the reason."));
}

class FaultView {
  #stopped = new AbortController();
  #off = [];

  constructor(root, platform) {
    this.platform = platform;
    this.faults = [];
    this.cards = new Map();
    this.rows = new Map();
    this.viewSeen = null;
    this.problems = { act: null, reading: null };
    this.sentence = h("p", { class: "fault-sentence" }, "Reading what consensus waits for.");
    this.count = h("p", { class: "muted" }, "");
    this.grid = h("div", { class: "cards fault-cards" });
    this.problem = h("p", { class: "fault-problem", role: "alert", hidden: true });
    this.taskRows = h("tbody");
    this.noTask = h("p", { class: "muted" }, "No task is under way. ", link("#/try", "Send one"), ", or let a fleet do it: ", h("code", {}, "edgora fleet"), ".");
    this.taskTable = h("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": "Tasks under way" },
      h("table", {}, h("caption", {}, "Tasks under way, and those that ended in the last minute"),
        h("thead", {}, h("tr", {}, ["Task", "User", "Pays at most", "Server", "State", "Why"].map((name) => h("th", { scope: "col" }, name)))),
        this.taskRows));
    this.notes = h("ol", { class: "fault-notes" });
    this.noNote = h("p", { class: "muted" }, "Nothing yet.");
    this.dialog = h("dialog", { class: "fault-dialog", "aria-labelledby": "fault-dialog-title" });
    append(root,
      h("div", { class: "view-head" }, h("h1", {}, "Faults"),
        h("p", { class: "muted" }, "Everything here happens for real to this platform's own nodes.")),
      h("section", { "aria-label": "Consensus", class: "panel" }, h("h2", { class: "fault-first" }, "Consensus now"), this.sentence, this.count),
      this.problem,
      h("section", { "aria-label": "Nodes" }, h("h2", {}, "Nodes"), this.grid),
      h("section", { "aria-label": "Users' tasks" }, h("h2", {}, "What it does to paying users"), this.noTask, this.taskTable),
      h("section", { "aria-label": "What the others noticed" }, h("h2", {}, "What the others noticed"), this.noNote, this.notes),
      this.dialog);
  }

  start() {
    for (const event of this.platform.history) this.#event(event);
    this.#off = [
      this.platform.on("event", (event) => this.#event(event)),
      this.platform.on("status", () => this.#status()),
    ];
    this.#status();
    this.#repeat(() => this.#readFaults());
    this.#repeat(() => this.#readTasks());
  }

  stop() {
    this.#stopped.abort();
    for (const off of this.#off) off();
    if (this.dialog.open) this.dialog.close();
  }

  async #repeat(work) {
    while (!this.#stopped.signal.aborted) {
      if (!document.hidden) await work();
      await sleep(POLL_MS);
    }
  }

  // ---- what was done to the nodes

  async #ask(options = {}) {
    const signal = AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const response = await fetch("faults", { cache: "no-store", ...options, signal });
    const body = await response.json().catch(() => null);
    if (!response.ok) throw new Error([body?.detail ?? `the board's server answered ${response.status}`, body?.fix].filter(Boolean).join("; "));
    return body;
  }

  async #readFaults() {
    try {
      this.faults = (await this.#ask()).nodes;
      this.#complain("reading", null);
    } catch (error) {
      if (!this.#stopped.signal.aborted) this.#complain("reading", error.name === "TypeError" ? "The board's server does not answer." : error.message);
    }
    this.#draw();
  }

  // What went wrong with the last act stays until the next one; what kept us from reading, until we can read again.
  #complain(what, text) {
    this.problems[what] = text;
    const shown = this.problems.act ?? this.problems.reading;
    this.problem.hidden = shown === null;
    if (shown !== null) say(this.problem, shown);
  }

  #draw() {
    if (this.grid.childElementCount !== this.faults.length) {
      this.cards.clear();
      clear(this.grid);
      for (const { index } of this.faults) {
        const card = new NodeCard(index, (act, lie) => this.#confirm(index, act, lie));
        this.cards.set(index, card);
        this.grid.append(card.element);
      }
    }
    const primary = this.#best()?.primary;
    for (const node of this.faults) this.cards.get(node.index).draw(node, this.platform.statuses.get(node.index), primary === node.index);
    const bad = this.faults.filter(isFaulty).map((node) => node.index);
    say(this.count, bad.length === 0 ? "No node is broken on purpose." : `Broken on purpose: node${bad.length === 1 ? "" : "s"} ${bad.join(", ")}.`);
  }

  // ---- acts

  #confirm(index, act, lie) {
    const title = act === "lie" ? `Make node ${index} lie: ${LIES[lie].name.toLowerCase()}?` : `${ACT_NAMES[act]} node ${index}?`;
    const words = consequences(index, act, lie, this.faults);
    const go = h("button", { type: "button", class: "primary", onclick: () => this.#act(index, act, lie) }, act === "heal" ? "Heal it" : "Do it");
    const no = h("button", { type: "button", onclick: () => this.dialog.close() }, "Leave it");
    clear(this.dialog, h("h2", { id: "fault-dialog-title", class: "fault-first" }, title), words.map((sentence) => h("p", {}, sentence)),
      h("div", { class: "fault-buttons" }, go, no));
    this.dialog.showModal();
    go.focus();
  }

  async #act(index, act, lie) {
    this.dialog.close();
    this.#complain("act", null);
    this.cards.get(index)?.busy(ACT_NAMES[act]);
    announce(`${ACT_NAMES[act]} node ${index}: under way`);
    try {
      const found = await this.#ask({
        method: "POST", headers: { "Content-Type": "application/json", "X-Edgora-Board": "1" },
        body: JSON.stringify({ node: index, act, ...(act === "lie" ? { lie } : {}) }),
      });
      this.faults = this.faults.map((node) => (node.index === index ? found : node));
      announce(`node ${index} is ${stateWords(found)}`);
      this.#note({ at: this.platform.now(), text: act === "heal" ? `you healed node ${index}` : `you: ${ACT_NAMES[act].toLowerCase()}, node ${index}${lie ? ` (${LIES[lie].name.toLowerCase()})` : ""}`, mine: true });
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      this.#complain("act", `Node ${index}: ${error.message}`);
      announce(`node ${index}: ${error.message}`);
    } finally {
      this.cards.get(index)?.busy(null);
    }
    this.#draw();
  }

  // ---- consensus

  #best() {
    const known = [...this.platform.statuses.values()].map((entry) => entry.status).filter(Boolean);
    return known.reduce((best, status) => (best === null || status.view > best.view ? status : best), null);
  }

  #status() {
    const here = this.platform.statuses.get(this.platform.node.index);
    const status = here.status ?? this.#best();
    if (!status) say(this.sentence, "No node answers: nothing can be said, and nothing can be ordered.");
    else say(this.sentence, `${steady(status.sentence)} (as node ${status.own_index ?? this.platform.node.index} sees it, view ${status.view})`);
    const best = this.#best();
    if (best) {
      if (this.viewSeen !== null && best.view > this.viewSeen) {
        this.#note({ at: this.platform.now(), text: `view change: from view ${this.viewSeen} to ${best.view}; node ${best.primary} is the primary now` });
      }
      this.viewSeen = Math.max(this.viewSeen ?? 0, best.view);
    }
    if (this.faults.length) this.#draw();
  }

  // ---- users' tasks

  async #readTasks() {
    let page;
    try {
      page = await this.platform.get(`/v1/tasks?limit=${TASKS}`, { signal: this.#stopped.signal });
    } catch {
      return; // the connection banner says that nobody answers
    }
    const now = Date.now();
    const kept = [];
    for (const task of page.items) {
      const row = this.rows.get(task.id);
      if (ENDED.has(task.state) && !row) continue;
      const shown = row ?? new TaskRow(task);
      shown.draw(task, now);
      if (shown.ended !== null && now - shown.ended > STAYS_MS) continue;
      kept.push([task.id, shown]);
    }
    this.rows = new Map(kept);
    const elements = kept.map(([, row]) => row.element);
    if (elements.length !== this.taskRows.childElementCount || elements.some((element, i) => this.taskRows.children[i] !== element)) {
      this.taskRows.replaceChildren(...elements);
    }
    this.taskTable.hidden = kept.length === 0;
    this.noTask.hidden = kept.length > 0;
  }

  // ---- what the others noticed

  #event(event) {
    const found = noticed(event);
    if (found) this.#note({ at: event.time_ms, ...found });
  }

  #note({ at, text, task, mine }) {
    this.noNote.hidden = true;
    this.notes.prepend(h("li", { class: mine ? "mine" : null }, time(at), " ", task ? [taskLink(task), " "] : null, text));
    while (this.notes.childElementCount > NOTED) this.notes.lastElementChild.remove();
  }
}

class NodeCard {
  #buttons = {};
  #busy = null;
  #node = null;

  constructor(index, onAct) {
    this.index = index;
    this.mark = h("span", { "aria-hidden": "true", class: "fault-mark" });
    this.state = h("span", {});
    this.tag = h("p", { class: "fault-state" }, this.mark, " ", this.state);
    this.since = h("p", { class: "muted fault-since" });
    this.role = h("span", { class: "tag", "data-kind": "good", hidden: true }, "primary");
    this.rest = h("p", { class: "fault-rest" });
    this.lie = h("select", { "aria-label": `lie of node ${index}` }, Object.entries(LIES).map(([value, { name }]) => h("option", { value }, name)));
    for (const act of ["kill", "pause", "cut", "lie", "heal"]) {
      this.#buttons[act] = h("button", {
        type: "button", "data-act": act, "aria-label": `${ACT_NAMES[act]}: node ${index}`,
        onclick: () => onAct(act, act === "lie" ? this.lie.value : null),
      }, ACT_NAMES[act]);
    }
    const { kill, pause, cut, lie, heal } = this.#buttons;
    this.element = h("article", { class: "panel fault-card", "data-node": index, "aria-labelledby": `fault-node-${index}` },
      h("h3", { id: `fault-node-${index}` }, `Node ${index} `, this.role), this.tag, this.since, this.rest,
      h("div", { class: "fault-buttons" }, kill, pause, cut, heal),
      h("div", { class: "fault-buttons" }, this.lie, lie));
  }

  // While an act is under way; null when it is over.
  busy(name) {
    this.#busy = name;
    if (name !== null) say(this.state, `${name.toLowerCase()}: under way`);
    this.#enable();
  }

  draw(node, status, primary) {
    this.#node = node;
    const { mark, tone } = STATES[node.state];
    this.tag.dataset.kind = node.lie !== null && node.state === "up" ? "bad" : tone;
    this.element.dataset.state = node.state;
    this.element.dataset.lie = node.lie ?? "none";
    say(this.mark, node.lie !== null && node.state === "up" ? "≠" : mark);
    if (this.#busy === null) say(this.state, stateWords(node));
    say(this.since, isFaulty(node) ? `since ${clock(node.since_ms).slice(0, 8)} (${ms(Math.max(0, Date.now() - node.since_ms))})` : "");
    this.role.hidden = !primary;
    say(this.rest, restWords(status));
    this.#enable();
  }

  #enable() {
    if (this.#node === null) return;
    const { state, lie } = this.#node;
    const can = {
      kill: state !== "killed", pause: state === "up", cut: state === "up", lie: state === "up", heal: state !== "up" || lie !== null,
    };
    for (const [act, button] of Object.entries(this.#buttons)) button.disabled = this.#busy !== null || !can[act];
    this.lie.disabled = this.#buttons.lie.disabled;
  }
}

// Without the count of milliseconds of a wait that is over before it can be read.
function steady(sentence) {
  return sentence.replace(/; since \d{1,3} ms$/, "");
}

function restWords(known) {
  if (!known) return "Its REST is not known to this page.";
  if (known.ok === null) return "Its REST was not asked yet.";
  if (!known.ok) return `Its REST does not answer since ${clock(known.since_ms).slice(0, 8)}.`;
  if (!known.status) return `Its REST answers: ${known.error}.`;
  return `Height ${integer(known.status.committed_height)}. ${steady(known.status.sentence)}`;
}

class TaskRow {
  ended = null;

  constructor(task) {
    this.state = h("td", { "data-label": "State" });
    this.why = h("td", { "data-label": "Why", class: "fault-why" });
    this.server = h("td", { "data-label": "Server" });
    this.element = h("tr", { "data-task": task.id },
      h("td", { "data-label": "Task" }, taskLink(task.id)), h("td", { "data-label": "User", class: "mono", title: task.offer.ue }, short(task.offer.ue)),
      h("td", { "data-label": "Pays at most", class: "num" }, wei(task.maximum)), this.server, this.state, this.why);
  }

  draw(task, now) {
    say(this.state, task.state);
    say(this.server, task.executor === null ? "none yet" : `node ${task.executor}`);
    say(this.why, task.why);
    if (ENDED.has(task.state)) this.ended ??= now;
  }
}
