// The platform as this page sees it: one current node to read from, all nodes watched, one stream of events.
//
// Theory of operation. Every node answers the same public REST and streams the same events under the same ids, so it does
// not matter which one is read. `node` is the one read now. Each node's /v1/status is asked once a second; when the
// current one does not answer, or falls behind the others, the page goes on at the best of the rest, from the last event
// id that it saw, and says so. It stays there until that one fails: a node that comes back is told of, not jumped to.
//
//   const platform = connect(config);                     // config: /board.json
//   await platform.get("/v1/servers");                    // parsed JSON; throws Problem (an answer) or Unreachable (none)
//   const off = platform.on("event", (event) => ...);     // each ledger event, once, in order; off() ends it
//   platform.on("status", (statuses) => ...);             // Map: index -> {index, url, ok, status, error, since_ms, gone_ms}
//   platform.on("node", ({kind, node, sentence}) => ...); // kind: connecting, connected, lost, switched, back
//   platform.history                                      // array of the events of the last 5 minutes
//   platform.now()                                        // the nodes' clock, ms

import { parse } from "./exact.js";
import { History, readEvents } from "./feed.js";
import { clock } from "./dom.js";

const TIMEOUT_MS = 4_000;
const POLL_MS = 1_000;
const BEHIND_MS = 5_000; // ledger time that the current node may lack of the others' before the page leaves it
const RETRY_MS = 500;
const RETRY_MOST_MS = 4_000;
const PAGE = 200;
const PAGES = 10; // of tasks, looked through for the start of the history

// An answer that is an error, as problem+json says it.
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `the node answered ${status}`);
    this.status = status;
    this.code = body?.code ?? "unknown";
    this.body = body ?? {};
  }
}

// No node answered.
export class Unreachable extends Error {}

// Whether an error means that there is no answer to be had (yet), or that nobody waits for it any more; all else is a
// mistake of this page.
export function isSilence(error) {
  return error instanceof Problem || error instanceof Unreachable || error.name === "AbortError";
}

const sleep = (delay) => new Promise((done) => { setTimeout(done, delay); });

export function connect(config) {
  return new Platform(config);
}

class Platform {
  #listeners = { event: new Set(), node: new Set(), status: new Set() };
  #stop = new AbortController();
  #stream = null;
  #offset = 0;
  #last = null;
  #left = null;

  constructor(config) {
    this.config = config;
    this.nodes = config.nodes;
    this.node = this.nodes[0];
    this.history = new History();
    this.streaming = false;
    this.notice = { kind: "connecting", node: this.node, sentence: `connecting to node ${this.node.index}` };
    this.statuses = new Map(this.nodes.map(({ index, url }) => [
      index, { index, url, ok: null, status: null, error: null, since_ms: Date.now(), gone_ms: null },
    ]));
    for (const node of this.nodes) this.#watch(node);
    this.#follow();
    this.#keepTime();
  }

  // What the nodes' clock shows now.
  now() {
    return Date.now() + this.#offset;
  }

  // JSON from the current node; from another if that one gives no answer, or says that it cannot serve (503).
  async get(path, { signal } = {}) {
    const order = [this.node, ...this.#others()];
    let last = null;
    for (const node of order) {
      try {
        const found = await this.#ask(node, path, signal);
        if (node !== this.node && !this.#isWell(this.node)) this.#switch(node);
        return found;
      } catch (error) {
        if (signal?.aborted) throw error;
        const noAnswer = error instanceof TypeError || error.name === "TimeoutError" || error.status === 503;
        if (!noAnswer) throw error;
        last = error;
      }
    }
    if (last instanceof Problem) throw last;
    throw new Unreachable(`no node answers: tried ${order.map((node) => `node ${node.index}`).join(", ")}`);
  }

  // All items of a paged list, newest first, until `enough(item)` says so of one or `most` are there.
  async list(path, { enough = () => false, most = PAGE * PAGES, signal } = {}) {
    const found = [];
    let cursor = null;
    do {
      const ask = new URLSearchParams({ limit: PAGE, ...(cursor === null ? {} : { cursor }) });
      const page = await this.get(`${path}${path.includes("?") ? "&" : "?"}${ask}`, { signal });
      for (const item of page.items) {
        found.push(item);
        if (enough(item) || found.length >= most) return found;
      }
      cursor = page.cursor;
    } while (cursor !== null && cursor !== undefined);
    return found;
  }

  on(type, listener) {
    this.#listeners[type].add(listener);
    return () => this.#listeners[type].delete(listener);
  }

  close() {
    this.#stop.abort();
    this.#stream?.abort();
  }

  // ---- asking

  async #ask(node, path, signal) {
    const signals = [this.#stop.signal, AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
    const response = await fetch(node.url + path, { signal: AbortSignal.any(signals), cache: "no-store" });
    const text = await response.text();
    if (response.ok) return parse(text);
    let body = null;
    try {
      body = parse(text);
    } catch { /* not problem+json: the status alone has to do */ }
    throw new Problem(response.status, body);
  }

  #others() {
    const rank = (node) => {
      const known = this.statuses.get(node.index);
      return [known.ok === false ? 1 : 0, -(known.status?.header_time_ms ?? 0)];
    };
    return this.nodes.filter((node) => node !== this.node).sort((a, b) => {
      const [one, other] = [rank(a), rank(b)];
      return one[0] - other[0] || one[1] - other[1];
    });
  }

  #isWell(node) {
    return this.statuses.get(node.index).ok !== false;
  }

  // ---- watching every node

