// Tasks as the city sees them: the ledger's events folded into one track a task, from which any instant can be shown.
//
// A track is a list of marks, each an instant with the phase that begins there. Ledger events give most of them; three
// are set by this page, because the ledger has no event for them, and the legend says so: the upload of the sealed input
// (shown over UPLOAD_MS before its TASK), the end of a forward (by the source's advertised uplink) and the way home of a
// result. `at(t)` is a pure function of the marks, so pausing and stepping back need nothing else.

import { isSilence } from "../platform.js";
import { OF_STATE, OVER, STATES } from "./phases.js";

export const UPLOAD_MS = 900;
export const ALLOCATED_MS = 350;
export const HOME_MS = 900;
const FORWARD_LEAST_MS = 500;
const FORWARD_MOST_MS = 3_000;
export const LINGER_MS = 6_000; // so long a paid or ended task stays in sight
const KEEP_MS = 5 * 60_000;

export class Track {
  constructor(id, offer) {
    this.id = id;
    this.ue = offer.ue;
    this.source = offer.source;
    this.kernel = offer.module_digest;
    this.octets = offer.input_octets;
    this.executor = null;
    this.expected = null;
    this.end = null; // the ledger's state name, once it ended without pay
    this.why = "";
    this.marks = [];
  }

  mark(at, phase, rest = {}) {
    this.marks.push({ at, phase, executor: this.executor, ...rest });
    this.marks.sort((one, other) => one.at - other.at);
  }

  // Takes back what was only expected to begin after `at`.
  #cut(at) {
    this.marks = this.marks.filter((mark) => mark.at <= at || !mark.expected);
  }

  opened(at) {
    this.mark(at - UPLOAD_MS, "sealed", { until: at });
    this.mark(at, "ordered");
  }

  assigned(at, executor, expected, uplink) {
    this.executor = executor;
    this.expected = expected;
    this.mark(at, "allocated");
    let start = at + ALLOCATED_MS;
    if (executor !== this.source) {
      const transfer = uplink ? (1000 * this.octets) / uplink : 0;
      const took = Math.min(FORWARD_MOST_MS, Math.max(FORWARD_LEAST_MS, transfer));
      this.mark(start, "forwarded", { until: start + took, expected: true });
      start += took;
    }
    this.mark(start, "running", { expected: true });
  }

  // The run was over sooner than the forward was thought to take: what lies between shares the time that there was.
  filed(at) {
    const from = this.marks.findLast((mark) => mark.phase === "allocated");
    const late = this.marks.filter((mark) => mark.expected && mark.at > from?.at);
    if (from && late.some((mark) => mark.at >= at)) {
      const share = (at - from.at) / (late.length + 1);
      late.forEach((mark, index) => {
        mark.at = from.at + share * (index + 1);
        if (mark.until) mark.until = mark.at + share;
      });
    }
    for (const mark of late) mark.expected = false;
    this.mark(at, "filed");
  }

  final(at) {
    this.mark(at, "final", { until: at + HOME_MS });
  }

  over(at, phase, end = null) {
    this.#cut(at);
    this.end = end;
    this.mark(at, phase, { until: at + HOME_MS / 2 });
  }

  reopened(at) {
    this.#cut(at);
    this.executor = null;
    this.mark(at, "ordered");
  }

  get first() {
    return this.marks[0]?.at ?? Infinity;
  }

  get gone() {
    const last = this.marks.at(-1);
    return last && OVER.has(last.phase) ? last.at + LINGER_MS : Infinity;
  }

  // Where the task is at an instant: {phase, since, progress (0..1, of what moves), executor, before}, or null.
  at(t) {
    let found = null;
    let before = null;
    for (const mark of this.marks) {
      if (mark.at > t) break;
      before = found;
      found = mark;
    }
    if (found === null || (OVER.has(found.phase) && t > found.at + LINGER_MS)) return null;
    const progress = found.until ? Math.min(1, (t - found.at) / Math.max(1, found.until - found.at)) : 1;
    return { phase: found.phase, since: found.at, progress, executor: found.executor, before: before?.phase ?? null };
  }
}

export class CityModel {
  #known = new Map(); // ids being fetched, or that cannot be
  #certified = new Set();

  constructor(platform) {
    this.platform = platform;
    this.tracks = new Map();
    this.rounds = [];
    this.uplinks = new Map();
    this.newest = 0;
  }

