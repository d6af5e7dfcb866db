// Elements, and text for people: the only place where the board builds nodes of its page.
//
// Rule 1: nothing from outside is ever parsed as HTML. Children that are no nodes become text nodes; there is no way to
//   hand markup in. A task or a policy named with a script tag is shown with its angle brackets.
// Rule 2: no style attribute (the page's policy forbids it); `style` in attrs is an object that goes through the CSSOM.
// Rule 3: money is exact: wei are decimal strings or BigInt, never a Number.

const SVG = "http://www.w3.org/2000/svg";

// ---- elements

function dress(element, attrs) {
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

// Children: nodes, strings, numbers, BigInts, lists of these; null, undefined and false are left out.
export function append(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

// An HTML element. attrs: names to values; `on<event>` takes a function, true makes a bare attribute, false none.
export function h(tag, attrs, ...children) {
  const element = document.createElement(tag);
  dress(element, attrs);
  return append(element, ...children);
}

// An SVG element, by the same rules.
export function svg(tag, attrs, ...children) {
  const element = document.createElementNS(SVG, tag);
  dress(element, attrs);
  return append(element, ...children);
}

// Takes out all that an element holds; with children, puts them in its place.
export function clear(element, ...children) {
  element.replaceChildren();
  return append(element, ...children);
}

// Sets text only where it differs, so that what a reader has selected, or a screen reader reads, is not torn away.
export function say(element, text) {
  const words = String(text);
  if (element.textContent !== words) element.textContent = words;
  return element;
}

// A link within the board: link("#/task/0x...", "text").
export function link(hash, text, attrs) {
  return h("a", { href: hash, ...attrs }, text);
}

export function taskLink(id) {
  return link(`#/task/${id}`, short(id), { title: id, class: "mono" });
}

// A table. headings: strings or {text, class}; rows: lists of cells, each a string, a node, or {cell, class, ...attrs}.
// A heading's class stands on its cells, too; "num" aligns figures to the right.
export function table(caption, headings, rows, attrs) {
  const heads = headings.map((heading) => (typeof heading === "string" ? { text: heading } : heading));
  const body = h("tbody", {}, rows.map((row) => tableRow(heads, row)));
  return h("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": caption },
    h("table", attrs, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map(({ text, ...rest }) => h("th", { scope: "col", ...rest }, text)))),
      body));
}

// One row of such a table.
export function tableRow(heads, row) {
  return h("tr", {}, row.map((entry, column) => {
    const whole = entry !== null && typeof entry === "object" && !(entry instanceof Node) && !Array.isArray(entry);
    const { cell, ...attrs } = whole ? entry : { cell: entry };
    const classes = [heads[column]?.class, attrs.class].filter(Boolean).join(" ");
    return h("td", { "data-label": heads[column]?.text, ...attrs, class: classes || null }, cell);
  }));
}

