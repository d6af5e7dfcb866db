// Canonical MessagePack as the ledger writes it (ledger.md 2): arrays, integers, strings, octets, nil, booleans. Read only.
//
// Octets become 0x-hex, integers beyond a Number's exact range BigInt. No maps, floats or extensions: the ledger has none.

export class Malformed extends Error {}

// The value that 0x-hex octets encode. Throws Malformed if they are not exactly one value.
export function decode(hex) {
  const reader = new Reader(hex);
  const value = reader.value();
  if (reader.at !== reader.octets.length) throw new Malformed("octets are left over");
  return value;
}

const HEX = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, "0"));

class Reader {
  constructor(hex) {
    this.octets = Uint8Array.from(hex.slice(2).match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
    this.view = new DataView(this.octets.buffer);
    this.at = 0;
  }

  #take(count) {
    const from = this.at;
    this.at += count;
    if (this.at > this.octets.length) throw new Malformed("octets are missing");
    return from;
  }

  #hex(count) {
    const from = this.#take(count);
    let text = "0x";
    for (let index = from; index < from + count; index += 1) text += HEX[this.octets[index]];
    return text;
  }

  #text(count) {
    const from = this.#take(count);
    return new TextDecoder().decode(this.octets.subarray(from, from + count));
  }

  #unsigned(width) {
    const from = this.#take(width);
    if (width === 1) return this.view.getUint8(from);
    if (width === 2) return this.view.getUint16(from);
    if (width === 4) return this.view.getUint32(from);
    const value = this.view.getBigUint64(from);
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  }

  #signed(width) {
    const from = this.#take(width);
    if (width === 1) return this.view.getInt8(from);
    if (width === 2) return this.view.getInt16(from);
    if (width === 4) return this.view.getInt32(from);
    const value = this.view.getBigInt64(from);
    return value >= BigInt(Number.MIN_SAFE_INTEGER) ? Number(value) : value;
  }

  #array(count) {
    if (count > this.octets.length) throw new Malformed("an array is longer than its octets");
    return Array.from({ length: count }, () => this.value());
  }

  value() {
    const lead = this.view.getUint8(this.#take(1));
    if (lead < 0x80) return lead;
    if (lead >= 0xe0) return lead - 0x100;
    if (lead >= 0x90 && lead < 0xa0) return this.#array(lead & 0x0f);
    if (lead >= 0xa0 && lead < 0xc0) return this.#text(lead & 0x1f);
    switch (lead) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.#hex(this.#unsigned(1 << (lead - 0xc4)));
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return this.#unsigned(1 << (lead - 0xcc));
      case 0xd0: case 0xd1: case 0xd2: case 0xd3: return this.#signed(1 << (lead - 0xd0));
      case 0xd9: case 0xda: case 0xdb: return this.#text(this.#unsigned(1 << (lead - 0xd9)));
      case 0xdc: case 0xdd: return this.#array(this.#unsigned(2 << (lead - 0xdc)));
      default: throw new Malformed(`0x${HEX[lead]} begins nothing that the ledger writes`);
    }
  }
}
