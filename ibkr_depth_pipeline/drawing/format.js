// Numbers, durations and times as people read them.

/** Two digits if the price is whole cents, otherwise as many as eight digits hold; as in the terminal. */
export function price(value) {
  if (value === null || value === undefined) return "";
  return Math.abs(Math.round(value * 100) - value * 100) < 1e-6 ? value.toFixed(2) : String(Number(value.toPrecision(8)));
}

export function size(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  return Number(value.toPrecision(6)).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

/** `9.5 s`, `40 min`, `7 h`, `12 d`; `-` for null. */
export function duration(secs) {
  if (secs === null || secs === undefined) return "-";
  if (secs < 100) return `${secs.toFixed(1)} s`;
  if (secs < 6000) return `${Math.round(secs / 60)} min`;
  return secs < 360000 ? `${Math.round(secs / 3600)} h` : `${Math.round(secs / 86400)} d`;
}

export function utcClock(ms, digits = 0) {
  return new Date(ms).toISOString().slice(11, digits ? 20 + digits : 19);
}

export function signed(value) {
  return `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;
}

/** The spread of two prices in as many digits as they need, without the noise of binary fractions. */
export function spread(bid, ask) {
  if (!bid || !ask) return "";
  return price(Number((ask - bid).toFixed(8)));
}
