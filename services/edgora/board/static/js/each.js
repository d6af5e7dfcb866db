// Questions to every node by itself: what each saw, as against what all of them agree on.

import { parse } from "./exact.js";
import { isSilence } from "./platform.js";

const TIMEOUT_MS = 2_500;
const UNSEEN = 5; // times slower while nobody sees the page

// JSON of a path from each node that answers in time: [{index, value}], ascending. Nodes that do not are left out;
// platform.statuses says which.
export async function askEach(platform, path, signal) {
  const asked = platform.nodes.map(async ({ index, url }) => {
    const response = await fetch(url + path, { signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]), cache: "no-store" });
    return response.ok ? { index, value: parse(await response.text()) } : null;
  });
  const answers = await Promise.allSettled(asked);
  return answers.flatMap(({ status, value }) => (status === "fulfilled" && value ? [value] : []));
}

// A view's clock: calls `work(signal)` now and again `every` ms after it ended, never twice at a time. A failure to
// reach a node is the shell's to tell; the next turn tries again. `stop()` ends it, `now()` has it work at once.
export class Repeat {
  #stop = new AbortController();
  #wake = null;
  #again = false;

  constructor(every, work) {
    this.#run(every, work);
  }

  async #run(every, work) {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#again = false;
      try {
        await work(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!isSilence(error)) console.error(error);
      }
      if (this.#again) continue;
      await new Promise((wake) => {
        this.#wake = wake;
        setTimeout(wake, document.hidden ? every * UNSEEN : every);
      });
    }
  }

  now() {
    this.#again = true;
    this.#wake?.();
  }

  stop() {
    this.#stop.abort();
    this.#wake?.();
  }
}
