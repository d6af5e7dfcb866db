// Where things are drawn: metres to points of the picture, and a place for each task at an instant.
//
// Servers and UEs stand where they say. A task is at a place (its UE, its source, its executor) or on the way between
// two. Tasks that rest at one place lie side by side in a small grid of their own for what they wait for: those without
// a server on the left of theirs, running ones on the right, filed ones below; a UE's own below it.

const MOST = { ordered: 12, allocated: 12, running: 12, filed: 8, ue: 6 }; // more than that is told as "+n"
const CLEAR = { x: 105, y: 82 }; // half axes of the room that a server and its tasks take
const ABREAST = 3; // UEs at one place that stand beside each other; more stand in further rows
const ROOM = { x: 60, y: 58 }; // what each of those takes with its name and its tasks
const RING = 0.34; // radius of the ring of UEs that told no position, as a share of the servers' spread

export class Places {
  servers = new Map(); // id -> {x, y} in points
  ues = new Map();
  guessed = false; // some UE stands on a ring, because it told no position

  constructor() {
    this.world = { servers: new Map(), ues: new Map(), sources: new Map() };
    this.size = { width: 800, height: 480 };
  }

  // Metres, as the nodes tell them. sources: ue -> the server that it uploads to.
  tell({ servers, ues, sources }) {
    this.world = { servers, ues, sources };
    this.#draw();
  }

  resize(width, height) {
    this.size = { width, height };
    this.#draw();
  }

  get cell() {
    return this.size.width < 560 ? 15 : 19;
  }

  #draw() {
    const { servers, ues, sources } = this.world;
    const known = new Map();
    const bare = [...servers].filter(([, at]) => at === null).map(([id]) => id);
    for (const [id, at] of servers) if (at !== null) known.set(id, at);
    bare.forEach((id, index) => { // servers that told nothing: a circle
      const angle = (2 * Math.PI * index) / bare.length - Math.PI / 2;
      known.set(id, [500 + 350 * Math.cos(angle), 500 + 350 * Math.sin(angle)]);
    });
    const spread = Math.max(200, span([...known.values()].map((at) => at[0])), span([...known.values()].map((at) => at[1])));
    const homes = new Map();
    this.guessed = false;
    const rings = new Map();
    for (const [ue, source] of sources) {
      if (ues.has(ue) || !known.has(source)) continue;
      this.guessed = true;
      const ring = rings.get(source) ?? [];
      rings.set(source, ring);
      ring.push(ue);
    }
    for (const [source, ring] of rings) {
      const [x, y] = known.get(source);
      ring.sort().forEach((ue, index) => {
        const angle = (2 * Math.PI * index) / ring.length + 0.6;
        homes.set(ue, [x + spread * RING * Math.cos(angle), y + spread * RING * Math.sin(angle)]);
      });
    }
    for (const [ue, at] of ues) homes.set(ue, at);

