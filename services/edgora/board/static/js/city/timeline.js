// The instant that the city shows: live, or any one of the last five minutes.
//
// Live runs DELAY_MS behind the nodes' clock: the ledger tells of a block's tasks all at once and a moment after, and a
// scene that lags by a constant shows each in its place without ever jumping back.

import { announce, append, clock, h, ms, say, utc } from "../dom.js";

export const DELAY_MS = 1_200;
export const SPAN_MS = 5 * 60_000;

export class Timeline {
  #at = null; // null: live

  constructor(platform, { neighbour, onMove }) {
    this.platform = platform;
    this.neighbour = neighbour; // (t, direction) -> instant or null
    this.onMove = onMove;
    this.#build();
  }

  get live() {
    return this.#at === null;
  }

  get newest() {
    return this.platform.now() - DELAY_MS;
  }

  // The instant to show now.
  at() {
    if (this.#at === null) return this.newest;
    this.#at = Math.max(this.#at, this.newest - SPAN_MS); // what is older is forgotten
    return this.#at;
  }

  pause() {
    this.#go(this.at());
    announce(`paused at ${clock(this.at())}`);
  }

  resume() {
    this.#at = null;
    this.#moved();
    announce("live");
  }

  step(span) {
    this.#go(this.at() + span);
    announce(clock(this.at()));
  }

  // To the instant at which something begins, before (-1) or after (+1) the one shown.
  hop(direction) {
    const from = this.at();
    const found = this.neighbour(from, direction);
    if (found === null || found > this.newest) {
      this.#go(from);
      announce(direction < 0 ? "nothing before this in the last five minutes" : "nothing after this yet");
      return;
    }
    this.#go(found);
    announce(clock(found));
  }

  // Keys of the view; true if the key was one of them.
  key(event) {
    const act = {
      " ": () => (this.live ? this.pause() : this.resume()),
      ArrowLeft: () => (event.shiftKey ? this.hop(-1) : this.step(-1_000)),
      ArrowRight: () => (event.shiftKey ? this.hop(1) : this.step(1_000)),
      PageUp: () => this.step(-30_000), PageDown: () => this.step(30_000),
      Home: () => this.#go(this.newest - SPAN_MS), End: () => this.resume(),
    }[event.key];
    act?.();
    return act !== undefined;
  }

  // Once a second: what changes although nobody touched anything.
  tick() {
    const at = this.at();
    const behind = this.newest - at;
    this.slider.value = String(Math.round((SPAN_MS - behind) / 100) / 10);
    const words = this.live ? "live" : `${ms(behind)} ago`;
    this.slider.setAttribute("aria-valuetext", `${clock(at)}, ${words}`);
    say(this.yours, clock(at).slice(0, 10));
    say(this.ledgers, utc(at).replace(/\.(\d)\d\d UTC$/, ".$1 UTC"));
    say(this.words, words);
  }

  #go(at) {
    this.#at = Math.min(this.newest, Math.max(this.newest - SPAN_MS, at));
    this.#moved();
  }

  #moved() {
    say(this.toggle, this.live ? "Pause" : "Resume live");
    this.element.dataset.live = String(this.live);
    this.tick();
    this.onMove();
  }

  #build() {
    const button = (text, label, act) => h("button", { type: "button", "aria-label": label, onclick: act }, text);
    this.toggle = h("button", { type: "button", class: "primary city-toggle", onclick: () => (this.live ? this.pause() : this.resume()) }, "Pause");
    this.slider = h("input", {
      type: "range", min: 0, max: SPAN_MS / 1000, step: 0.1, value: SPAN_MS / 1000, id: "city-slider",
      oninput: () => this.#go(this.newest - SPAN_MS + Number(this.slider.value) * 1000),
    });
    this.yours = h("b", { id: "city-at" }, "");
    this.ledgers = h("span", { class: "muted", id: "city-at-ledger" }, "");
    this.words = h("span", { class: "tag", id: "city-behind" }, "live");
    this.element = h("div", { class: "city-time", role: "group", "aria-label": "Time shown" });
    append(this.element,
      h("div", { class: "city-buttons" }, this.toggle, button("-10 s", "back 10 seconds", () => this.step(-10_000)), button("Previous", "back to the previous change", () => this.hop(-1)),
        button("Next", "on to the next change", () => this.hop(1)), button("+10 s", "on 10 seconds", () => this.step(10_000))),
      h("label", { class: "city-slide" }, h("span", { class: "visually-hidden" }, "instant within the last five minutes"), this.slider),
      h("p", { class: "city-clock" }, this.words, " ", this.yours, " ", this.ledgers));
  }
}