// Names with values, as a description list: pairs of [name, node or text]; pairs with a null value are left out.
export function facts(pairs, attrs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined);
  return h("dl", { class: "facts", ...attrs }, shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

// A button that puts text on the clipboard and says so.
export function copyButton(text, what = "text") {
  const button = h("button", { type: "button", class: "quiet copy", "aria-label": `copy ${what}`, onclick: copy }, "copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
      announce(`${what} copied`);
    } catch {
      button.textContent = "press Ctrl-C";
      announce("this browser does not let the page copy: select the text and press Ctrl-C");
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  }
  return button;
}

// A digest, address or signature: short, whole in its title, with a button that copies the whole.
export function digest(hex, what = "digest") {
  if (hex === null || hex === undefined) return h("span", { class: "muted" }, "none");
  return h("span", { class: "digest" }, h("code", { title: hex, "data-full": hex }, short(hex)), " ", copyButton(hex, what));
}

// A shell command to copy.
export function command(text, what = "command") {
  return h("div", { class: "command" }, h("pre", {}, h("code", {}, text)), copyButton(text, what));
}

// Has the browser save text under a name, as a file.
export function download(name, text, type = "application/json") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = h("a", { href: url, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// One tab stop for a group of buttons; arrow keys, Home and End go round in it (WAI-ARIA: roving tabindex).
export function roving(group) {
  const buttons = () => [...group.querySelectorAll("button")];
  const rest = (chosen) => { for (const button of buttons()) button.tabIndex = button === chosen ? 0 : -1; };
  group.addEventListener("focusin", (event) => rest(event.target.closest("button")));
  group.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const goal = step ? all[(at + step + all.length) % all.length] : { Home: all[0], End: all.at(-1) }[event.key];
    if (at < 0 || !goal) return;
    event.preventDefault();
    goal.focus();
  });
  rest(buttons()[0]);
  return group;
}

// ---- text

const grouped = (digits) => digits.replace(/\B(?=(\d{3})+(?!\d))/g, ",");

// An integer with thousands separators: number, BigInt or decimal string.
export function integer(value) {
  const text = String(value);
  return text.startsWith("-") ? `-${grouped(text.slice(1))}` : grouped(text);
}

// The ends of a long hex value: 0x1234..cdef.
export function short(hex, head = 6, tail = 4) {
  if (!hex) return "";
  return hex.length <= head + tail + 4 ? hex : `${hex.slice(0, 2 + head)}..${hex.slice(-tail)}`;
}

// Money to the wei.
export function wei(dec) {
  return dec === null || dec === undefined ? "none" : `${integer(dec)} wei`;
}

// Money exactly, in gwei with as many decimals as it takes.
export function gwei(dec) {
  if (dec === null || dec === undefined) return "none";
  const value = BigInt(dec);
  const size = value < 0n ? -value : value;
  const rest = String(size % 1_000_000_000n).padStart(9, "0").replace(/0+$/, "");
  return `${value < 0n ? "-" : ""}${integer(size / 1_000_000_000n)}${rest ? `.${rest}` : ""} gwei`;
}

// A duration in ms.
export function ms(n) {
  if (n === null || n === undefined) return "none";
  const size = Math.abs(n);
  const sign = n < 0 ? "-" : "";
  if (size < 1000) return `${sign}${Math.round(size)} ms`;
  if (size < 60_000) return `${sign}${(size / 1000).toFixed(size < 10_000 ? 2 : 1)} s`;
  const minutes = Math.floor(size / 60_000);
  if (minutes < 60) return `${sign}${minutes} min ${Math.floor((size % 60_000) / 1000)} s`;
  return `${sign}${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function fuel(n) {
  return n === null || n === undefined ? "none" : `${integer(n)} fuel`;
}

export function octets(n) {
  if (n === null || n === undefined) return "none";
  if (n < 1024) return `${n} B`;
  return n < 1024 * 1024 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / 1024 / 1024).toFixed(2)} MiB`;
}

const local = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });
const localDay = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function clock(at) {
  return local.format(at);
}

// An instant of the ledger in UTC, to the ms.
export function utc(at) {
  return `${new Date(at).toISOString().slice(11, 23)} UTC`;
}

// An instant: <time> in the viewer's zone, with the day where it is not today; the ledger's own time is its title.
export function time(at) {
  if (at === null || at === undefined) return h("span", { class: "muted" }, "not yet");
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  return h("time", { datetime: date.toISOString(), "data-ms": at, title: `ledger time ${date.toISOString()} (${at} ms); your zone is ${zone}` },
    today ? clock(at) : `${localDay.format(date)} ${clock(at)}`);
}

// An instant in the viewer's zone with the ledger's beside it, both visible.
export function times(at) {
  return h("span", { class: "times" }, time(at), at === null || at === undefined ? null : [" ", h("small", { class: "muted ledger-time" }, utc(at))]);
}

// ---- saying things aloud

// Says a sentence to screen readers without moving the focus.
export function announce(text) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = text;
}
