// Watches the ledger for a task that the page did not send itself: by its id, or by what everybody may know of it.

import { announce, clear, h, link, short, taskLink, times, gwei } from "../dom.js";

const LOOKED = 50;
const LISTED = 5;
const STEPS = [
  ["OPEN", "ordered"], ["ASSIGNED", "allocated, running"], ["DONE", "result filed"], ["FINAL", "checked"], ["CERTIFIED", "payment certified"], ["SETTLED", "paid"],
];
const TASK = /^0x[0-9a-f]{64}$/;
const UE = /^0x[0-9a-f]{40}$/;

// What a reader may give to be sure: null if it is neither an address nor a task's id, nor empty.
export function whose(text) {
  const hex = text.trim().toLowerCase();
  if (hex === "") return {};
  if (TASK.test(hex)) return { task: hex };
  return UE.test(hex) ? { ue: hex } : null;
}

// Tasks that fit, newest first: {kernel: digest, octets: list or null, since: ledger time, ue, task}.
export async function fitting(platform, { kernel, octets, since, ue, task }, signal) {
  if (task) {
    try {
      return [await platform.get(`/v1/tasks/${task}`, { signal })];
    } catch (error) {
      if (error.status === 404) return [];
      throw error;
    }
  }
  const query = new URLSearchParams({ limit: LOOKED, kernel, ...(ue ? { ue } : {}) });
  const { items } = await platform.get(`/v1/tasks?${query}`, { signal });
  return items.filter(({ opened_ms, offer }) => opened_ms >= since && (!octets || octets.includes(offer.input_octets))).slice(0, LISTED);
}

// One task's way, with the sentence that says what it waits for.
export function progress(task) {
  const at = STEPS.findIndex(([state]) => state === task.state);
  const ended = at < 0;
  return h("article", { class: "try-task", "data-task": task.id, "data-state": task.state, "aria-label": `Task ${short(task.id)}` },
    h("p", {}, "Task ", taskLink(task.id), `, of UE ${short(task.offer.ue)}, ordered `, times(task.opened_ms)),
    h("ol", { class: "try-steps" }, STEPS.map(([state, words], step) => h("li", {
      "data-step": ended ? "off" : step < at ? "done" : step === at ? "now" : "ahead", "aria-current": step === at ? "step" : null,
    }, step < at || task.state === "SETTLED" ? "done: " : step === at ? "now: " : "", words))),
    ended ? h("p", {}, h("strong", {}, `It ended as ${task.state}.`)) : null,
    h("p", { class: "why" }, task.why),
    h("p", {}, task.amount === "0" ? `It may cost ${gwei(task.maximum)} at most. ` : `It costs ${gwei(task.amount)}, of ${gwei(task.maximum)} that were reserved. `, link(`#/task/${task.id}`, "All about this task"), "."));
}

export function showTasks(place, tasks, waiting) {
  const sign = JSON.stringify(tasks.map(({ id, state, why, amount }) => [id, state, why, amount]));
  if (place.dataset.sign === sign && tasks.length) return;
  place.dataset.sign = sign;
  const states = tasks.map(({ id, state }) => `${id} ${state}`).join(); // what a screen reader is told of: not each second of a run
  if (tasks.length && states !== place.dataset.states) announce(tasks.map(({ id, why }) => `task ${short(id)}: ${why}`).join("; "));
  place.dataset.states = states;
  clear(place, tasks.length ? tasks.map(progress) : h("p", {}, waiting));
}