  async #watch(node) {
    while (!this.#stop.signal.aborted) {
      const started = Date.now();
      await this.#poll(node);
      this.#judge(node);
      await sleep(Math.max(document.hidden ? POLL_MS * 5 : POLL_MS, POLL_MS - (Date.now() - started)));
    }
  }

  async #poll(node) {
    const known = this.statuses.get(node.index);
    try {
      const status = await this.#ask(node, "/v1/status");
      this.#mark(known, true, { status, error: null });
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      // an answer is an answer: a node whose consensus half is down still serves what it has
      if (error instanceof Problem) this.#mark(known, true, { status: null, error: error.message });
      else this.#mark(known, false, { status: null, error: "it does not answer" });
    }
    this.#tell("status", this.statuses);
  }

  #mark(known, ok, rest) {
    if (known.ok !== ok) {
      if (known.ok === false) {
        known.back_ms = Date.now();
        if (known.index !== this.node.index) this.#say("back", `node ${known.index} is back (gone ${clock(known.gone_ms)} to ${clock(known.back_ms)}); reading from node ${this.node.index}`);
      }
      known.since_ms = Date.now();
      if (ok === false) known.gone_ms = known.since_ms;
    }
    Object.assign(known, { ok }, rest);
  }

  // Leaves the current node if it is gone or behind, and there is a better one.
  #judge(node) {
    if (node !== this.node) return this.#welcome(node);
    const mine = this.statuses.get(node.index);
    const best = this.#others().find((other) => this.statuses.get(other.index).ok === true);
    if (mine.ok === false) {
      if (best) this.#switch(best);
      else this.#say("lost", `node ${node.index} is gone since ${clock(mine.gone_ms)}${this.nodes.length > 1 ? ", and no other node answers" : ""}: trying again each second`);
      return;
    }
    const ahead = best && this.statuses.get(best.index).status;
    if (mine.ok && !mine.status && ahead) {
      this.#switch(best, `node ${node.index} answers, but does not know where the ledger is: reading from node ${best.index}`);
    } else if (mine.status && ahead && ahead.header_time_ms - mine.status.header_time_ms > BEHIND_MS) {
      this.#switch(best, `node ${node.index} is ${ahead.committed_height - mine.status.committed_height} blocks behind: reading from node ${best.index}`);
    }
  }

  // A node that was left because it was behind, and is not any more.
  #welcome(node) {
    const [mine, theirs] = [this.statuses.get(this.node.index).status, this.statuses.get(node.index).status];
    if (this.notice.kind !== "switched" || node !== this.#left || !mine || !theirs) return;
    if (mine.header_time_ms - theirs.header_time_ms < BEHIND_MS / 2) this.#say("back", `node ${node.index} has caught up; reading from node ${this.node.index}`);
  }

  #switch(node, sentence) {
    const left = this.node;
    if (node === left) return;
    this.#left = left;
    this.node = node;
    const gone = this.statuses.get(left.index).gone_ms ?? Date.now();
    this.#say("switched", sentence ?? `node ${left.index} is gone since ${clock(gone)}: reading from node ${node.index}`);
    this.#stream?.abort();
  }

  // ---- following the ledger

  async #follow() {
    let delay = RETRY_MS;
    while (!this.#stop.signal.aborted) {
      const node = this.node;
      this.#stream = new AbortController();
      try {
        this.#last ??= await this.#beginning();
        await readEvents(`${node.url}/v1/events`, {
          after: this.#last, signal: this.#stream.signal,
          onOpen: () => { delay = RETRY_MS; this.#connected(node); },
          onEvent: (event) => this.#take(event),
        });
      } catch { /* whatever it was: the loop opens the next stream, and the watch says in words what is wrong */ }
      this.streaming = false;
      if (this.node !== node) continue;
      await sleep(delay);
      delay = Math.min(delay * 2, RETRY_MOST_MS);
    }
  }

  #connected(node) {
    this.streaming = true;
    const known = this.statuses.get(node.index);
    if (this.notice.kind === "connecting") this.#say("connected", `connected to node ${node.index}`);
    else if (this.notice.kind === "lost") this.#say("back", `node ${node.index} is back${known.gone_ms ? ` (gone since ${clock(known.gone_ms)})` : ""}: reading from it`);
  }

  #take(event) {
    if (this.#last !== null && event.id <= this.#last) return;
    this.#last = event.id;
    this.history.add(event);
    this.#tell("event", event);
  }

  // The id before the first event of the last five minutes: that of the youngest task that is older. No route gives an
  // id for an instant, but each task's stream begins with the id of its opening.
  async #beginning() {
    const horizon = this.now() - History.SPAN_MS;
    const tasks = await this.list("/v1/tasks", { enough: (task) => task.opened_ms < horizon });
    const oldest = tasks.at(-1);
    if (!oldest) return 0;
    let first = 0;
    const stop = new AbortController();
    await readEvents(`${this.node.url}/v1/tasks/${oldest.id}/events`, {
      after: 0, signal: stop.signal, onEvent: (event) => { first ||= event.id; stop.abort(); },
    }).catch((error) => { if (!first) throw error; });
    return Math.max(0, first - 1);
  }

  async #keepTime() {
    while (!this.#stop.signal.aborted) {
      const sent = Date.now();
      try {
        const info = await this.get("/v1/info");
        this.info = info;
        this.#offset = info.time_ms - (sent + Date.now()) / 2;
      } catch { /* the watch tells */ }
      await sleep(this.info ? 15_000 : 1_000);
    }
  }

  // ---- telling

  #say(kind, sentence) {
    if (this.notice.kind === kind && this.notice.sentence === sentence) return;
    this.notice = { kind, node: this.node, sentence, at_ms: Date.now() };
    this.#tell("node", this.notice);
  }

  #tell(type, value) {
    for (const listener of [...this.#listeners[type]]) {
      try {
        listener(value);
      } catch (error) {
        console.error(error); // one view's mistake must not end the stream for the others
      }
    }
  }
}
