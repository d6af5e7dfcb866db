// JSON without loss: integers that a Number cannot hold (an offer's nonce has 64 bits) come as decimal strings.

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d{16,}(?![\d.eE])/g; // strings are matched first, so that digits in them are left alone

export function parse(text) {
  return JSON.parse(text.replace(TOKEN, (token) => (token.startsWith('"') ? token : `"${token}"`)));
}
