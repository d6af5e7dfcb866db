// The tasks in view as a table: what the picture shows, in words, for whoever reads rather than looks.

import { h, ms, say, short, taskLink } from "../dom.js";
import { PHASE } from "./phases.js";

const HEADINGS = ["Task", "State", "UE", "Kernel", "Source", "Executor", "For", "Why"];
const MOST = 60;

export class TaskList {
  #rows = new Map();

  constructor(kernelNames) {
    this.kernelNames = kernelNames;
    this.caption = h("caption", { id: "city-tasks-caption" }, "Tasks in view");
    this.body = h("tbody", {});
    this.element = h("div", { class: "table-frame city-tasks", tabindex: "0", role: "region", "aria-labelledby": "city-tasks-caption" },
      h("table", { id: "city-tasks" }, this.caption, h("thead", {}, h("tr", {}, HEADINGS.map((text) => h("th", { scope: "col" }, text)))), this.body));
  }

  // Rows are kept and changed in place: a reader's cursor in one of them stays where it is.
  show(tasks, t, live) {
    const newest = [...tasks].sort((one, other) => other.track.first - one.track.first);
    const shown = newest.slice(0, MOST);
    const ids = new Set(shown.map(({ track }) => track.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    shown.forEach(({ track, pose }, index) => {
      let row = this.#rows.get(track.id);
      if (!row) {
        row = this.#newRow(track);
        this.#rows.set(track.id, row);
      }
      const place = this.body.children[index] ?? null;
      if (place !== row.element) this.body.insertBefore(row.element, place);
      if (row.element.dataset.phase !== pose.phase) {
        row.element.dataset.phase = pose.phase;
        row.state.title = PHASE[pose.phase].words;
      }
      say(row.state, track.end ?? pose.phase);
      say(row.executor, pose.executor === null ? "none yet" : `server ${pose.executor}`);
      say(row.since, ms(t - pose.since));
      say(row.why, live ? track.why || PHASE[pose.phase].words : PHASE[pose.phase].words);
    });
    const more = newest.length - shown.length;
    say(this.caption, `${newest.length} ${newest.length === 1 ? "task" : "tasks"} in view${more > 0 ? `, the newest ${MOST} listed` : ""}`);
  }

  #newRow(track) {
    const cells = { state: h("td", {}), executor: h("td", {}), since: h("td", { class: "num" }), why: h("td", { class: "why" }) };
    const element = h("tr", { "data-task": track.id },
      h("td", {}, taskLink(track.id)), cells.state, h("td", { class: "mono", title: track.ue }, short(track.ue)), h("td", {}, this.kernelNames(track.kernel)),
      h("td", {}, `server ${track.source}`), cells.executor, cells.since, cells.why);
    return { element, ...cells };
  }
}
