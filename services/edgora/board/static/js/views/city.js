// The city: servers and UEs where they stand, links as they are used, tasks as they move from seal to payment.
//
// Theory of operation: ledger events are folded into tracks (city/model), an instant of which (city/timeline) is placed
// (city/layout) and drawn (city/scene), filtered (city/filters); a table says the same in words (city/list). Frames are
// drawn while the page is visible: each of the screen's while something is on its way, ten a second while nothing is.

import { append, h, say } from "../dom.js";
import { kernelName } from "../kernels.js";
import { isSilence } from "../platform.js";
import { Filters } from "../city/filters.js";
import { Places } from "../city/layout.js";
import { TaskList } from "../city/list.js";
import { CityModel } from "../city/model.js";
import { Scene } from "../city/scene.js";
import { Timeline } from "../city/timeline.js";

const LIST_MS = 500;
const PLACES_MS = 5_000;
const TASKS_MS = 3_000;
const LISTED = 60; // tasks whose "why" is asked for: as many as the table lists
const STILL_MS = 500; // between frames where motion is unwanted
const CALM_MS = 100; // and where nothing is on its way
const FRAME_MS = 17; // of a screen that draws sixty a second
const KEYS_STAY = "input, select, textarea, button, a, summary, .table-frame"; // these have uses of their own for the keys

export async function mount(root, platform, params) {
  const view = new CityView(root, platform, params);
  view.start();
  return () => view.stop();
}

class CityView {
  #off = [];
  #timers = [];
  #cancel = null; // of the frame that is due
  #moves = false;
  #last = 0;
  #stopped = new AbortController();
  #servers = [];
  #positions = new Map();
  #dirty = true;

