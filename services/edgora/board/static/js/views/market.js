// The market: what each round's winner was worth against greedy and the proven bound, what was refused and why, what
// UEs spend and what settling costs; and a page for each round.

import { append, h, link } from "../dom.js";
import { Repeat } from "../each.js";
import { mountRound } from "../market/round.js";
import { RefusedTable, RoundTable, Rounds, UtilityPlots } from "../market/rounds.js";
import { Spending } from "../market/spending.js";

const ROUNDS_MS = 2_000;
const SKIPPED_MS = 5_000;
const SPENDING_MS = 4_000;

export function mount(root, platform, params) {
  return params.route === "round" ? mountRound(root, platform, params) : mountMarket(root, platform);
}

function mountMarket(root, platform) {
  const rounds = new Rounds(platform);
  const plots = new UtilityPlots(rounds);
  const [list, refused, spending] = [new RoundTable(rounds), new RefusedTable(rounds), new Spending(platform)];
  append(root,
    h("div", { class: "view-head" }, h("h1", {}, "Market"), h("p", { class: "muted" }, "Allocators compete in every round; the ledger checks each plan and takes the best, never one worse than greedy.")),
    h("section", { "aria-label": "Utility" }, h("div", { class: "plots" }, plots.elements)),
    h("section", { "aria-labelledby": "rounds-title" }, h("h2", { id: "rounds-title" }, "Rounds"), list.element),
    h("section", { "aria-labelledby": "refused-title" }, h("h2", { id: "refused-title" }, "Refused and skipped"), refused.element),
    h("section", { "aria-labelledby": "money-title" }, h("h2", { id: "money-title" }, "Money and gas"),
      h("p", { class: "muted" }, "Charged: tasks that ended with pay. Reserved: the most that tasks still under way may cost. Servers' load, earnings and reputation stand under ", link("#/servers", "Servers"), "."),
      h("div", { class: "plots" }, spending.elements)));
  const repeats = [
    new Repeat(ROUNDS_MS, async (signal) => {
      await rounds.refresh(signal);
      plots.paint();
      list.paint();
      refused.paint();
    }),
    new Repeat(SKIPPED_MS, async (signal) => {
      await rounds.askSkipped(signal);
      refused.paint();
    }),
    new Repeat(SPENDING_MS, async (signal) => {
      await spending.refresh(signal);
      spending.paint();
    }),
  ];
  return () => { for (const repeat of repeats) repeat.stop(); };
}
