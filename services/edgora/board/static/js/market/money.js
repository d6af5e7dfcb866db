// Exact comparisons of amounts in wei, and Numbers for plots.

const GWEI = 1_000_000_000;

// For a plot: gwei as a Number. The exact amount belongs in the CSV beside it.
export function asGwei(dec) {
  return dec === null || dec === undefined ? undefined : Number(BigInt(dec)) / GWEI;
}

// 100 part / whole as text with two decimals, cut off rather than rounded, so that 99.99 % never shows as all.
export function percent(part, whole) {
  const base = BigInt(whole);
  if (base === 0n) return null;
  const hundredths = (BigInt(part) * 10_000n) / base;
  return `${hundredths / 100n}.${String(hundredths % 100n).padStart(2, "0")} %`;
}

// How much a value is above another: "+2.50 %", "equal", "-0.10 %".
export function above(value, other) {
  const [mine, base] = [BigInt(value), BigInt(other)];
  if (mine === base) return "equal";
  if (base === 0n) return "greedy: nothing";
  const difference = mine - base;
  return `${difference < 0n ? "-" : "+"}${percent(difference < 0n ? -difference : difference, base)}`;
}
