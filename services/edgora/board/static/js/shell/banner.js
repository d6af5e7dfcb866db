// What the shell says of the connection and of consensus, in words, on every view.
//
// Two places: a mark in the page's head (always there: which node is read, and whether events flow) and a banner below it
// (only when something is wrong, or has just come right again).

import { announce, clock, h, say } from "../dom.js";

const GOOD_NEWS_MS = 8_000; // so long "is back" stays
const WORTH_SAYING_MS = 1_000; // a wait of consensus shorter than this is its ordinary life
const WAITS = new Set(["NO_QUORUM", "VIEW_CHANGE", "ALARM", "SYNCING"]);

// "node 2 and node 3", "nodes 1, 2 and 3"
export function nodeNames(indexes) {
  const names = indexes.map(String);
  if (names.length === 0) return "no node";
  if (names.length === 1) return `node ${names[0]}`;
  return `nodes ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// What is wrong with consensus, by one node's status: a sentence, or null if nothing is.
export function quorumTrouble(status, now) {
  if (status === null || !WAITS.has(status.waiting) || status.waiting_since_ms < WORTH_SAYING_MS) return null;
  if (status.alarm) return `voting has stopped for good: ${status.alarm}`;
  const silent = status.voters.filter((voter) => !voter.connected && voter.index !== status.server);
  const since = clock(now - status.waiting_since_ms); // both it and last_heard_ms are durations
  if (!silent.length) return `consensus waits since ${since}: ${status.sentence.replace(/; since \d+ ms$/, "")}`;
  const heard = silent.map((voter) => voter.last_heard_ms).filter((at) => at !== null);
  const from = heard.length ? `, last heard at ${clock(now - Math.min(...heard))}` : "";
  const votes = `${status.quorum} of ${status.voters.length} votes are needed`;
  return `${votes}; ${nodeNames(silent.map((voter) => voter.index))} ${silent.length === 1 ? "is" : "are"} silent${from}; waiting since ${since}`;
}

export function connectionBanner(platform, mark, banner) {
  let hide = 0;
  let trouble = null;

  const paint = () => {
    const { kind, sentence } = platform.notice;
    mark.dataset.kind = kind;
    say(mark, kind === "lost" ? "no node answers" : kind === "connecting" ? "connecting" : `node ${platform.node.index}`);
    mark.title = sentence;
    const lines = [];
    if (kind === "lost" || kind === "switched") lines.push(sentence);
    if (kind === "back" && hide) lines.push(sentence);
    if (trouble) lines.push(trouble);
    banner.hidden = lines.length === 0;
    banner.dataset.kind = trouble || kind === "lost" ? "bad" : kind === "switched" ? "warn" : "good";
    if (lines.join("\n") !== banner.dataset.lines) {
      banner.dataset.lines = lines.join("\n");
      banner.replaceChildren(...lines.map((line) => h("p", {}, line)));
    }
  };

  platform.on("node", (notice) => {
    clearTimeout(hide);
    hide = 0;
    if (notice.kind === "back") hide = setTimeout(() => { hide = 0; paint(); }, GOOD_NEWS_MS);
    if (notice.kind === "connected") announce(notice.sentence);
    paint();
  });
  platform.on("status", (statuses) => {
    trouble = quorumTrouble(statuses.get(platform.node.index).status, Date.now());
    paint();
  });
  paint();
}
