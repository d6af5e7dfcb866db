// Plots as SVG: lines over time or number, and bars over names.
//
//   const plot = lines({ title, xLabel, yLabel, series: [{ name, points: [[x, y], ...] }], csv, time, zero, unit, empty });
//   const plot = bars({ title, xLabel, yLabel, names: [...], series: [{ name, values: [...] }], csv, unit, empty });
//   root.append(plot.element); plot.update({ series });
//
// `time`: x are instants in ms. `zero: false`: the y axis need not begin at 0. `whole`: y are whole numbers. `step`: a value
// stands until the next one. A series may carry `style`, so that it looks the same whichever others are there.
//
// Rule 1: a series is told by dash and marker, or by its hatching, as well as by its colour.
// Rule 2: what the pointer shows the keyboard shows: the drawing is a slider over the x values, whose value text names
//   every series there. A pointer that passes leaves the keyboard's place as it was. The same figures stand in a table
//   and in a CSV file.
// Rule 3: a plot draws numbers; exact ones (wei) belong in `csv`, whose rows the table shows, too:
//   csv = { name: "rounds.csv", headings: [...], rows: () => [[...], ...] }. Without it, the points themselves are told.
// Rule 4: it is drawn in pixels of its own width and drawn anew when that changes, so text keeps its size on a phone.

import { clear, h, say, svg, table } from "./dom.js";
import { clockText, csvText, figure, span, ticks, timeTicks } from "./axes.js";

const HEIGHT = 260;
const TOP = 12;
const RIGHT = 14;
const LEFT = 64;
const TABLE_ROWS = 200;
const LONELY_MS = 5_000; // around a single instant
const MARKERS = 40; // a line with more points than this is marked at some of them only
const DASHES = [null, "7 4", "2 3", "10 3 2 3", "5 2", "1 5"];
const SHAPES = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-3.5 -3.5h7v7h-7z", "M0 -4.5L4.5 3.5H-4.5z", "M0 -5L5 0L0 5L-5 0z",
  "M-4 -4L4 4M-4 4L4 -4", "M-5 0H5M0 -5V5",
];
const STYLES = 6;
let made = 0;

// What both kinds share: caption, drawing with keyboard, legend, table, CSV.
class Plot {
  constructor(spec) {
    this.spec = spec;
    this.at = null; // the value that is told
    this.held = null; // the one that the keyboard holds, while it has the focus
    this.id = `plot${(made += 1)}`;
    this.canvas = h("div", {
      class: "plot-canvas", role: "slider", tabindex: "0", "aria-label": this.#named(),
      "aria-describedby": `${this.id}-says`, "aria-valuemin": "0", onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.point(event), onpointerdown: (event) => this.point(event),
      onpointerleave: () => this.choose(this.held), onfocus: () => this.hold(this.at ?? this.count() - 1), onblur: () => this.hold(null),
    });
    this.says = h("p", { class: "plot-says", id: `${this.id}-says` });
    this.legend = h("ul", { class: "plot-legend" });
    this.details = h("details", { ontoggle: () => this.tabulate() }, h("summary", {}, "values as a table"));
    this.link = h("a", { class: "plot-csv", download: this.csv().name, href: "data:," }, "data as CSV");
    for (const type of ["pointerenter", "focus", "click"]) this.link.addEventListener(type, () => this.refresh());
    this.title = h("span", {}, spec.title);
    this.element = h("figure", { class: "plot", "aria-labelledby": `${this.id}-title` },
      h("figcaption", { id: `${this.id}-title` }, this.title, " ", h("small", { class: "muted" }, `${spec.yLabel} ${this.joint} ${spec.xLabel}`)),
      this.canvas, this.says, this.legend, h("div", { class: "plot-data" }, this.link, this.details));
    this.observer = new ResizeObserver(() => { if (Math.abs(this.canvas.clientWidth - this.width) > 1) this.draw(); });
    this.observer.observe(this.canvas);
    this.draw();
  }

  // Takes new data (any part of the spec) and draws it.
  update(changes) {
    Object.assign(this.spec, changes);
    say(this.title, this.spec.title);
    this.canvas.setAttribute("aria-label", this.#named());
    this.draw();
    if (this.details.open) this.tabulate();
  }

  #named() {
    return `${this.spec.title}: values along ${this.spec.xLabel}`;
  }