  constructor(root, platform, params) {
    this.platform = platform;
    this.motion = matchMedia("(prefers-reduced-motion: reduce)");
    this.model = new CityModel(platform);
    this.places = new Places();
    this.filters = new Filters(params, kernelName, () => this.#changed());
    this.timeline = new Timeline(platform, {
      neighbour: (t, direction) => this.model.neighbour(t, direction, this.filters.fits), onMove: () => this.#changed(),
    });
    this.list = new TaskList(kernelName);
    this.scene = new Scene(this.places, { still: () => this.motion.matches, onPick: (kind, id) => this.#pick(kind, id) });
    this.note = h("p", { class: "muted city-note" }, "Reading where servers and UEs stand.");
    append(root,
      h("div", { class: "view-head" }, h("h1", {}, "City"), h("p", { class: "muted" }, "Each task from its UE to the server that runs it, and to its payment. The picture lags the ledger by 1.2 s.")),
      h("div", { class: "city" },
        h("section", { class: "city-stage", "aria-label": "Map and time" }, this.scene.element, this.timeline.element,
          h("p", { class: "muted city-keys" }, "Keys: ", h("kbd", {}, "Space"), " pauses, ", h("kbd", {}, "Left"), " and ", h("kbd", {}, "Right"), " step 1 s, with ", h("kbd", {}, "Shift"), " to the next change, ", h("kbd", {}, "End"), " goes live."), this.note),
        this.filters.element),
      h("h2", {}, "Tasks in view"), this.list.element);
  }

  start() {
    for (const event of this.platform.history) this.model.take(event);
    this.#off.push(this.platform.on("event", (event) => this.#take(event)));
    this.#off.push(this.platform.on("status", () => this.#standServers()));
    const sized = new ResizeObserver(() => { this.scene.resize(); this.#standServers(); this.#changed(); });
    sized.observe(this.scene.element);
    const keyed = (event) => this.#key(event);
    document.addEventListener("keydown", keyed);
    this.#off.push(() => sized.disconnect(), () => document.removeEventListener("keydown", keyed));
    this.#every(LIST_MS, () => this.#second());
    this.#every(PLACES_MS, () => this.#askPlaces());
    this.#every(TASKS_MS, () => this.#askTasks());
    this.#run();
  }

  stop() {
    this.#stopped.abort();
    this.#cancel?.();
    for (const timer of this.#timers) clearInterval(timer);
    for (const off of this.#off) off();
  }

  // ---- time

  #run() {
    if (this.#stopped.signal.aborted) return;
    this.#moves = this.#draw(performance.now());
    this.#next(this.#moves && !this.motion.matches);
  }

  // The next frame: with the screen's next one, or after a while.
  #next(soon) {
    this.#cancel?.();
    const run = () => this.#run();
    if (soon) {
      const frame = requestAnimationFrame(run);
      this.#cancel = () => cancelAnimationFrame(frame);
    } else {
      const timer = setTimeout(run, this.motion.matches ? STILL_MS : CALM_MS);
      this.#cancel = () => clearTimeout(timer);
    }
  }

  // Whether something is on its way.
  #draw(now) {
    if (document.hidden || (!this.timeline.live && !this.#dirty)) return false;
    const t = this.timeline.at();
    // a paused scene is still while nothing is changed; gliding ends within half a second of the last change
    this.#dirty = this.#dirty && now - this.changed < STILL_MS;
    const since = now - this.#last;
    this.#last = now;
    const frame_ms = !this.#moves && since < STILL_MS ? FRAME_MS : since; // what starts after a rest starts gently
    return this.scene.draw({ tasks: this.model.at(t, this.filters.fits), t, round: this.model.roundAt(t), frame_ms });
  }

  #changed() {
    this.#dirty = true;
    this.changed = performance.now();
    if (this.list) this.#second();
    if (this.#cancel) this.#next(true); // somebody waits for it
  }

  #second() {
    if (document.hidden) return;
    const t = this.timeline.at();
    const every = this.model.at(t);
    this.list.show(every.filter(({ track, pose }) => this.filters.fits(track, pose)), t, this.timeline.live);
    const counts = new Map();
    for (const { pose } of every) counts.set(pose.phase, (counts.get(pose.phase) ?? 0) + 1);
    const tracks = [...this.model.tracks.values()];
    this.filters.offer({
      ues: unique(tracks.map((track) => track.ue)), kernels: unique(tracks.map((track) => track.kernel)),
      servers: this.#servers.map((server) => server.id), counts,
    });
    this.timeline.tick();
    if (this.timeline.live) this.model.prune(this.platform.now());
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest(KEYS_STAY)) return;
    if (this.timeline.key(event)) event.preventDefault();
  }

  // ---- what is shown

  #take(event) {
    const before = this.model.tracks.size;
    this.model.take(event);
    if (this.model.tracks.size !== before && event.type === "TaskOpened" && !this.places.ues.has(event.data.offer.ue)) this.#standServers();
  }

  async #askPlaces() {
    const found = await this.#read("/v1/servers");
    if (!found) return;
    this.#servers = found.items;
    for (const { id, advert } of found.items) if (advert) this.model.uplinks.set(id, advert.uplink);
    this.#standServers();
    const told = await this.#read("/v1/positions");
    if (!told) return;
    this.#positions = new Map(told.items.map(({ ue, x_m, y_m }) => [ue, [x_m, y_m]]));
    this.#standServers();
  }

  async #askTasks() {
    const found = await this.#read(`/v1/tasks?limit=${LISTED}`);
    for (const task of found?.items ?? []) {
      const track = this.model.tracks.get(task.id);
      if (track) track.why = task.why;
      else if (UNDER_WAY.has(task.state)) this.model.adopt(task);
    }
  }

  // What a node answers, or null if none does: the shell says so, the picture stays as it is.
  async #read(path) {
    if (document.hidden) return null;
    try {
      return await this.platform.get(path, { signal: this.#stopped.signal });
    } catch (error) {
      if (isSilence(error)) return null;
      throw error;
    }
  }

  #standServers() {
    if (!this.#servers.length) return;
    const sources = new Map([...this.model.tracks.values()].map((track) => [track.ue, track.source]));
    const ues = new Map([...this.#positions].filter(([ue]) => sources.has(ue)));
    this.places.tell({ servers: new Map(this.#servers.map(({ id, position_m }) => [id, position_m])), ues, sources });
    this.scene.stand(new Map(this.#servers.map((server) => {
      const known = this.platform.statuses.get(server.id);
      return [server.id, { ...server, reachable: known ? known.ok : null }];
    })));
    say(this.note, this.places.guessed
      ? "UEs that told no position stand on a ring around the server that they upload to. "
        + "The ledger does not record uploads: one is drawn over the 0.9 s before its task is ordered."
      : "The ledger does not record uploads: one is drawn over the 0.9 s before its task is ordered.");
  }

  #pick(kind, id) {
    if (kind === "task") location.hash = `#/task/${id}`;
    else this.filters.toggle(kind, id);
  }

  // Does it now and then again and again, never twice at a time.
  #every(period, act) {
    let busy = false;
    const turn = async () => {
      if (busy) return;
      busy = true;
      try {
        await act();
      } finally {
        busy = false;
      }
    };
    this.#timers.push(setInterval(turn, period));
    turn();
  }
}

const UNDER_WAY = new Set(["OPEN", "ASSIGNED", "DONE", "FINAL", "CERTIFIED"]);
const unique = (values) => [...new Set(values)].sort();
