// The page's foot: how far the ledger is, its time, and the viewer's beside it.

import { append, clock, h, integer, say, utc, zone } from "../dom.js";

export function footer(platform, foot) {
  const height = h("b", { id: "foot-height" }, "not known");
  const ledger = h("time", { id: "foot-ledger-time" }, "not known");
  const yours = h("time", { id: "foot-your-time" }, "");
  const sentence = h("span", { id: "foot-sentence", class: "foot-sentence" }, "");
  append(foot,
    h("span", {}, "height ", height), h("span", {}, "last block ", ledger),
    h("span", {}, "you ", yours, ` ${zone}`), sentence);
  const tick = () => {
    const status = platform.statuses.get(platform.node.index).status;
    if (status) {
      say(height, integer(status.committed_height));
      say(ledger, utc(status.header_time_ms));
      ledger.dateTime = new Date(status.header_time_ms).toISOString();
      say(sentence, status.sentence.replace(/; since \d+ ms$/, ""));
    }
    const now = Date.now();
    say(yours, clock(now).slice(0, 8));
    yours.dateTime = new Date(now).toISOString();
  };
  platform.on("status", tick);
  setInterval(tick, 1_000);
  tick();
}