  csv() {
    return this.spec.csv ?? this.points();
  }

  // The link's file is made when somebody reaches for it.
  refresh() {
    if (this.url) URL.revokeObjectURL(this.url);
    const { headings, rows } = this.csv();
    this.url = URL.createObjectURL(new Blob([csvText(headings, rows())], { type: "text/csv" }));
    this.link.href = this.url;
  }

  tabulate() {
    if (!this.details.open) return;
    const { headings, rows } = this.csv();
    const all = rows();
    const shown = all.slice(-TABLE_ROWS);
    const caption = shown.length < all.length ? `${this.spec.title}: the last ${shown.length} of ${all.length} rows` : this.spec.title;
    clear(this.details, h("summary", {}, "values as a table"), table(caption, headings.map(String), shown.map((row) => row.map((value) => String(value ?? "")))));
  }

  draw() {
    this.width = Math.max(240, this.canvas.clientWidth || 640);
    this.prepare();
    const some = this.count() > 0;
    this.canvas.setAttribute("aria-valuemax", Math.max(0, this.count() - 1));
    if (this.at !== null) this.at = some ? Math.min(this.at, this.count() - 1) : null;
    this.picture = svg("svg", { width: this.width, height: HEIGHT, viewBox: `0 0 ${this.width} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" });
    if (some) this.paint();
    else this.picture.append(svg("text", { x: this.width / 2, y: HEIGHT / 2, class: "plot-empty", "text-anchor": "middle" }, this.spec.empty ?? "nothing yet"));
    this.cursor = svg("g", { class: "plot-cursor" });
    this.picture.append(this.cursor);
    clear(this.canvas, this.picture);
    clear(this.legend, this.spec.series.map((series, index) => h("li", {}, this.key_of(index), series.name)));
    this.tell();
  }

  // Axes with their labels and the horizontal grid, from tick to tick. Returns y(value).
  frame(least, most) {
    const bottom = HEIGHT - this.bottom;
    const all = ticks(least, most, 5);
    const step = all.length > 1 ? all[1] - all[0] : most - least;
    const [low, high] = [Math.floor(least / step + 1e-9) * step, Math.ceil(most / step - 1e-9) * step];
    const scale = (value) => bottom - ((value - low) / (high - low)) * (bottom - TOP);
    for (const value of ticks(low, high, 6).filter((tick) => !this.spec.whole || Number.isInteger(tick))) {
      const y = scale(value);
      this.picture.append(
        svg("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "plot-grid" }),
        svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end", class: "plot-tick" }, figure(value)));
    }
    this.picture.append(
      svg("path", { d: `M${LEFT} ${TOP}V${bottom}H${this.width - RIGHT}`, class: "plot-axis" }),
      svg("text", { x: (LEFT + this.width - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle", class: "plot-label" }, this.spec.xLabel),
      svg("text", { x: 12, y: (TOP + bottom) / 2, transform: `rotate(-90 12 ${(TOP + bottom) / 2})`, "text-anchor": "middle", class: "plot-label" }, this.spec.yLabel));
    return scale;
  }

  key(event) {
    const last = this.count() - 1;
    const now = this.at ?? last;
    const to = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageUp: now + 10, PageDown: now - 10, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.hold(Math.max(0, Math.min(last, to)));
  }

  point(event) {
    if (this.count()) this.choose(this.nearest(event.clientX - this.canvas.getBoundingClientRect().left));
  }

  hold(at) {
    this.held = at;
    this.choose(at);
  }

  choose(at) {
    this.at = at !== null && at >= 0 && this.count() ? Math.min(at, this.count() - 1) : null;
    this.tell();
  }

  // Says the values under the cursor, or what there is to do.
  tell() {
    this.cursor.replaceChildren();
    const at = this.at ?? this.count() - 1;
    const words = at < 0 ? (this.spec.empty ?? "nothing yet") : this.words(at);
    this.canvas.setAttribute("aria-valuenow", Math.max(0, at));
    this.canvas.setAttribute("aria-valuetext", words);
    say(this.says, at < 0 || this.at !== null ? words : this.resting(words));
    if (this.at !== null) this.mark(at);
  }

  // Which of the dashes, markers and hatchings a series has.
  style(index) {
    return (this.spec.series[index].style ?? index) % STYLES;
  }

  valued(name, value) {
    return `${name} ${figure(value)}${this.spec.unit ? ` ${this.spec.unit}` : ""}`;
  }
}

class LinePlot extends Plot {
  get joint() { return "over"; }

  resting(words) { return `last: ${words}`; }

  prepare() {
    this.bottom = 46;
    const slots = new Map();
    this.spec.series.forEach(({ points }, index) => {
      for (const [x, y] of points) {
        if (!slots.has(x)) slots.set(x, []);
        slots.get(x)[index] = y;
      }
    });
    this.slots = [...slots].sort(([a], [b]) => a - b);
    if (this.spec.step) this.slots.forEach(([, values], at) => this.spec.series.forEach((_, index) => { values[index] ??= at ? this.slots[at - 1][1][index] : undefined; }));
  }

  count() { return this.slots.length; }

  points() {
    const headings = [this.spec.xLabel, ...this.spec.series.map((series) => series.name)];
    return { name: "data.csv", headings, rows: () => this.slots.map(([x, values]) => [x, ...this.spec.series.map((_, index) => values[index])]) };
  }

  paint() {
    const [first, last] = [this.slots[0][0], this.slots.at(-1)[0]];
    const instants = first === last ? [first - LONELY_MS, last + LONELY_MS] : [first, last];
    const xs = this.spec.time ? instants : span([first, last], false);
    const y = this.y = this.frame(...span(this.slots.flatMap(([, values]) => values.filter((value) => value !== undefined)), this.spec.zero ?? true));
    const x = this.x = (value) => LEFT + ((value - xs[0]) / (xs[1] - xs[0])) * (this.width - RIGHT - LEFT);
    const most = Math.max(2, Math.floor((this.width - LEFT) / 110));
    const marks = this.spec.time ? timeTicks(...xs, most) : ticks(...xs, most).map((value) => [value, figure(value)]);
    for (const [value, text] of marks) {
      this.picture.append(
        svg("line", { x1: x(value), x2: x(value), y1: HEIGHT - this.bottom, y2: HEIGHT - this.bottom + 5, class: "plot-axis" }),
        svg("text", { x: x(value), y: HEIGHT - this.bottom + 18, "text-anchor": "middle", class: "plot-tick" }, text));
    }
    this.spec.series.forEach(({ points }, index) => this.stroke(points, index));
  }

  stroke(points, index) {
    const style = this.style(index);
    const places = points.map(([px, py]) => `${this.x(px).toFixed(1)} ${this.y(py).toFixed(1)}`);
    const stepped = () => places.slice(1).map((place) => `H${place.replace(" ", "V")}`).join("");
    const line = svg("path", { d: !places.length ? "" : this.spec.step ? `M${places[0]}${stepped()}` : `M${places.join("L")}`, class: `plot-line series-${style}`, "stroke-dasharray": DASHES[style] });
    const every = Math.ceil(points.length / MARKERS);
    const marked = places.filter((_, at) => (points.length - 1 - at) % every === 0);
    this.picture.append(line, ...marked.map((place) => svg("path", { d: SHAPES[style], transform: `translate(${place.replace(" ", ",")})`, class: `plot-mark series-${style}` })));
  }

  key_of(index) {
    const style = this.style(index);
    return svg("svg", { width: 34, height: 12, "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 34, y1: 6, y2: 6, class: `plot-line series-${style}`, "stroke-dasharray": DASHES[style] }),
      svg("path", { d: SHAPES[style], transform: "translate(17,6)", class: `plot-mark series-${style}` }));
  }

  nearest(px) {
    let best = 0;
    this.slots.forEach(([x], at) => { if (Math.abs(this.x(x) - px) < Math.abs(this.x(this.slots[best][0]) - px)) best = at; });
    return best;
  }

  words(at) {
    const [x, values] = this.slots[at];
    const here = this.spec.series.flatMap((series, index) => (values[index] === undefined ? [] : [this.valued(series.name, values[index])]));
    return `${this.spec.time ? clockText(x) : `${this.spec.xLabel} ${figure(x)}`}: ${here.join(", ")}`;
  }

  mark(at) {
    const [value, values] = this.slots[at];
    const x = this.x(value);
    this.cursor.append(svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - this.bottom }));
    values.forEach((y, index) => this.cursor.append(svg("circle", { cx: x, cy: this.y(y), r: 6, class: `series-${this.style(index)}` })));
  }
}

class BarPlot extends Plot {
  get joint() { return "by"; }

  resting() { return "Point at a bar, or use the arrow keys, for its value."; }

  prepare() {
    const room = (this.width - LEFT - RIGHT) / Math.max(1, this.spec.names.length);
    const longest = Math.max(1, ...this.spec.names.map((name) => name.length));
    this.slanted = longest * 7.5 > room;
    this.bottom = this.slanted ? Math.min(110, 42 + longest * 5) : 46;
  }

  count() { return this.spec.names.length; }

  points() {
    const { names, series, xLabel } = this.spec;
    return { name: "data.csv", headings: [xLabel, ...series.map(({ name }) => name)], rows: () => names.map((name, at) => [name, ...series.map(({ values }) => values[at])]) };
  }

  paint() {
    const { names, series } = this.spec;
    const y = this.frame(...span(series.flatMap(({ values }) => values.filter(Number.isFinite)), true));
    this.picture.append(svg("defs", {}, series.map((_, index) => this.hatch(this.style(index)))));
    this.step = (this.width - LEFT - RIGHT) / names.length;
    const wide = Math.min(48, (this.step * 0.8) / series.length);
    names.forEach((name, at) => {
      const middle = LEFT + this.step * (at + 0.5);
      const under = HEIGHT - this.bottom + 16;
      this.picture.append(this.slanted
        ? svg("text", { x: middle + 4, y: under, transform: `rotate(-40 ${middle + 4} ${under})`, "text-anchor": "end", class: "plot-tick" }, name)
        : svg("text", { x: middle, y: under, "text-anchor": "middle", class: "plot-tick" }, name));
      series.forEach(({ values }, index) => {
        if (!values[at]) return;
        const [top, base] = [y(Math.max(0, values[at])), y(Math.min(0, values[at]))];
        this.picture.append(svg("rect", {
          x: middle + (index - series.length / 2) * wide, y: top, width: wide, height: Math.max(1, base - top),
          fill: `url(#${this.id}-hatch${this.style(index)})`, class: `plot-bar series-${this.style(index)}`,
        }));
      });
    });
  }

  // Hatching of a series: plain, then lines at ever other angles.
  hatch(style, id = `${this.id}-hatch${style}`) {
    return svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${[0, 45, -45, 90, 0, 20][style]})` },
      svg("rect", { width: 6, height: 6, class: `plot-ground series-${style}` }),
      style ? svg("line", { x1: 0, y1: 0, x2: 0, y2: 6, class: `plot-hatch series-${style}` }) : null);
  }

  key_of(index) {
    const style = this.style(index);
    const id = `${this.id}-key${style}`;
    return svg("svg", { width: 20, height: 12, "aria-hidden": "true" }, svg("defs", {}, this.hatch(style, id)),
      svg("rect", { x: 1, y: 1, width: 18, height: 10, fill: `url(#${id})`, class: `plot-bar series-${style}` }));
  }

  nearest(px) {
    return Math.max(0, Math.min(this.count() - 1, Math.floor((px - LEFT) / this.step)));
  }

  words(at) {
    const here = this.spec.series.flatMap(({ name, values }) => (Number.isFinite(values[at]) ? [this.valued(name, values[at])] : []));
    return `${this.spec.names[at]}: ${here.join(", ") || "no value"}`;
  }

  mark(at) {
    this.cursor.append(svg("rect", { x: LEFT + this.step * at, y: TOP, width: this.step, height: HEIGHT - this.bottom - TOP }));
  }
}

export function lines(spec) {
  return new LinePlot(spec);
}

export function bars(spec) {
  return new BarPlot(spec);
}
