// How many tasks each server held at each moment of the last five minutes, from the ledger's events: the present counts
// are known, and each event says by how much they differed before it.

const ENDS = new Set(["ResultFiled", "TaskReopened", "TaskEnded"]);

// events: in ledger order. servers: rest.Server list. height: what that list speaks of. now: the ledger's clock, ms.
// Returns for each server [[ms, tasks], ...], a step function.
export function loadOver(events, servers, height, now) {
  const held = new Map(); // task -> server
  const ended = new Set(); // a result that is not accepted is followed by another end of the same task
  const changes = new Map(servers.map(({ id }) => [id, []]));
  const change = (event, server, by) => changes.get(server)?.push({ at: event.time_ms, by, counted: event.height <= height });
  for (const event of events) {
    if (event.type === "TaskAssigned") {
      held.set(event.task, event.data.executor);
      ended.delete(event.task);
      change(event, event.data.executor, 1);
    } else if (ENDS.has(event.type) && !ended.has(event.task)) {
      const server = held.get(event.task) ?? event.data.executor ?? event.data.server;
      if (server === undefined) continue; // it ended without ever having been assigned
      ended.add(event.task);
      held.delete(event.task);
      change(event, server, -1);
    }
  }
  return servers.map(({ id, tasks }) => {
    const steps = changes.get(id);
    let level = tasks - steps.reduce((sum, { by, counted }) => (counted ? sum + by : sum), 0);
    const points = steps.length && events.length ? [[events[0].time_ms, Math.max(0, level)]] : [];
    for (const { at, by } of steps) points.push([at, Math.max(0, level += by)]);
    return { id, points: [...points, [now, Math.max(0, level)]] };
  });
}
