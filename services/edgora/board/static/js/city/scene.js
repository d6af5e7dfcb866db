// The picture: servers, UEs, links and tasks as SVG, drawn anew for an instant by `draw`.
//
// Elements are kept from frame to frame and touched only where something differs. What moves, moves by its place at the
// instant; what rests and gets another place (its neighbour left) glides there. With reduced motion nothing glides.
// The picture is an image to assistive technology (the table below it is its equivalent); the pointer may pick in it.

import { clear, fuel, h, say, short, svg } from "../dom.js";
import { PHASE } from "./phases.js";

const GLIDE_MS = 110; // time constant of gliding
const SNAP = 0.4; // points

export class Scene {
  #tokens = new Map(); // task id -> {element, x, y, phase, ...}
  #links = new Map();
  #servers = new Map();
  #ues = new Map();
  #more = [];
  #drawn = 0;
  #base = "";
  #scaled = "";

  constructor(places, { onPick, still }) {
    this.places = places;
    this.onPick = onPick;
    this.still = still; // () => whether motion is unwanted
    this.layers = {
      base: svg("g", { class: "city-base" }), links: svg("g", { class: "city-links" }), ues: svg("g", { class: "city-ues" }),
      servers: svg("g", { class: "city-servers" }), tokens: svg("g", { class: "city-tokens" }), more: svg("g", { class: "city-more" }),
    };
    this.caption = h("p", { class: "city-round" }, "no round yet");
    this.scale = svg("g", { class: "city-scale" });
    this.picture = svg("svg", { class: "city-picture", role: "img", "aria-label": "Map of servers, UEs and tasks; the table of tasks below tells the same" },
      svg("defs", {}, svg("marker", { id: "city-arrow", viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 6, markerHeight: 6, orient: "auto-start-reverse" },
        svg("path", { d: "M0 0 10 5 0 10z", class: "city-arrow" }))),
      ...Object.values(this.layers), this.scale);
    this.element = h("div", { class: "city-frame" }, this.caption, this.picture);
    this.picture.addEventListener("click", (event) => {
      const picked = event.target.closest("[data-pick]");
      if (picked) this.onPick(picked.dataset.pick, picked.dataset.id);
    });
  }

  resize() {
    const width = Math.max(300, this.element.clientWidth);
    const height = Math.round(Math.min(640, Math.max(width < 560 ? 420 : 380, width * 0.46)));
    this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.picture.setAttribute("height", height);
    this.places.resize(width, height);
    this.#tokens.forEach((token) => { token.placed = false; });
    this.#drawScale();
  }

