// Try it: a photo, a kernel, and the command that has it computed; then the task's way, as the ledger tells it.
//
// A submission is signed with secp256k1 over keccak-256, which WebCrypto does not have, and no vetted implementation of
// both for browsers comes as a package. So this page holds no key and sends nothing: the command line seals, signs,
// verifies and opens. The photo is read for its preview and its size and stays in this page.

import { announce, append, clear, command, h, say, times } from "../dom.js";
import { Repeat } from "../each.js";
import { optionFault, possibleOctets, resultName, submitCommand } from "../tryit/command.js";
import { fitting, showTasks, whose } from "../tryit/watch.js";

const WATCH_MS = 1_000;

export function mount(root, platform) {
  const view = new TryView(platform);
  append(root, view.elements());
  view.changed();
  return () => view.stop();
}

// A picture of a chosen file, by a URL that only this page can read.
class Preview {
  constructor(words) {
    this.image = h("img", { alt: words, class: "try-picture" });
    this.element = h("figure", { class: "try-preview", hidden: true }, this.image, this.caption = h("figcaption", {}, ""));
  }

  // Shows a file; {width, height} of the picture, or {} if it is none that the browser can show.
  async show(file) {
    this.drop();
    if (!file) return {};
    this.url = URL.createObjectURL(file);
    this.image.src = this.url;
    this.element.hidden = false;
    try {
      await this.image.decode();
    } catch {
      this.drop();
      return {};
    }
    const { naturalWidth: width, naturalHeight: height } = this.image;
    say(this.caption, `${file.name}: ${width} x ${height}`);
    return { width, height };
  }

  drop() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.image.removeAttribute("src");
    this.element.hidden = true;
  }
}

class TryView {
  #measures = {};
  #since = null;
  #repeat = null;
  #turn = 0;

