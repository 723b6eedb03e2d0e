// Who held a slot when: a lane per symbol on a canvas of its own. It draws what it is given and knows of no server.

const WORDS = {
  turn_over: "its turn was over", slot_refused: "no slot was free (309)", refused: "refused", id_rejected: "refused",
  halted: "halted by the gateway", reset: "the gateway emptied the book", connection_lost: "connection lost",
  contract_changed: "another contract by now", in_doubt: "in doubt", out_of_step: "out of step", market_closed: "market closed", stopped: "the recorder was stopped",
  process_lost: "the recorder died",
};
const EXPECTED = new Set(["", "turn_over", "contract_changed", "market_closed", "stopped"]);

/** Why nothing was observed at `time`: how the last subscription before it ended, in words; "" if that is not known. */
export function whyUnobserved(turns, time) {
  const waits = turns.some(([requested, first, end]) => requested <= time && time < (first ?? end ?? Infinity));
  if (waits) return "waits for its first row";
  const before = turns.filter(([, , end]) => end !== null && end <= time).at(-1);
  return before ? WORDS[before[3]] ?? "" : "";
}

/**
 * turns: [[requested, first row or null, end or null, why it ended], ...]; the lane spans `from` to `to`; all unix ms.
 * What was observed is a bar, the wait for the first row a thin line, an end out of turn an upright mark.
 * colours: { held, line, bad }.
 */
export function drawLane(canvas, turns, from, to, colours) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const x = (ts) => Math.min(width, Math.max(0, ((ts - from) / (to - from)) * width));
  context.fillStyle = colours.line;
  for (let minute = Math.ceil(from / 60000) * 60000; minute < to; minute += 60000) {
    context.fillRect(Math.round(x(minute)), 0, 1, height);
  }
  context.fillRect(0, Math.round(height / 2), width, 1);
  context.fillStyle = colours.held;
  const middle = Math.round(height / 2);
  for (const [requested, first, end, why] of turns) {
    const right = x(end ?? to);
    if (x(requested) >= width || right <= 0) continue;
    context.fillRect(x(requested), middle - 1, Math.max(1.5, x(first ?? end ?? to) - x(requested)), 2);
    if (first !== null) context.fillRect(x(first), 4, Math.max(1.5, right - x(first)), height - 8);
    if (EXPECTED.has(why ?? "")) continue;
    context.fillStyle = colours.bad;
    context.fillRect(right - 1, 1, 2, height - 2);
    context.fillStyle = colours.held;
  }
}