  // Servers and UEs as they are now: facts is a map id -> {live, reachable, ask, speed, slots}.
  stand(facts) {
    const { servers, ues } = this.places;
    keep(this.#servers, servers, this.layers.servers, (id) => this.#newServer(id));
    keep(this.#ues, ues, this.layers.ues, (ue) => this.#newUe(ue));
    for (const [id, at] of servers) {
      const known = this.#servers.get(id);
      const fact = facts.get(id);
      move(known.element, at);
      const state = !fact ? "unknown" : fact.reachable === false ? "gone" : fact.live ? "live" : "idle";
      set(known.element, "data-state", state);
      say(known.state, state === "gone" ? "does not answer" : state === "idle" ? "sells nothing" : "");
      say(known.title, fact?.advert
        ? `server ${id}: ${fact.advert.slots} slots of ${fuel(fact.advert.speed)}/s, asks ${fact.advert.ask} gwei/Mfuel; pick to filter by it`
        : `server ${id}: no advert; pick to filter by it`);
    }
    for (const [ue, at] of ues) move(this.#ues.get(ue).element, at);
    this.#drawBase();
    this.#drawScale();
  }

  // The picture at an instant. frame_ms: since the last frame, for what glides. Whether the next frame differs visibly:
  // something is on its way; fading and running alone are slow.
  draw({ tasks, t, round, frame_ms }) {
    const { spots, more, links } = this.places.spots(tasks, t);
    const glide = this.still() || frame_ms > 400 ? 1 : 1 - Math.exp(-frame_ms / GLIDE_MS);
    const seen = ++this.#drawn;
    let moves = false;
    for (const spot of spots) moves = this.#drawToken(spot, t, glide, seen) || moves;
    for (const [id, token] of this.#tokens) {
      if (token.seen === seen) continue;
      token.element.remove();
      this.#tokens.delete(id);
    }
    this.#drawLinks(links);
    this.#drawMore(more);
    this.#drawLoads(tasks);
    const words = round ? `round ${round.round}: ${round.winner === null ? "built-in greedy" : `${round.policy} of server ${round.winner}`} placed ${round.placed} of ${round.tasks} ${round.tasks === 1 ? "task" : "tasks"}` : "no round yet";
    say(this.caption, words);
    return moves;
  }

  // Whether it is on its way.
  #drawToken(spot, t, glide, seen) {
    const { track, pose } = spot;
    let token = this.#tokens.get(track.id);
    if (!token) {
      token = this.#newToken(track);
      this.#tokens.set(track.id, token);
    }
    token.seen = seen;
    if (token.phase !== pose.phase) {
      token.phase = pose.phase;
      const phase = PHASE[pose.phase];
      set(token.element, "class", `token tone-${phase.tone}${phase.solid ? " solid" : ""}${phase.bold ? " bold" : ""}`);
      set(token.element, "data-phase", pose.phase);
      set(token.shape, "d", phase.shape);
      token.title.textContent = `task ${short(track.id)}: ${phase.words}${track.end ? ` (${track.end})` : ""}; pick to open`;
    }
    if (!token.placed || glide === 1) [token.x, token.y, token.placed] = [spot.x, spot.y, true];
    else if (spot.moving) { // on its way: it follows closely, but does not jump onto the way
      const near = Math.max(glide, 0.35);
      token.x += (spot.x - token.x) * near;
      token.y += (spot.y - token.y) * near;
    } else {
      token.x += (spot.x - token.x) * glide;
      token.y += (spot.y - token.y) * glide;
      if (Math.abs(spot.x - token.x) + Math.abs(spot.y - token.y) < SNAP) [token.x, token.y] = [spot.x, spot.y];
    }
    move(token.element, token);
    set(token.element, "opacity", spot.fade === 1 ? "1" : spot.fade.toFixed(2));
    const share = pose.phase === "running" && track.expected ? Math.min(1, (t - pose.since) / track.expected) : 0;
    set(token.ring, "stroke-dasharray", share ? `${(share * 56.5).toFixed(1)} 60` : "0 60");
    return spot.moving || token.x !== spot.x || token.y !== spot.y;
  }

  #newToken(track) {
    const shape = svg("path", { class: "shape" });
    const ring = svg("circle", { class: "ring", r: 9, transform: "rotate(-90)" });
    const title = svg("title", {});
    const element = svg("g", { "data-pick": "task", "data-id": track.id }, title, svg("circle", { class: "grip", r: 10 }), ring, shape);
    this.layers.tokens.append(element);
    return { element, shape, ring, title, phase: null, placed: false, x: 0, y: 0 };
  }

  #newServer(id) {
    const title = svg("title", {});
    const state = svg("text", { class: "server-state", y: -27 });
    const load = svg("text", { class: "server-load", y: 13 });
    const element = svg("g", { class: "server", "data-pick": "server", "data-id": id }, title,
      svg("rect", { x: -31, y: -21, width: 62, height: 42, rx: 7 }), svg("text", { class: "server-name", y: -3 }, `server ${id}`), load, state);
    return { element, title, state, load };
  }

