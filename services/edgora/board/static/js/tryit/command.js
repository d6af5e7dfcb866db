// The command that does what the page may not: `edgora submit`, quoted so that a POSIX shell hands on exactly these words.

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;
const PICTURES = new Set(["sobel", "blur"]);

// One word for sh. Single quotes keep everything but themselves; a control character in a name is refused, since a
// terminal would act on it while it is being pasted.
export function quoted(word) {
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(word)) throw new Error("the name holds a control character: rename the file");
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

// A path that no program takes for an option.
const asPath = (name) => (name.startsWith("-") ? `./${name}` : name);

// Where the result goes: beside the input, never over it.
export function resultName(kernel, path) {
  const suffix = PICTURES.has(kernel) ? ".png" : ".json";
  const bare = path.replace(/\.[^./]*$/, "");
  return `${path ? bare : "result"}-${kernel}${suffix}`;
}

// kernel: of /board.json; path: of the input, "" for none; options: {name: value}; nodes: base URLs, the nearby one first.
export function submitCommand({ kernel, path, options, nodes, out }) {
  const words = ["edgora", "submit"];
  if (kernel.file !== "nothing" && path) words.push(asPath(path));
  words.push("--kernel", kernel.name);
  for (const [name, value] of Object.entries(options)) words.push("--arg", `${name}=${value}`);
  for (const url of nodes) words.push("--node", url);
  words.push("--out", asPath(out), "--settled", "--yes");
  return words.map(quoted).join(" ");
}

// Whether an option's text is a whole number within its bounds: null if it is, else what is wrong.
export function optionFault({ name, least, most }, text) {
  if (text === "") return null;
  if (!/^[0-9]{1,20}$/.test(text)) return `${name}: a whole number is needed`;
  const value = BigInt(text);
  if (value < BigInt(least) || (most !== null && value > BigInt(most))) return `${name}: ${least} to ${most ?? "any number"} may be`;
  return null;
}

// ---- the length of a sealed input

const binHead = (octets) => (octets < 256 ? 2 : octets < 65_536 ? 3 : 5);

// Octets of the canonical MessagePack [args, data]: AES-GCM keeps the length, so the offer on the ledger shows it.
export function sealedOctets(args, data) {
  return 1 + binHead(args) + args + binHead(data) + data;
}

// Lengths that this input can have on the ledger; null where the page cannot know. A picture is sent as its samples, one
// octet each for a gray picture and three for a coloured one; which it is only its decoder knows.
export function possibleOctets(kernel, { width, height, size }) {
  if (kernel.file === "picture") return width ? [1, 3].map((channels) => sealedOctets(kernel.args_octets, width * height * channels)) : null;
  if (kernel.file === "octets") return size === undefined ? null : [sealedOctets(kernel.args_octets, size)];
  return null;
}