  // One event of the ledger.
  take(event) {
    this.newest = Math.max(this.newest, event.time_ms);
    const fold = FOLDS[event.type];
    if (fold === undefined) return;
    if (event.task === null || event.type === "TaskOpened") fold.call(this, event);
    else {
      const track = this.tracks.get(event.task);
      if (track) fold.call(this, event, track);
      else this.#fetch(event.task);
    }
  }

  // Tasks in sight at an instant: [{track, pose}], oldest first.
  at(t, fits = () => true) {
    const found = [];
    for (const track of this.tracks.values()) {
      if (track.first > t) continue;
      const pose = track.at(t);
      if (pose !== null && fits(track, pose)) found.push({ track, pose });
    }
    return found;
  }

  roundAt(t) {
    return this.rounds.findLast((round) => round.at <= t) ?? null;
  }

  // The nearest instant at which something begins, before (-1) or after (+1) t.
  neighbour(t, direction, fits) {
    let best = null;
    for (const track of this.tracks.values()) {
      if (!fits(track, null)) continue;
      for (const mark of track.marks) {
        const closer = direction < 0 ? mark.at < t && (best === null || mark.at > best) : mark.at > t && (best === null || mark.at < best);
        if (closer) best = mark.at;
      }
    }
    return best;
  }

  prune(now) {
    const horizon = now - KEEP_MS - LINGER_MS;
    for (const [id, track] of this.tracks) if (track.gone < horizon) this.tracks.delete(id);
    this.rounds = this.rounds.filter((round, index) => round.at >= horizon || index === this.rounds.length - 1);
  }

  // A task that was under way before the page's history began.
  adopt(task) {
    if (this.tracks.has(task.id)) return;
    const phase = OF_STATE[task.state] ?? "ended";
    const track = new Track(task.id, task.offer);
    track.opened(task.opened_ms);
    if (task.executor !== null && task.assigned_ms !== null) {
      track.assigned(task.assigned_ms, task.executor, null, this.uplinks.get(task.offer.source));
      if (task.done_ms !== null) track.filed(Math.max(task.done_ms, task.assigned_ms));
    }
    if (phase === "ended") track.over(task.done_ms ?? task.assigned_ms ?? task.opened_ms, "ended", task.state);
    else if (!["ordered", "running", "filed"].includes(phase)) track.mark((task.done_ms ?? task.opened_ms) + 1, phase);
    track.why = task.why;
    this.tracks.set(task.id, track);
  }

  async #fetch(id) {
    if (this.#known.has(id)) return;
    this.#known.set(id, true);
    try {
      this.adopt(await this.platform.get(`/v1/tasks/${id}`));
    } catch (error) {
      if (!isSilence(error)) throw error; // it is too old for the node, too: it stays out of the picture
    }
  }

  // Which tasks a batch holds is in no event.
  async certify(batch, at) {
    if (this.#certified.has(batch)) return;
    this.#certified.add(batch);
    try {
      const found = await this.platform.get(`/v1/batches/${batch}`);
      for (const id of found.tasks) {
        const track = this.tracks.get(id);
        if (track && !track.marks.some((mark) => mark.phase === "certified" || mark.phase === "paid" && mark.at <= at)) track.mark(at, "certified");
      }
    } catch (error) {
      if (!isSilence(error)) throw error; // the batch left the node's archive: its tasks stay final until they are paid
    }
  }
}

const FOLDS = {
  TaskOpened(event) {
    if (this.tracks.has(event.task)) return;
    const track = new Track(event.task, event.data.offer);
    track.opened(event.time_ms);
    this.tracks.set(event.task, track);
  },
  TaskAssigned(event, track) {
    track.assigned(event.time_ms, event.data.executor, event.data.expected_ms, this.uplinks.get(track.source));
  },
  TaskReopened(event, track) { track.reopened(event.time_ms); },
  ResultFiled(event, track) { track.filed(event.time_ms); },
  TaskFinal(event, track) { track.final(event.time_ms); },
  TaskRequeued(event, track) { track.mark(event.time_ms, "final"); },
  TaskSettled(event, track) { track.over(event.time_ms, "paid"); },
  TaskEnded(event, track) { track.over(event.time_ms, "ended", STATES[event.data.state] ?? "ended"); },
  BatchCertified(event) { this.certify(event.data.batch_id, event.time_ms); },
  RoundClosed(event) {
    const { round, policy, choices, winner } = event.data;
    const placed = choices.filter((choice) => choice.server !== null).length;
    this.rounds.push({ at: event.time_ms, round, policy, winner, placed, tasks: choices.length });
  },
  AdvertFiled(event) { this.uplinks.set(event.server, event.data.advert.uplink); },
};