  #newUe(ue) {
    const element = svg("g", { class: "ue", "data-pick": "ue", "data-id": ue }, svg("title", {}, `UE ${ue}; pick to filter by it`),
      svg("circle", { class: "grip", r: 11 }), svg("circle", { class: "ue-dot", r: 4.5 }), svg("text", { y: -9 }, ue.slice(0, 6)));
    return { element };
  }

  // The statuses of all nodes come each second, and seldom move anything: lines are drawn anew only where they differ.
  #drawBase() {
    const wanted = [];
    const servers = [...this.places.servers.values()];
    servers.forEach((one, index) => servers.slice(index + 1).forEach((other) => wanted.push([one, other, "backhaul"])));
    for (const [ue, source] of this.places.world.sources) {
      const [from, to] = [this.places.ues.get(ue), this.places.servers.get(source)];
      if (from && to) wanted.push([from, to, "access"]);
    }
    const sign = JSON.stringify(wanted);
    if (sign === this.#base) return;
    this.#base = sign;
    this.layers.base.replaceChildren(...wanted.map(([from, to, name]) => line(from, to, name)));
  }

  #drawLinks(links) {
    for (const [key, { from, to, phase }] of links) {
      let known = this.#links.get(key);
      if (!known) {
        known = line(from, to, "used");
        known.setAttribute("marker-end", "url(#city-arrow)");
        this.#links.set(key, known);
        this.layers.links.append(known);
      }
      ends(known, from, shorten(from, to));
      set(known, "data-phase", phase);
    }
    for (const [key, known] of this.#links) {
      if (links.has(key)) continue;
      known.remove();
      this.#links.delete(key);
    }
  }

  #drawMore(more) {
    while (this.#more.length < more.length) {
      const text = svg("text", {});
      this.#more.push(text);
      this.layers.more.append(text);
    }
    this.#more.forEach((text, index) => {
      const item = more[index];
      set(text, "display", item ? "inline" : "none");
      if (!item) return;
      set(text, "x", item.x);
      set(text, "y", item.y);
      if (text.textContent !== `+${item.count}`) text.textContent = `+${item.count}`;
    });
  }

  #drawLoads(tasks) {
    const running = new Map();
    for (const { pose } of tasks) if (pose.phase === "running") running.set(pose.executor, (running.get(pose.executor) ?? 0) + 1);
    for (const [id, known] of this.#servers) {
      const words = running.has(id) ? `runs ${running.get(id)}` : "idle";
      if (known.load.textContent !== words) known.load.textContent = words;
    }
  }

  // The picture is stretched to its frame, so the same distance is drawn once across and once down.
  #drawScale() {
    if (!this.places.scale) return;
    const { scale: { x, y }, size: { height } } = this.places;
    const sign = `${x} ${y} ${height}`;
    if (sign === this.#scaled) return;
    this.#scaled = sign;
    const metres = [2000, 1000, 500, 200, 100, 50, 20, 10].find((size) => size * x <= 130 && size * y <= 90) ?? 10;
    clear(this.scale,
      svg("path", { d: `M12 ${(height - 14 - metres * y).toFixed(1)}V${height - 14}H${(12 + metres * x).toFixed(1)}` }),
      svg("text", { x: 20, y: height - 20 }, `${metres} m`));
  }
}

// ---- small things of SVG

function keep(known, wanted, layer, make) {
  for (const [id, item] of known) {
    if (wanted.has(id)) continue;
    item.element.remove();
    known.delete(id);
  }
  for (const id of wanted.keys()) {
    if (known.has(id)) continue;
    const item = make(id);
    known.set(id, item);
    layer.append(item.element);
  }
}

function set(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

function move(element, { x, y }) {
  set(element, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
}

function line(from, to, name) {
  const element = svg("line", { class: name });
  ends(element, from, to);
  return element;
}

function ends(element, from, to) {
  set(element, "x1", from.x.toFixed(1));
  set(element, "y1", from.y.toFixed(1));
  set(element, "x2", to.x.toFixed(1));
  set(element, "y2", to.y.toFixed(1));
}

// An arrow ends beside its goal, not under it.
function shorten(from, to) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const share = Math.max(0, length - 30) / length;
  return { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
}
