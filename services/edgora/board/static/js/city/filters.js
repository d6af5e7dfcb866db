// Which tasks the city shows: by UE, server, kernel and phase. The choice stands in the address, so it can be sent on.

import { append, h, roving, say, short, svg } from "../dom.js";
import { PHASES } from "./phases.js";

export class Filters {
  #kernelNames;

  constructor(params, kernelNames, onChange) {
    this.params = params;
    this.#kernelNames = kernelNames;
    this.onChange = onChange;
    this.chosen = { ue: params.query.get("ue") ?? "", server: params.query.get("server") ?? "", kernel: params.query.get("kernel") ?? "", state: params.query.get("state") ?? "" };
    this.#build();
  }

  // A test of (track, pose); a null pose is not asked for its phase.
  get fits() {
    const { ue, server, kernel, state } = this.chosen;
    const number = server === "" ? null : Number(server);
    return (track, pose) => (ue === "" || track.ue === ue) && (kernel === "" || track.kernel === kernel)
      && (number === null || track.source === number || track.executor === number)
      && (state === "" || pose === null || pose.phase === state);
  }

  get active() {
    return Object.values(this.chosen).some((value) => value !== "");
  }

  set(name, value) {
    this.chosen[name] = value;
    this.params.setQuery({ [name]: value });
    this.#show();
    this.onChange();
  }

  // Picks what is picked already: off.
  toggle(name, value) {
    this.set(name, this.chosen[name] === value ? "" : value);
  }

  // What there is to choose from now, and how many tasks are in each phase.
  offer({ ues, servers, kernels, counts }) {
    this.#fill(this.selects.ue, "every UE", ues.map((ue) => [ue, short(ue)]));
    this.#fill(this.selects.server, "every server", servers.map((id) => [String(id), `server ${id}`]));
    this.#fill(this.selects.kernel, "every kernel", kernels.map((digest) => [digest, this.#kernelNames(digest)]));
    for (const [name, { count, button }] of this.phases) {
      const many = counts.get(name) ?? 0;
      say(count, many);
      button.dataset.none = String(many === 0);
    }
  }

  #fill(select, all, options) {
    const wanted = [["", all], ...options];
    const name = select.name;
    if (this.chosen[name] !== "" && !wanted.some(([value]) => value === this.chosen[name])) wanted.push([this.chosen[name], short(this.chosen[name])]);
    const key = wanted.map(([value]) => value).join();
    if (select.dataset.options !== key && document.activeElement !== select) {
      select.dataset.options = key;
      select.replaceChildren(...wanted.map(([value, text]) => h("option", { value }, text)));
    }
    select.value = this.chosen[name];
  }

  #show() {
    for (const [name, select] of Object.entries(this.selects)) select.value = this.chosen[name];
    for (const [name, { button }] of this.phases) button.setAttribute("aria-pressed", String(this.chosen.state === name));
    this.all.disabled = !this.active;
  }

  #build() {
    const select = (name, text) => {
      const element = h("select", { name, id: `city-${name}`, onchange: () => this.set(name, element.value) });
      return [element, h("div", { class: "city-filter" }, h("label", { for: `city-${name}` }, text), element)];
    };
    const [ue, ueBox] = select("ue", "UE");
    const [server, serverBox] = select("server", "Server");
    const [kernel, kernelBox] = select("kernel", "Kernel");
    this.selects = { ue, server, kernel };
    this.phases = new Map(PHASES.map((phase) => {
      const count = h("b", { class: "count" }, "0");
      const button = h("button", { type: "button", class: "phase", "aria-pressed": "false", "data-phase": phase.name, onclick: () => this.toggle("state", phase.name) },
        svg("svg", { viewBox: "-11 -11 22 22", width: 22, height: 22, "aria-hidden": "true", class: `token tone-${phase.tone}${phase.solid ? " solid" : ""}${phase.bold ? " bold" : ""}` }, svg("path", { class: "shape", d: phase.shape })),
        h("span", { class: "phase-name" }, phase.name), h("span", { class: "phase-words" }, phase.words), count);
      return [phase.name, { count, button }];
    }));
    this.all = h("button", { type: "button", class: "quiet", onclick: () => { for (const name of Object.keys(this.chosen)) this.set(name, ""); } }, "Show all");
    this.element = append(h("section", { class: "city-side", "aria-label": "Filter" }),
      h("div", { class: "city-selects" }, ueBox, serverBox, kernelBox),
      roving(h("div", { class: "city-phases", role: "group", "aria-label": "Filter by state" }, [...this.phases.values()].map(({ button }) => button))),
      this.all);
    this.#show();
  }
}