    const all = [...known.values(), ...homes.values()];
    if (!all.length) return;
    const pad = { x: this.size.width < 560 ? 46 : 84, top: 44, bottom: 64 };
    const [left, top] = [Math.min(...all.map((at) => at[0])), Math.min(...all.map((at) => at[1]))];
    const [wide, high] = [Math.max(1, span(all.map((at) => at[0]))), Math.max(1, span(all.map((at) => at[1])))];
    // The picture is filled both ways: a map of links, not a survey; the scale bar tells metres across.
    this.scale = { x: (this.size.width - 2 * pad.x) / wide, y: (this.size.height - pad.top - pad.bottom) / high };
    const draw = ([x, y]) => ({ x: pad.x + (x - left) * this.scale.x, y: pad.top + (y - top) * this.scale.y });
    this.servers = new Map([...known].map(([id, at]) => [id, draw(at)]));
    this.ues = this.#apart([...homes].map(([ue, at]) => [ue, this.#beside(draw(at))]));
  }

  // A UE that stands on a server's doorstep is drawn beside it: both, and their tasks, stay legible.
  #beside(at) {
    for (const server of this.servers.values()) {
      const [dx, dy] = [(at.x - server.x) / CLEAR.x, (at.y - server.y) / CLEAR.y];
      const near = Math.hypot(dx, dy);
      if (near >= 1) continue;
      const [ux, uy] = near < 0.01 ? [0.8, 0.6] : [dx / near, dy / near];
      const [width, height] = [this.size.width - 34, this.size.height - 50];
      return { x: Math.min(width, Math.max(34, server.x + ux * CLEAR.x)), y: Math.min(height, Math.max(24, server.y + uy * CLEAR.y)) };
    }
    return at;
  }

  // UEs that told the same place stand side by side there, so that each can be read and picked.
  #apart(homes) {
    const groups = new Map();
    for (const [ue, at] of homes) {
      const place = `${Math.round(at.x)} ${Math.round(at.y)}`;
      const group = groups.get(place) ?? { at, ues: [] };
      groups.set(place, group);
      group.ues.push(ue);
    }
    const placed = new Map();
    for (const { at, ues } of groups.values()) {
      const wide = Math.min(ues.length, ABREAST) - 1;
      const half = (wide * ROOM.x) / 2;
      const left = ues.length === 1 ? at.x : Math.max(34, Math.min(this.size.width - 34 - 2 * half, at.x - half));
      ues.sort().forEach((ue, index) => placed.set(ue, { x: left + ROOM.x * (index % ABREAST), y: at.y + ROOM.y * Math.floor(index / ABREAST) }));
    }
    return placed;
  }

  // Where each task is drawn: {spots: [{track, pose, x, y, fade, moving}], more: [{x, y, count}], links: Map}.
  // links: "u<ue>" or "s<id>" of both ends, to what goes over it now.
  spots(tasks, t) {
    const spots = [];
    const links = new Map();
    const rest = new Map();
    for (const { track, pose } of tasks) {
      const way = this.#way(track, pose);
      if (way === null) continue;
      const fade = pose.phase === "paid" || pose.phase === "ended" ? Math.max(0.15, 1 - (t - pose.since) / 6_000) : 1;
      if (way.to) {
        links.set(`${way.fromKey}>${way.toKey}`, { from: way.from, to: way.to, phase: pose.phase });
        const eased = ease(pose.progress);
        spots.push({ track, pose, fade, moving: true, x: way.from.x + (way.to.x - way.from.x) * eased, y: way.from.y + (way.to.y - way.from.y) * eased });
      } else {
        const group = rest.get(way.key) ?? { ...way, tasks: [] };
        rest.set(way.key, group);
        group.tasks.push({ track, pose, fade });
      }
    }
    const more = [];
    for (const group of rest.values()) this.#lay(group, spots, more);
    return { spots, more, links };
  }

  #way(track, pose) {
    const ue = this.ues.get(track.ue);
    const source = this.servers.get(track.source);
    const executor = this.servers.get(pose.executor ?? track.source);
    if (!ue || !source || !executor) return null;
    const sourceKey = `s${track.source}`;
    const executorKey = `s${pose.executor ?? track.source}`;
    const ueKey = `u${track.ue}`;
    if (pose.progress < 1) {
      if (pose.phase === "sealed") return { from: ue, fromKey: ueKey, to: source, toKey: sourceKey };
      if (pose.phase === "forwarded") return { from: source, fromKey: sourceKey, to: executor, toKey: executorKey };
      if (pose.phase === "final" && pose.before !== "certified") return { from: executor, fromKey: executorKey, to: ue, toKey: ueKey };
    }
    switch (pose.phase) {
      case "sealed": case "ordered": case "allocated":
        return { key: `${sourceKey} left`, at: source, side: "left", most: MOST.ordered };
      case "forwarded": case "running":
        return { key: `${executorKey} right`, at: executor, side: "right", most: MOST.running };
      case "filed":
        return { key: `${executorKey} below`, at: executor, side: "below", most: MOST.filed };
      default:
        return { key: ueKey, at: ue, side: "ue", most: MOST.ue };
    }
  }

  #lay({ at, side, most, tasks }, spots, more) {
    const cell = this.cell;
    const shown = tasks.length > most ? tasks.slice(tasks.length - most) : tasks;
    shown.forEach((task, index) => {
      let x;
      let y;
      if (side === "left") [x, y] = [-44 - cell * Math.floor(index / 3), -cell + cell * (index % 3)];
      else if (side === "right") [x, y] = [44 + cell * Math.floor(index / 3), -cell + cell * (index % 3)];
      else if (side === "below") [x, y] = [-1.5 * cell + cell * (index % 4), 38 + cell * Math.floor(index / 4)];
      else [x, y] = [-cell + cell * (index % 3), 18 + cell * Math.floor(index / 3)];
      spots.push({ ...task, moving: false, x: at.x + x, y: at.y + y });
    });
    if (shown.length < tasks.length) {
      const [x, y] = side === "left" ? [-44, 2.1 * cell] : side === "right" ? [44, 2.1 * cell] : side === "below" ? [0, 38 + 2 * cell] : [0, 22 + 2 * cell];
      more.push({ x: at.x + x, y: at.y + y, count: tasks.length - shown.length });
    }
  }
}

const span = (values) => (values.length ? Math.max(...values) - Math.min(...values) : 0);
const ease = (share) => (share < 0.5 ? 2 * share * share : 1 - (2 - 2 * share) ** 2 / 2);
