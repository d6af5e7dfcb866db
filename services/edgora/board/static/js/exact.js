// JSON without loss: integers that a Number cannot hold (an offer's nonce has 64 bits) come as decimal strings.

// Strings and numbers are matched whole, so that digits within either are left alone.
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g;
const LONG = /^-?\d{16,}$/;

export function parse(text) {
  return JSON.parse(text.replace(TOKEN, (token) => (LONG.test(token) && !Number.isSafeInteger(Number(token)) ? `"${token}"` : token)));
}
