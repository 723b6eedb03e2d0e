// The page's own part: what stands in it is drawn with the modules above, and shown at the pointer.

const $ = (selector) => [...document.querySelectorAll(selector)];
const root = document.documentElement, main = document.querySelector("main"), clock = document.getElementById("clock");
const [start, end, step, rule] = ["start", "end", "step", "rule"].map((name) => Number(main.dataset[name]));
const TENTHS = 10;
const NARROWEST_SHOWN = 0.5; // of a whole day a turn is less than a pixel wide, and many of them are a shade

/** Subscriptions as lanes.js has them: [requested, first row or null, end, why it ended]. */
function turnsFrom(packed) {
  let end = start;
  return Array.from({ length: packed.length / 4 }, (_, at) => {
    const [pause, wait, lasts, why] = packed.slice(4 * at, 4 * at + 4);
    const requested = end + pause;
    end = requested + (wait ?? 0) + lasts;
    return [requested, wait === null ? null : requested + wait, end, why || (why === 0 ? "turn_over" : "")];
  });
}

/** The cells of the time in which no subscription is known to the millisecond. */
function cellsBeside(cells, turns) {
  const bin = (ts) => Math.min(cells.length, Math.max(0, Math.floor((ts - start) / step)));
  const left = [...cells];
  for (const [requested, , until] of turns) left.fill(" ", bin(requested), bin(until) + 1);
  return left.join("");
}

/** A lane with its subscriptions, and its other cells as spans, those of the same shade as one. */
function laneFrom(text) {
  const { cells, turns: packed = [], spans, marks } = JSON.parse(text);
  const turns = turnsFrom(packed), exact = laneOf(turns);
  const held = [...cellsBeside(cells, turns).matchAll(/([a-j])\1*|([A-J])\2*/g)].map(({ 0: run, 1: waits, index }) => {
    const share = (run.toLowerCase().charCodeAt(0) - 96) / TENTHS;
    return [start + index * step, start + (index + run.length) * step, waits ? "wait" : "held", "", share];
  });
  return { spans: [...held, ...exact.spans, ...spans], marks: [...exact.marks, ...marks], turns: exact, observed: [...cells].map((cell) => cell >= "A" && cell <= "J") };
}

/** The columns of a heat map: the mean book of each bin, null where it was not observed. */
async function columnsFrom({ grid, bid, ask, least, most, sizes }, observed) {
  const packed = new Blob([Uint8Array.from(atob(sizes), (letter) => letter.charCodeAt(0))]);
  const cells = new Uint8Array(await new Response(packed.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const amounts = Array.from({ length: 256 }, (_, at) => Number((least * (most / least) ** ((at - 1) / 254)).toPrecision(2)));
  const rows = (side, at) => {
    const from = (side * observed.length + at) * grid.rows;
    const found = [...cells.subarray(from, from + grid.rows)].map((cell, row) => [cell, grid.low + row * grid.unit]);
    return found.filter(([cell]) => cell).map(([cell, value]) => [value, amounts[cell], ""]);
  };
  return observed.map((seen, at) => (seen ? [start + at * step, 0, rows(0, at).reverse(), rows(1, at), bid[at] ?? undefined, ask[at] ?? undefined] : null));
}

const lanes = $("canvas.lane").map((canvas) => ({ canvas, lane: laneFrom(canvas.dataset.lane) }));
const maps = $("canvas.heat").map((canvas) => {
  const [table, caption] = ["table.ladder", ".book-at output"].map((part) => canvas.closest("figure").querySelector(part));
  return { canvas, heat: new HeatMap(canvas, { foot: 0 }), ladder: new Ladder(table), caption, view: null, asked: false };
});
const alerts = lanes.find(({ canvas }) => canvas.classList.contains("alerts"))?.lane.marks ?? [];

async function viewOf({ dataset }) {
  const data = JSON.parse(dataset.map), { lane } = lanes.find(({ canvas }) => canvas.dataset.name === dataset.name);
  return {
    columns: await columnsFrom(data, lane.observed), grid: { tick: data.grid.unit, ...data.grid }, start, step, right: end,
    edge: end, known: end, oldest: null, cursor: null, marks: alerts, why: (time) => whyUnobserved(lane.turns, time),
  };
}

const dark = matchMedia("(prefers-color-scheme: dark)"), paper = matchMedia("print");
const theme = () => root.dataset.theme ?? (dark.matches && !paper.matches ? "dark" : "light");

/** Draw the map if it is shown; its data are unpacked when it is shown for the first time. */
async function drawMap(map) {
  const { canvas, heat } = map;
  if (!canvas.clientWidth || (map.asked && !map.view)) return;
  map.asked = true;
  if (!map.view) {
    map.view = await viewOf(canvas);
    showLadder(map, null);
  }
  heat.gutter = canvas.clientWidth - canvas.parentElement.clientWidth;
  heat.draw(map.view, theme());
  canvas.dataset.drawn = theme();
}

/** A column without what stands beyond the prices that were the best at its end: within a bin they move. */
function uncrossed([ts, seq, bids, asks, bid = Infinity, ask = 0], unit) {
  return [ts, seq, bids.filter(([at]) => at < bid + unit / 1e3), asks.filter(([at]) => at > ask - unit)];
}

/** The ten levels from the best prices on at `time`; null for the last whole book. */
function showLadder({ ladder, caption, view: { columns, grid: { unit }, why } }, time) {
  const isWhole = (book) => book && uncrossed(book, unit).slice(2).every((side) => side.length >= 10);
  const book = time === null
    ? columns.findLast(isWhole) ?? newestBook(columns)
    : columns[Math.min(columns.length - 1, Math.floor((time - start) / step))];
  caption.textContent = book ? `${utcClock(book[0])} UTC` : ["not observed", time === null ? "" : why(time)].filter(Boolean).join(": ");
  ladder.show(book ? uncrossed(book, unit) : null);
}

function draw() {
  const colours = palette();
  for (const { canvas, lane } of lanes) drawLane(canvas, lane, start, end, colours, { every: rule, narrowest: NARROWEST_SHOWN });
  maps.forEach(drawMap);
}

/** Paper is white, whatever the screen is. */
function print(begins) {
  if (begins) root.dataset.theme = "light";
  else delete root.dataset.theme;
  draw();
}

addEventListener("resize", draw);
dark.addEventListener("change", draw);
paper.addEventListener("change", draw);
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));

