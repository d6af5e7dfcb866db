// The page's entry: reads which nodes there are, connects, and mounts the view that the address names.
//
// An address is #/<view>, #/<view>/<id>, either with ?key=value pairs of the view's own. A view is a module with
// `mount(root, platform, params)`, which gives back what takes it down again; it is loaded when it is first asked for.
// params: {route, id, query: URLSearchParams, setQuery(pairs)}.

import { announce, clear, h, link } from "./dom.js";
import { learnKernels } from "./kernels.js";
import { connect } from "./platform.js";
import { connectionBanner } from "./shell/banner.js";
import { footer } from "./shell/foot.js";
import { themeButton } from "./shell/themes.js";

const VIEWS = {
  city: { title: "City", load: () => import("./views/city.js") },
  task: { title: "Task", load: () => import("./views/task.js"), under: "city" },
  ledger: { title: "Ledger", load: () => import("./views/ledger.js") },
  block: { title: "Block", load: () => import("./views/ledger.js"), under: "ledger" },
  market: { title: "Market", load: () => import("./views/market.js") },
  round: { title: "Round", load: () => import("./views/market.js"), under: "market" },
  servers: { title: "Servers", load: () => import("./views/servers.js") },
  try: { title: "Try it", load: () => import("./views/tryit.js") },
  faults: { title: "Faults", load: () => import("./views/faults.js"), when: (config) => config.faults },
};

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address that somebody mistyped: the view says that it knows no such thing
  }
}

function readAddress() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [route, ...rest] = path.split("/");
  return { route: route || "city", id: unescaped(rest.join("/")) || null, query: new URLSearchParams(query ?? "") };
}

// Keeps a view's own settings in the address, so that it can be sent to somebody, without a new entry in the history.
function setQuery(pairs) {
  const { query } = readAddress();
  for (const [name, value] of Object.entries(pairs)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const path = location.hash.split("?", 1)[0] || "#/city";
  history.replaceState(null, "", query.size ? `${path}?${query}` : path);
}

class Router {
  #unmount = null;
  #turn = 0;

  constructor(platform, root, nav) {
    this.platform = platform;
    this.root = root;
    this.nav = nav;
    addEventListener("hashchange", () => this.show(true));
  }

  async show(moveFocus) {
    const turn = ++this.#turn;
    const params = { ...readAddress(), setQuery };
    const view = Object.hasOwn(VIEWS, params.route) ? VIEWS[params.route] : null;
    this.#takeDown();
    this.root.dataset.view = params.route;
    document.title = `${view ? view.title : "Not found"}${params.id ? ` ${params.id.slice(0, 10)}` : ""} - Edgora`;
    this.#mark(view?.under ?? params.route);
    clear(this.root, h("p", { class: "muted" }, "Loading the view."));
    try {
      if (!view) throw new Error(`there is no view named ${params.route} here`);
      const module = await view.load();
      if (turn !== this.#turn) return; // the viewer has gone on while it was loading
      clear(this.root);
      const unmount = await module.mount(this.root, this.platform, params);
      if (turn === this.#turn) this.#unmount = unmount;
      else unmount?.();
    } catch (error) {
      if (turn !== this.#turn) return;
      clear(this.root, h("h1", {}, "This view cannot be shown"), h("p", {}, error.message), h("p", {}, link("#/city", "Go to the city view")));
    }
    if (moveFocus) {
      this.root.focus({ preventScroll: true });
      scrollTo(0, 0);
      announce(document.title);
    }
  }

  #takeDown() {
    const unmount = this.#unmount;
    this.#unmount = null;
    unmount?.();
  }

  #mark(route) {
    for (const anchor of this.nav.querySelectorAll("a")) {
      if (anchor.dataset.route === route) {
        anchor.setAttribute("aria-current", "page");
        anchor.scrollIntoView({ block: "nearest", inline: "center" });
      } else anchor.removeAttribute("aria-current");
    }
  }
}

async function start() {
  const root = document.getElementById("view");
  themeButton(document.getElementById("theme"));
  document.querySelector(".skip").addEventListener("click", (event) => { // the hash is the router's
    event.preventDefault();
    root.focus();
  });
  let config;
  let unknown = false; // no node was known when this page's policy was written
  for (let shown = false; !config; ) {
    try {
      const answer = await fetch("board.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(`the board's server answered ${answer.status}`);
      config = await answer.json();
      unknown ||= !config.nodes.length;
      if (!config.nodes.length) throw new Error("the board's server knows no node yet");
    } catch (error) {
      config = null;
      if (!shown) clear(root, h("h1", {}, "Waiting for the board's server"), h("p", {}, `${error.message}; trying again each second.`));
      shown = true;
      await new Promise((done) => { setTimeout(done, 1_000); });
    }
  }
  if (unknown) return location.reload(); // the policy that comes with the page now names them
  document.getElementById("scenario").textContent = config.scenario;
  const nav = document.getElementById("nav");
  for (const [route, view] of Object.entries(VIEWS)) {
    if (!view.under && (!view.when || view.when(config))) nav.append(link(`#/${route}`, view.title, { "data-route": route }));
  }
  learnKernels(config.kernels);
  const platform = connect(config);
  connectionBanner(platform, document.getElementById("link-state"), document.getElementById("banner"));
  footer(platform, document.getElementById("foot"));
  await new Router(platform, root, nav).show(false);
  // The other views now, too: they come up at once when asked for, and without the board's server if that is gone by then.
  for (const view of Object.values(VIEWS)) if (!view.when || view.when(config)) view.load().catch(() => {});
}

start();
