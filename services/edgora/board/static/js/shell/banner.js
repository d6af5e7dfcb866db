// What the shell says of the connection and of consensus, in words, on every view.
//
// Two places: a mark in the page's head (always there: which node is read, and whether events flow) and a banner below it
// (only when something is wrong, or has just come right again).

import { announce, clock, h, say } from "../dom.js";
import { Hearing, standingWords } from "../ledger/standing.js";

const GOOD_NEWS_MS = 8_000; // so long "is back" stays
const SAYS_IT_ITSELF = new Set(["ledger"]); // views that begin with how consensus stands
const WORTH_SAYING_MS = 3_000; // a view change or a catch-up shorter than this is consensus's ordinary life

// What is wrong with consensus: a sentence, or null if nothing is. standing: ledger/standing.js; status: the current node's.
function consensusTrouble(standing, status, now) {
  if (standing && (!standing.enough || standing.newest.alarm)) return standingWords(standing);
  const waits = status !== null && (status.waiting === "VIEW_CHANGE" || status.waiting === "SYNCING");
  if (!waits || status.waiting_since_ms < WORTH_SAYING_MS) return null;
  return `consensus waits since ${clock(now - status.waiting_since_ms).slice(0, 8)}: ${status.sentence.replace(/; since \d+ ms$/, "")}`;
}

export function connectionBanner(platform, mark, banner) {
  let hide = 0;
  let trouble = null;
  const hearing = new Hearing();

  const paint = () => {
    const { kind, sentence } = platform.notice;
    mark.dataset.kind = kind;
    say(mark, kind === "lost" ? "no node answers" : kind === "connecting" ? "connecting" : `node ${platform.node.index}`);
    mark.title = sentence;
    const lines = [];
    if (kind === "lost" || kind === "switched") lines.push(sentence);
    if (kind === "back" && hide) lines.push(sentence);
    if (trouble && !SAYS_IT_ITSELF.has(document.getElementById("view").dataset.view)) lines.push(trouble);
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
    hearing.take(statuses);
    trouble = consensusTrouble(hearing.standing(statuses), statuses.get(platform.node.index).status, platform.now());
    paint();
  });
  paint();
}
