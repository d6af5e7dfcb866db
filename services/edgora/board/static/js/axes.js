// Scales, ticks and figures of the plots, and CSV: arithmetic only, nothing of the page.

const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const tiny = new Intl.NumberFormat("en", { notation: "scientific", maximumSignificantDigits: 4 });
const MINUTE = 60_000;
const TIME_STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, MINUTE, 2 * MINUTE, 5 * MINUTE,
  10 * MINUTE, 15 * MINUTE, 30 * MINUTE, 60 * MINUTE, 120 * MINUTE, 360 * MINUTE, 720 * MINUTE, 1440 * MINUTE,
];
const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const hours = new Intl.DateTimeFormat(undefined, CLOCK);
const seconds = new Intl.DateTimeFormat(undefined, { ...CLOCK, second: "2-digit" });
const fractions = new Intl.DateTimeFormat(undefined, { ...CLOCK, second: "2-digit", fractionalSecondDigits: 3 });

// A number for people, four or five significant digits: 1,234 or 12.35K or 1.5E-7.
export function figure(value) {
  const size = Math.abs(value);
  if (size >= 100_000) return compact.format(value);
  return size !== 0 && size < 0.001 ? tiny.format(value) : plain.format(value);
}

// Lowest and highest of some numbers, with zero among them where `zero` is set; never less than a thousandth of what they
// are: finer would be a picture of rounding, and its marks would need more digits than a figure has.
export function span(values, zero) {
  let low = zero ? 0 : Infinity;
  let high = zero ? 0 : -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!(low <= high)) return [0, 1];
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  const lack = Math.max(Math.abs(low), Math.abs(high)) / 1000 - (high - low);
  return lack > 0 ? [low - lack / 2, high + lack / 2] : [low, high];
}

// Round numbers from low to high, at most `most`, at steps of 1, 2 or 5 times a power of ten.
export function ticks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999_999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

// Instants at full steps of the clock, in the viewer's zone, with their text.
export function timeTicks(low, high, most) {
  const step = TIME_STEPS.find((candidate) => (high - low) / candidate <= most) ?? TIME_STEPS.at(-1);
  const shift = new Date(low).getTimezoneOffset() * MINUTE;
  const format = step >= MINUTE ? hours : step >= 1000 ? seconds : fractions;
  const found = [];
  for (let at = Math.ceil((low - shift) / step) * step + shift; at <= high; at += step) found.push([at, format.format(at)]);
  return found;
}

// An instant with its seconds, in the viewer's zone.
export function clockText(at) {
  return seconds.format(at);
}

const NUMBER = /^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$/;

// One cell (RFC 4180). Text that a spreadsheet would take for a formula is made text: names come from strangers.
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// A whole document, a heading line first.
export function csvText(headings, rows) {
  return [headings, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