  constructor(platform) {
    this.platform = platform;
    this.kernels = platform.config.kernels;
    this.file = h("input", { type: "file", id: "try-file", onchange: () => this.#chosen() });
    this.path = h("input", { type: "text", id: "try-path", autocomplete: "off", spellcheck: "false", oninput: () => this.changed() });
    this.kernel = h("select", { id: "try-kernel", onchange: () => this.#kernelChosen() },
      this.kernels.map(({ name, title }) => h("option", { value: name, selected: name === "sobel" }, `${name}: ${title}`)));
    this.node = h("select", { id: "try-node", onchange: () => this.changed() },
      platform.nodes.map(({ index, url }) => h("option", { value: index }, `node ${index}, ${url}`)));
    this.options = h("div", { class: "try-options" });
    this.fault = h("p", { class: "try-fault", role: "alert" });
    this.command = h("div", { id: "try-command" });
    this.summary = h("p", { class: "muted" }, "");
    this.fileLabel = h("label", { for: "try-file" }, "Photo");
    this.own = h("input", { type: "text", id: "try-own", autocomplete: "off", spellcheck: "false", placeholder: "0x...", oninput: () => this.#owned() });
    this.start = h("button", { type: "button", class: "primary", onclick: () => this.watch() }, "I have run it: watch for it");
    this.waiting = h("p", { class: "muted" }, "");
    this.tasks = h("div", { class: "try-tasks" });
    this.before = new Preview("the photo that you chose");
    this.after = new Preview("the result that you chose");
    this.result = h("input", { type: "file", id: "try-result", accept: "image/*", onchange: () => this.#resultChosen() });
  }

  elements() {
    const field = (label, input, note) => h("div", { class: "field" }, label, input, note ? h("small", { class: "muted" }, note) : null);
    this.fileField = field(this.fileLabel, this.file, null);
    this.pathField = field(h("label", { for: "try-path" }, "Its path on your machine"), this.path, "A page learns the name only: run the command in the file's folder, or give the path here.");
    this.kernelOptions();
    return [
      h("div", { class: "view-head" }, h("h1", {}, "Try it"), h("p", { class: "muted" }, "Have a photo of yours filtered by a server that you need not trust.")),
      h("p", { class: "panel try-promise" }, h("strong", {}, "Nothing that you choose leaves this page. "),
        "The photo is shown to you from memory and uploaded nowhere. This page has no key: orders are signed with secp256k1, which browsers do not have, so the command below seals the photo on your machine, signs, pays, checks the result and opens it."),
      h("section", { "aria-labelledby": "try-1" }, h("h2", { id: "try-1" }, "1. Choose"),
        h("form", { class: "try-form", onsubmit: (event) => event.preventDefault() },
          field(h("label", { for: "try-kernel" }, "Kernel"), this.kernel, null), this.fileField, this.pathField, this.options,
          field(h("label", { for: "try-node" }, "Nearby node"), this.node, "It stores your sealed input; any server may run it.")),
        this.summary, this.fault),
      h("section", { "aria-labelledby": "try-2" }, h("h2", { id: "try-2" }, "2. Run this in a terminal"), this.command,
        h("p", { class: "muted" }, this.platform.config.development
          ? "On this development chain the command gets play money by itself. It asks nobody (--yes) and waits until the payment is on the chain (--settled)."
          : "Your key needs a deposit on the contract first. The command asks nobody (--yes) and waits until the payment is on the chain (--settled).")),
      h("section", { "aria-labelledby": "try-3" }, h("h2", { id: "try-3" }, "3. Follow it"),
        h("div", { class: "tools" }, this.start, field(h("label", { for: "try-own" }, "Your UE's address, or the task that the command names"), this.own, "Not needed; without it every new task of this kernel and size is shown.")),
        this.waiting, this.tasks),
      h("section", { "aria-labelledby": "try-4" }, h("h2", { id: "try-4" }, "4. See the result"),
        h("p", {}, "The command writes the opened result to a file. Choose it to see it beside your photo; it stays in this page, too."),
        field(h("label", { for: "try-result" }, "Result"), this.result, null),
        h("div", { class: "try-pictures" }, this.before.element, this.after.element)),
    ];
  }

  stop() {
    this.#repeat?.stop();
    this.before.drop();
    this.after.drop();
  }

  get chosen() {
    return this.kernels.find(({ name }) => name === this.kernel.value);
  }

  // Fields of the kernel's options.
  kernelOptions() {
    const { file, options, summary } = this.chosen;
    say(this.summary, summary);
    say(this.fileLabel, file === "picture" ? "Photo" : "File");
    this.file.accept = file === "picture" ? "image/*" : file === "json" ? ".json,application/json" : "";
    this.fileField.hidden = this.pathField.hidden = file === "nothing";
    clear(this.options, options.map((option) => h("div", { class: "field" },
      h("label", { for: `try-arg-${option.name}` }, option.name),
      h("input", { type: "text", inputmode: "numeric", id: `try-arg-${option.name}`, "data-option": option.name, placeholder: option.default === null ? "as it fits" : String(option.default), oninput: () => this.changed() }),
      h("small", { class: "muted" }, `${option.meaning}; ${option.least}${option.most === null ? " or more" : ` to ${option.most}`}`))));
  }

  #kernelChosen() {
    this.kernelOptions();
    this.changed();
  }

  async #chosen() {
    const [file] = this.file.files;
    const turn = ++this.#turn;
    this.path.value = file?.name ?? "";
    this.#measures = file ? { size: file.size } : {};
    this.changed();
    const shown = await this.before.show(file?.type.startsWith("image/") ? file : null);
    if (turn !== this.#turn) return;
    this.#measures = { ...this.#measures, ...shown };
    this.changed();
  }

  async #resultChosen() {
    const [file] = this.result.files;
    const { width } = await this.after.show(file);
    announce(width ? `the result is shown: ${file.name}` : "the browser cannot show this file");
  }

  // What the fields say; sets the fault where they cannot be meant.
  #given() {
    const fields = [...this.options.querySelectorAll("input")];
    const kernel = this.chosen;
    const options = {};
    for (const field of fields) {
      const option = kernel.options.find(({ name }) => name === field.dataset.option);
      const fault = optionFault(option, field.value.trim());
      field.setAttribute("aria-invalid", String(fault !== null));
      if (fault) throw new Error(fault);
      if (field.value.trim() !== "") options[option.name] = field.value.trim();
    }
    const path = kernel.file === "nothing" ? "" : this.path.value;
    if (kernel.file !== "nothing" && !path) throw new Error(kernel.file === "picture" ? "Choose a photo, or write its path." : "Choose a file, or write its path.");
    const near = Number(this.node.value);
    const nodes = [...this.platform.nodes].sort((a, b) => (b.index === near) - (a.index === near) || a.index - b.index).map(({ url }) => url);
    return { kernel, path, options, nodes, out: resultName(kernel.name, path) };
  }

  changed() {
    try {
      const text = submitCommand(this.#given());
      say(this.fault, "");
      if (this.shown !== text) clear(this.command, command(text, "command"));
      this.shown = text;
    } catch (error) {
      this.shown = null;
      clear(this.command, h("p", { class: "muted" }, "The command appears once there is something to submit."));
      say(this.fault, error.message);
    }
    this.start.disabled = this.shown === null;
    this.#since ??= this.platform.now();
  }

  #owned() {
    const known = whose(this.own.value) !== null;
    this.own.setAttribute("aria-invalid", String(!known));
    if (this.#repeat) this.#repeat.now();
    else if (known && this.own.value.trim()) this.watch();
  }

  // Looks for the task from when this view was opened on.
  watch() {
    this.#repeat ??= new Repeat(WATCH_MS, (signal) => this.#look(signal));
    this.#repeat.now();
  }

  async #look(signal) {
    const own = whose(this.own.value);
    if (own === null) {
      clear(this.waiting, "That is neither an address (0x and 40 hex digits) nor a task (0x and 64).");
      return;
    }
    const kernel = this.chosen;
    const octets = possibleOctets(kernel, this.#measures);
    const found = await fitting(this.platform, { kernel: kernel.digest, octets, since: this.#since, ...own }, signal);
    const shape = octets ? `${kernel.name} tasks with an input of ${octets.join(" or ")} octets` : `${kernel.name} tasks`;
    clear(this.waiting, own.task ? "Watching this task." : ["Watching for ", shape, own.ue ? " of this UE" : "", " that were ordered after ", times(this.#since), "."]);
    showTasks(this.tasks, found, "None on the ledger yet.");
  }
}
