// A table that changes while people read it: rows are kept by key, so a focus or a selection in one of them stays.
//
//   const list = new LiveTable("Blocks", ["Height", ...]);      // caption and headings as for dom.table
//   list.show([{ key: 17, sign: "17 certified", cells: () => [...] }, ...]);   // cells are made anew where sign differs

import { clear, h, say, table, tableRow } from "./dom.js";

export class LiveTable {
  #rows = new Map();

  // empty: what is said instead of rows.
  constructor(caption, headings, { empty = "nothing yet", ...attrs } = {}) {
    this.heads = headings.map((heading) => (typeof heading === "string" ? { text: heading } : heading));
    this.element = table(caption, this.heads, [], attrs);
    this.caption = this.element.querySelector("caption");
    this.body = this.element.querySelector("tbody");
    this.empty = empty;
    this.show([]);
  }

  show(rows) {
    if (!rows.length) {
      this.#rows.clear();
      clear(this.body, h("tr", { class: "no-rows" }, h("td", { colspan: this.heads.length, class: "muted" }, this.empty)));
      return;
    }
    this.body.querySelector(".no-rows")?.remove();
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, { element }] of this.#rows) {
      if (keys.has(key)) continue;
      element.remove();
      this.#rows.delete(key);
    }
    rows.forEach((row, index) => this.#place(row, index));
  }

  titled(caption) {
    say(this.caption, caption);
    this.element.setAttribute("aria-label", caption);
  }

  #place({ key, sign, cells, attrs }, index) {
    let kept = this.#rows.get(key);
    if (!kept || kept.sign !== sign) {
      const element = tableRow(this.heads, cells());
      for (const [name, value] of Object.entries(attrs ?? {})) element.setAttribute(name, value);
      kept?.element.replaceWith(element);
      kept = { element, sign };
      this.#rows.set(key, kept);
    }
    const there = this.body.children[index] ?? null;
    if (there !== kept.element) this.body.insertBefore(kept.element, there);
  }
}
