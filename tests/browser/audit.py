"""What a page owes people who do not use it as its makers do, measured in the browser itself. No pytest in here.

    findings(page)   sentences, one a fault; none is what we want

Names come from Chromium's own accessibility tree, as a screen reader gets them; colours from computed styles, with
transparent layers laid over each other (WCAG 2.2: 1.3.1, 1.4.3, 2.4.6, 3.1.1, 4.1.2). What is disabled has to be read, too,
though WCAG does not ask for it: it says what could be done later.
"""

from typing import Any

from playwright.sync_api import Page

__all__ = ["findings", "overflow"]

_NAMED = frozenset((
    "button", "checkbox", "combobox", "image", "link", "listbox", "meter", "progressbar", "radio", "searchbox", "slider",
    "spinbutton", "switch", "tab", "table", "textbox", "DisclosureTriangle", "navigation", "dialog", "img",
))  # fmt: skip
"""Roles that say nothing without a name."""

_STRUCTURE = """() => {
  const found = [];
  const seen = (el) => el.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const all = (query) => [...document.querySelectorAll(query)].filter(seen);
  if (!document.documentElement.lang) found.push("the page has no lang");
  if (!document.title) found.push("the page has no title");
  const tops = all("h1");
  if (tops.length !== 1) found.push(`there are ${tops.length} h1: ${tops.map((el) => el.textContent).join(" | ")}`);
  for (const [what, query] of [["main", "main"], ["banner", "body > header"], ["navigation", "nav"], ["contentinfo", "body > footer"]])
    if (all(query).length < 1) found.push(`there is no ${what} landmark`);
  if (all("main").length > 1) found.push("there is more than one main");
  let level = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) found.push(`h${next} "${heading.textContent.slice(0, 40)}" follows h${level}`);
    if (!heading.textContent.trim()) found.push(`an h${next} is empty`);
    level = next;
  }
  const ids = new Map();
  for (const el of document.querySelectorAll("[id]")) ids.set(el.id, (ids.get(el.id) ?? 0) + 1);
  for (const [id, count] of ids) if (count > 1) found.push(`id ${id} is there ${count} times`);
  for (const el of document.querySelectorAll("[aria-labelledby], [aria-describedby], [aria-controls], label[for]"))
    for (const name of ["aria-labelledby", "aria-describedby", "aria-controls", "for"])
      for (const id of (el.getAttribute(name) ?? "").split(/\\s+/).filter(Boolean))
        if (!document.getElementById(id)) found.push(`${name} of ${el.tagName.toLowerCase()} names ${id}, which is not there`);
  for (const el of all("[tabindex]")) if (el.tabIndex > 0) found.push(`${el.tagName.toLowerCase()} has tabindex ${el.tabIndex}`);
  return found;
}"""

_CONTRAST = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (text) => {  // any CSS colour, as the browser paints it
    if (!known.has(text)) {
      brush.clearRect(0, 0, 1, 1);
      brush.fillStyle = text;
      brush.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
  const over = (top, below) => {
    const a = top[3] + below[3] * (1 - top[3]);
    if (a === 0) return [0, 0, 0, 0];
    return [0, 1, 2].map((i) => (top[i] * top[3] + below[i] * below[3] * (1 - top[3])) / a).concat(a);
  };
  const light = ([r, g, b]) => {
    const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (el) => {
    const layers = [];
    for (let at = el; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] === 1) break;
    }
    const canvasColour = rgba(matchMedia("(prefers-color-scheme: dark)").matches ? "#121212" : "#fff");
    return layers.reduceRight((below, top) => over(top, below), canvasColour);
  };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim();
    const el = walk.currentNode.parentElement;
    if (!text || !el || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(el.tagName)) continue;
    if (!el.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    if (el.closest(".visually-hidden, svg title, svg desc")) continue;
    const style = getComputedStyle(el);
    const svg = el.namespaceURI.endsWith("svg");
    let colour = rgba(svg ? style.fill : style.color);
    let fade = 1;
    for (let at = el; at; at = at.parentElement) fade *= Number(getComputedStyle(at).opacity);
    if (fade === 0) continue;
    colour = [colour[0], colour[1], colour[2], colour[3] * fade];
    const ground = behind(svg ? el.closest("svg") : el);
    const [a, b] = [light(over(colour, ground)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      const where = `${el.tagName.toLowerCase()}${el.getAttribute("class") ? "." + el.getAttribute("class").split(" ").join(".") : ""}`;
      found.add(`contrast ${ratio.toFixed(2)} of ${where} "${text.slice(0, 30)}"`);
    }
  }
  return [...found];
}"""

_OVERFLOW = """() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const inside = (el) => {  // whatever scrolls or clips by itself is no fault of the page
    for (let at = el.parentElement; at && at !== document.body; at = at.parentElement)
      if (getComputedStyle(at).overflowX !== "visible") return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll("*")].filter((el) => el.getBoundingClientRect().right > root.clientWidth + 1 && !inside(el));
  return [`the page is ${root.scrollWidth} px wide in ${root.clientWidth}`,
    ...wide.slice(0, 5).map((el) => `${el.tagName.toLowerCase()}.${el.getAttribute("class") ?? ""} reaches ${Math.round(el.getBoundingClientRect().right)}`)];
}"""


def findings(page: Page) -> list[str]:
    """Structure, names and contrast of the page as it is now."""
    found: list[str] = [*page.evaluate(_STRUCTURE), *_unnamed(page), *page.evaluate(_CONTRAST)]
    return found


def overflow(page: Page) -> list[str]:
    """What makes the page scroll sideways."""
    found: list[str] = page.evaluate(_OVERFLOW)
    return found


def _unnamed(page: Page) -> list[str]:
    session = page.context.new_cdp_session(page)
    try:
        nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
        found = []
        for node in nodes:
            role = node.get("role", {}).get("value")
            if node["ignored"] or role not in _NAMED or str(node.get("name", {}).get("value", "")).strip():
                continue
            found.append(f"a {role} has no name: {_markup(session, node)}")
        return found
    finally:
        session.detach()


def _markup(session: Any, node: dict[str, Any]) -> str:
    outer = session.send("DOM.getOuterHTML", {"backendNodeId": node["backendDOMNodeId"]})["outerHTML"]
    return str(outer)[:160]
