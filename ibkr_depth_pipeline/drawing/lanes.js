// What held when, as a lane on a canvas of its own: spans of time, and marks. It knows of no server and of no archive.
//
// A lane is { spans: [[from, to or null, kind, text, share], ...], marks: [[time, severity, text], ...] }, times in
// unix ms, both in their order. A span of the kind `wait` is a thin line, `held`, `good`, `warn` and `bad` are bars; a
// `share` below 1 makes it paler. Severities are `good`, `warn` and `bad`; the mark of the last is twice as high.

import { fitted } from "./palette.js";

const WORDS = {
  turn_over: "its turn was over", slot_refused: "no slot was free (309)", refused: "refused", id_rejected: "refused",
  halted: "halted by the gateway", reset: "the gateway emptied the book", connection_lost: "connection lost",
  contract_changed: "another contract by now", in_doubt: "in doubt", out_of_step: "out of step", market_closed: "market closed", stopped: "the recorder was stopped",
  process_lost: "the recorder died",
};
const EXPECTED = new Set(["", "turn_over", "contract_changed", "market_closed", "stopped"]);
const KINDS = { wait: "a slot is held, no book yet", held: "book observed" };
const NEAR = 3; // pixels from the pointer to a mark
const NARROWEST = 1.5; // pixels of a span

/** The lane of subscriptions, each [requested, first row or null, end or null, why it ended]. */
export function laneOf(turns) {
  const lane = { spans: [], marks: [] };
  for (const [requested, first, end, why] of turns) {
    lane.spans.push([requested, first ?? end, "wait", first === null ? why : ""]);
    if (first !== null) lane.spans.push([first, end, "held", why]);
    if (end !== null && !EXPECTED.has(why ?? "")) lane.marks.push([end, "bad", WORDS[why] ?? why]);
  }
  return lane;
}

const isIn = ([from, to], time) => from <= time && time < (to ?? Infinity);

/** Why nothing was observed at `time`: how the last span before it ended, in words; "" if that is not known. */
export function whyUnobserved({ spans }, time) {
  if (spans.some((span) => span[2] === "wait" && isIn(span, time))) return "waits for its first row";
  const before = spans.filter(([, to]) => to !== null && to <= time).at(-1);
  return before ? WORDS[before[3]] ?? "" : "";
}

/** What the lane shows at a time, in words; the time is `perPixel` ms wide. */
export function laneWords({ spans, marks }, time, perPixel) {
  const near = marks.filter(([at]) => Math.abs(at - time) < NEAR * perPixel).map(([, , text]) => text);
  if (near.length) return near.join("; ");
  const drawn = ([from, to]) => [from, to === null ? null : Math.max(to, from + NARROWEST * perPixel)];
  const [, , kind, text] = spans.findLast((span) => isIn(drawn(span), time)) ?? [];
  return KINDS[kind] ?? text ?? "";
}

/**
 * Draw the lane's time `from` to `to` with the colours of `palette`. A rule stands every so many ms, 0 for none; what has
 * no end goes on up to `known`. No span is narrower than `narrowest` pixels: a thinner one is paler instead.
 * Before `since` nothing is known.
 */
export function drawLane(canvas, lane, from, to, colours, { every = 60000, known = to, narrowest = NARROWEST, since = from } = {}) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  const context = fitted(canvas);
  context.clearRect(0, 0, width, height);
  const x = (ts) => Math.min(width, Math.max(0, ((ts - from) / (to - from)) * width));
  const middle = Math.round(height / 2);
  context.fillStyle = colours.line;
  for (let ts = every ? Math.ceil(from / every) * every : to; ts < to; ts += every) context.fillRect(Math.round(x(ts)), 0, 1, height);
  context.fillRect(x(since), middle, width - x(since), 1);
  for (const [start, end, kind, , share] of lane.spans) {
    const right = x(end ?? known);
    if (x(start) >= width || right <= 0) continue;
    const wide = Math.max(narrowest, right - x(start));
    context.globalAlpha = share === undefined ? 1 : 0.15 + 0.85 * share;
    context.fillStyle = colours[kind === "wait" ? "held" : kind];
    if (kind === "wait") context.fillRect(x(start), middle - 1, wide, 2);
    else context.fillRect(x(start), 4, wide, height - 8);
  }
  context.globalAlpha = 1;
  for (const [at, severity] of lane.marks) {
    if (at < from || at > to) continue;
    context.fillStyle = colours[severity];
    const [top, wide] = severity === "bad" ? [1, 2] : [middle, 3]; // told apart without colours, too
    context.fillRect(x(at) - 1, top, wide, height - 1 - top);
  }
}
