// Servers: what each offers, holds, has earned, and how it kept its promises.

import { append, digest, gwei, h, integer, say, times } from "../dom.js";
import { Repeat } from "../each.js";
import { bars, lines } from "../plot.js";
import { LiveTable } from "../rows.js";
import { loadOver } from "../market/load.js";
import { asGwei } from "../market/money.js";

const AGAIN_MS = 1_500;
const LINES = 6;

export function mount(root, platform) {
  const view = new ServersView(root, platform);
  const repeat = new Repeat(AGAIN_MS, (signal) => view.refresh(signal));
  return () => repeat.stop();
}

// Of what a server may hold at once (market.md 4): the part that its tasks take, in percent.
function loadOf({ advert, credit, used }) {
  const room = advert ? Math.min(advert.capacity, credit) : 0;
  return room > 0 ? (100 * used) / room : used > 0 ? 100 : 0;
}

function standing({ live, bonded, advert }) {
  if (!bonded) return "not bonded";
  if (live) return "live";
  return advert ? "not live: gets no new work" : "no advert";
}

class ServersView {
  #servers = [];

  constructor(root, platform) {
    this.platform = platform;
    const of = (title, yLabel, unit, series, name, headings, row) => bars({
      title, xLabel: "server", yLabel, unit, whole: yLabel === "tasks", names: [], series: series.map((label) => ({ name: label, values: [] })), empty: "no server is registered yet",
      csv: { name, headings, rows: () => this.#servers.map(row) },
    });
    this.load = of("Load", "part of its room in use, %", "%", ["load"], "load.csv", ["server", "used_fuel", "credit_fuel", "capacity_fuel", "tasks"], (s) => [s.id, s.used, s.credit, s.advert?.capacity, s.tasks]);
    this.earned = of("Earned", "gwei for settled tasks", "gwei", ["earned"], "earned.csv", ["server", "earned_wei"], (s) => [s.id, s.earned]);
    this.score = of("Reputation", "desired time / actual time", "", ["score"], "reputation.csv", ["server", "desired_ms", "actual_ms", "score", "done", "late", "failed", "disputed"], ({ id, reputation: r }) => [id, r.desired_ms, r.actual_ms, r.score, r.done, r.late, r.failed, r.disputed]);
    this.ends = of("How tasks ended there", "tasks", "", ["done", "late", "failed", "disputed"], "ends.csv", ["server", "done", "late", "failed", "disputed"], ({ id, reputation: r }) => [id, r.done, r.late, r.failed, r.disputed]);
    this.held = lines({ title: "Tasks held, the last five minutes", xLabel: "ledger time", yLabel: "tasks", unit: "", time: true, step: true, whole: true, series: [], empty: "nothing happened yet" });
    this.table = new LiveTable("Servers", [
      "Server", "Standing", { text: "Tasks", class: "num" }, { text: "Load", class: "num" }, { text: "Credit, fuel", class: "num" }, { text: "Ask, gwei/Mfuel", class: "num" }, { text: "Speed, fuel/s", class: "num" },
      { text: "Slots", class: "num" }, { text: "Earned", class: "num" }, { text: "Reputation", class: "num" }, "Advert until", "Address",
    ], { empty: "no server is registered yet", class: "servers" });
    this.note = h("p", { class: "muted" }, "");
    append(root,
      h("div", { class: "view-head" }, h("h1", {}, "Servers"), h("p", { class: "muted" }, "Reputation is desired time over actual time: 1 is exactly as promised, more is quicker; late and false results count as four times the desired time.")),
      this.table.element, this.note,
      h("section", { "aria-label": "Plots" }, h("div", { class: "plots" }, [this.held, this.load, this.earned, this.score, this.ends].map(({ element }) => element))));
  }

  async refresh(signal) {
    const { items, height, time_ms } = await this.platform.get("/v1/servers", { signal });
    this.#servers = items;
    this.table.show(items.map((server) => {
      const cells = this.#cells(server);
      return { key: server.id, sign: JSON.stringify([server, loadOf(server)]), cells: () => cells, attrs: { "data-server": server.id } };
    }));
    say(this.note, `As of height ${integer(height)}. Earned: over the settled tasks that the answering node has seen.`);
    const names = items.map(({ id }) => `server ${id}`);
    const one = (plot, values) => plot.update({ names, series: plot.spec.series.map((series, index) => ({ ...series, values: values[index] })) });
    one(this.load, [items.map(loadOf)]);
    one(this.earned, [items.map(({ earned }) => asGwei(earned))]);
    one(this.score, [items.map(({ reputation }) => reputation.score ?? undefined)]);
    one(this.ends, ["done", "late", "failed", "disputed"].map((end) => items.map(({ reputation }) => reputation[end])));
    const load = loadOver(this.platform.history, items, height, Math.max(time_ms, this.platform.now()));
    const moved = load.filter(({ points }) => points.length > 1).sort((a, b) => b.points.length - a.points.length).slice(0, LINES).sort((a, b) => a.id - b.id);
    this.held.update({ series: moved.map(({ id, points }) => ({ name: `server ${id}`, points })) });
  }

  #cells(server) {
    const { advert, reputation } = server;
    return [
      `server ${server.id}`, standing(server), server.tasks, `${loadOf(server).toFixed(1)} %`, integer(server.credit), advert ? integer(advert.ask) : "", advert ? integer(advert.speed) : "", advert?.slots ?? "",
      gwei(server.earned), reputation.score === null ? "no task yet" : reputation.score.toFixed(3), advert ? times(advert.until_ms) : "", digest(server.signer, "address"),
    ];
  }
}
