// A node's event stream, read by hand: every event of the ledger in order, resumed at the last id that was seen.
//
// EventSource is not used, for two reasons: it stays with one URL, while this page goes on at the next node, and it has
// no way to hear every event name. Ids are the ledger's, equal at all nodes, so `?after=` (the query form of
// Last-Event-ID, which needs no CORS preflight) resumes anywhere without a gap or a repetition.

import { parse } from "./exact.js";

const SILENT_MS = 40_000; // the node sends a comment each 15 s; nothing at all for so long is a dead connection

// Reads the stream until it ends; calls onOpen once it is there and onEvent with each parsed event. Throws on network
// failure and on answers other than 200.
export async function readEvents(url, { after, signal, onOpen, onEvent }) {
  const stop = new AbortController();
  const abort = () => stop.abort(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  let silence = 0;
  const alive = () => {
    clearTimeout(silence);
    silence = setTimeout(() => stop.abort(new Error("the stream fell silent")), SILENT_MS);
  };
  try {
    alive();
    const response = await fetch(after === null ? url : `${url}?after=${after}`, {
      signal: stop.signal, cache: "no-store", headers: { accept: "text/event-stream" },
    });
    if (!response.ok) throw new Error(`the event stream answered ${response.status}`);
    onOpen?.();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let pending = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      pending += value;
      const frames = pending.split("\n\n");
      pending = frames.pop();
      for (const frame of frames) {
        const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
        if (data.length) onEvent(parse(data.join("\n")));
      }
    }
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", abort);
    stop.abort(); // a caller that left early (an exception in onEvent) leaves no connection behind
  }
}

// The last five minutes: events in ledger order, the oldest dropped as the newest come.
export class History extends Array {
  static get [Symbol.species]() { return Array; } // filter and map give plain lists

  static SPAN_MS = 5 * 60_000;
  static MOST = 60_000;

  add(event) {
    this.push(event);
    const horizon = event.time_ms - History.SPAN_MS;
    if (this.length <= History.MOST && this[0].time_ms >= horizon - 5_000) return; // drops in slices, not one by one
    let stale = Math.max(0, this.length - History.MOST);
    while (stale < this.length && this[stale].time_ms < horizon) stale += 1;
    this.splice(0, stale);
  }
}