// What the lines of a chart stand at below the pointer, read off their own paths.
function heightAt(path, x) {
  // M x y, L x y, H x, V y, h dx: the height of the path at x, null where it has none.
  let px = 0, py = 0, found = null;
  for (const [, command, numbers] of path.matchAll(/([MLHVhZ])([^MLHVhZ]*)/g)) {
    const [a, b] = numbers.trim().split(/[ ,]+/).map(Number);
    const [nx, ny] = { M: [a, b], L: [a, b], H: [a, py], V: [px, a], h: [px + a, py], Z: [px, py] }[command];
    if (command !== "M" && command !== "Z" && x >= Math.min(px, nx) && x <= Math.max(px, nx) && nx !== px)
      found = found ?? py + (ny - py) * (x - px) / (nx - px);
    px = nx; py = ny;
  }
  return found;
}

function valueOf(plot, y) {
  const { low, high, foot } = plot.dataset, part = 1 - y / 100, from = Number(foot);
  if (plot.dataset.log === undefined) return Number(low) + part * (high - low);
  if (part < from / 2) return 0;
  return 10 ** (Math.log10(low) + Math.max(0, part - from) / (1 - from) * (Math.log10(high) - Math.log10(low)));
}

/** The lines of a chart, each with its name. */
function valuesAt(plot, part) {
  const names = [...plot.closest("figure").querySelectorAll(".key")];
  return [...plot.querySelectorAll("path.first, path.second, path.ink, path.area")].map((path) => {
    const height = heightAt(path.getAttribute("d"), 1000 * part);
    const name = names.find((key) => key.classList.contains(path.classList[0]));
    return height === null ? "" : `${name ? `${name.textContent} ` : ""}${size(Number(valueOf(plot, height).toPrecision(4)))}`;
  });
}

// One upright line at the pointer, on every chart: they share the axis.
function point(event) {
  const plot = event.target.closest?.(".plot");
  const { left, top, width } = plot?.getBoundingClientRect() ?? {};
  const part = plot ? Math.min(1, Math.max(0, (event.clientX - left) / width)) : 0;
  clock.hidden = !plot;
  main.style.setProperty("--seen", plot ? "block" : "none");
  main.style.setProperty("--at", part);
  for (const map of maps.filter(({ view }) => view)) {
    const before = map.view.cursor;
    map.view.cursor = map.canvas === event.target ? { x: event.clientX - left, y: event.clientY - top } : null;
    if (before || map.view.cursor) drawMap(map);
    if (map.canvas.clientWidth) showLadder(map, plot ? start + part * (end - start) : null);
  }
  if (!plot) return;
  const time = start + part * (end - start), lane = lanes.find(({ canvas }) => plot.contains(canvas))?.lane;
  const words = lane ? [laneWords(lane, time, (end - start) / width)] : valuesAt(plot, part);
  clock.textContent = [`${utcClock(time)} UTC`, ...words].filter(Boolean).join(", ");
}
document.addEventListener("pointermove", point);

// One book at a time, if there are several.
const books = $("section.book"), chooser = document.querySelector("nav.books");
if (chooser) {
  const select = chooser.querySelector("select");
  const show = () => { books.forEach((book, number) => { book.hidden = number !== select.selectedIndex; }); maps.forEach(drawMap); };
  chooser.hidden = false;
  select.addEventListener("change", show);
  show();
}
draw();
