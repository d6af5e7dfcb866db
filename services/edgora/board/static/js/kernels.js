// Names of the kernels that ship with Edgora, by module digest: the ledger knows digests only.

import { short } from "./dom.js";

const names = new Map();

// kernels: [{digest, name, title}] of /board.json.
export function learnKernels(kernels) {
  for (const { digest, name } of kernels ?? []) names.set(digest, name);
}

export function kernelName(digest) {
  return names.get(digest) ?? short(digest);
}
