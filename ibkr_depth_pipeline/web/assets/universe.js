// The universe as a table: one row a symbol, sorted by any column, filtered by name, with the lane of its slots.

import { duration, price, spread, utcClock } from "./drawing/format.js";
import { drawLane, laneWords } from "./drawing/lanes.js";
import { set } from "./drawing/ladder.js";

const LANE_MINUTES = [2, 5, 10];
const KEPT_MS = 15 * 60_000; // how far back the server knows who held a slot
export const NO_LANE = { spans: [], marks: [] };

const STATES = {
  live: "live", wait: "waits", stale: "STALE", none: "never recorded", unsupported: "no depth", closed: "closed",
  silent: "SILENT", out_of_step: "OUT OF STEP", unknown: "UNKNOWN",
};
const MEANINGS = {
  live: "It holds a slot and its rows come.", wait: "It waits for its turn; its heartbeat stands.",
  stale: "Its heartbeat is gone: do not trust its book.", none: "It was never recorded.",
  unsupported: "The gateway gives no depth for it.", closed: "Its market is closed.",
  silent: "Its line is silent while others are not.", out_of_step: "Its book is not the gateway's: do not trust it.",
  unknown: "Redis is away.",
};
const STALE = new Set(["stale", "silent", "out_of_step", "unknown"]);
const QUIET = new Set(["none", "unsupported", "closed"]);

const number = (value) => value ?? -Infinity;
const COLUMNS = [
  { name: "symbol", head: "symbol", kind: "text", text: (row) => row.symbol, order: (row) => row.symbol },
  { name: "state", head: "state", kind: "text", text: (row) => stateText(row), order: (row) => row.state },
  { name: "venue", head: "venue", kind: "text", text: (row) => row.venue || "-", order: (row) => row.venue },
  { name: "bid", head: "bid", text: (row) => price(row.bid) || "-", order: (row) => number(row.bid) },
  { name: "ask", head: "ask", text: (row) => price(row.ask) || "-", order: (row) => number(row.ask) },
  { name: "spread", head: "spread", label: "spread", text: (row) => spread(row.bid, row.ask) || "-", order: (row) => (row.bid && row.ask ? row.ask - row.bid : -Infinity) },
  { name: "age", head: "age", label: "age", text: (row) => duration(row.age), order: (row) => number(row.age) },
  { name: "rate", head: "rows/s", text: (row) => (row.rate === null ? "-" : row.rate.toFixed(row.rate < 10 ? 1 : 0)), order: (row) => number(row.rate) },
  { name: "slot", head: "slot", label: "slot", text: (row) => (row.slot ? "held" : "-"), order: (row) => Number(row.slot) },
  { name: "next", head: "next turn", label: "next", text: (row) => nextText(row), order: (row) => number(row.next) },
  { name: "coverage", head: "coverage", label: "cover", text: (row) => (row.coverage === null ? "-" : `${Math.round(row.coverage * 100)}%`), order: (row) => number(row.coverage) },
];

export function stateText(row) {
  return row.state === "closed" && row.closed_until ? `closed until ${utcClock(row.closed_until).slice(0, 5)}` : STATES[row.state] ?? "";
}

export const isStale = (row) => STALE.has(row.state);

export function nextText(row) {
  if (row.slot) return "now";
  if (row.next === null) return "-";
  return row.next < 0.5 ? "due" : `in ${row.next < 100 ? `${Math.round(row.next)} s` : duration(row.next)}`;
}

export class Universe {
  #rows = new Map();
  #visible = new Set();
  #watch = new IntersectionObserver((seen) => this.#see(seen), { rootMargin: "200px" });
  #shown = [];
  #sort = null;
  #ascending = true;
  #laneEnd = 0;
  #laneMs = 0;
  #since = 0;

  /** elements: { table, filter, tally, nothing }; choose(symbol) is called when a row is clicked. */
  constructor(elements, choose) {
    Object.assign(this, elements);
    this.choose = choose;
    this.rows = [];
    this.selected = "";
    this.lanes = {};
    this.alerts = NO_LANE;
    this.unknown = false;
    this.#makeHead();
    this.#makeFoot();
    this.filter.addEventListener("input", () => this.show());
  }

  #makeHead() {
    const head = this.table.tHead.rows[0];
    for (const column of COLUMNS) {
      const cell = document.createElement("th");
      cell.scope = "col";
      if (column.kind) cell.className = column.kind;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.head;
      button.addEventListener("click", () => this.#sortBy(column));
      cell.append(button);
      head.append(cell);
      column.cell = cell;
    }
    const lane = document.createElement("th");
    lane.scope = "col";
    lane.className = "text lane";
    lane.title = "A bar: observed. A thin line: waits for its first row. A mark: ended out of turn.";
    const title = document.createElement("button");
    title.type = "button";
    title.disabled = true;
    title.textContent = "slot held";
    this.laneTitle = title;
    lane.append(title);
    head.append(lane);
  }

  /** Below the lanes of the symbols that of the alerts. */
  #makeFoot() {
    this.foot = this.table.tFoot.insertRow();
    this.foot.className = "marks";
    const name = this.foot.insertCell();
    name.colSpan = COLUMNS.length;
    name.textContent = "alerts";
    this.foot.append(this.#makeLane(() => this.alerts, () => "none"));
  }

  #sortBy(column) {
    const same = this.#sort === column;
    if (same && !this.#ascending) this.#sort = null;
    else {
      this.#ascending = !same;
      this.#sort = column;
    }
    for (const each of COLUMNS) each.cell.removeAttribute("aria-sort");
    if (this.#sort) column.cell.setAttribute("aria-sort", this.#ascending ? "ascending" : "descending");
    this.show();
  }

  /** The symbols in the order of the table. */
  get symbols() {
    return this.#shown.map((row) => row.symbol);
  }

  row(symbol) {
    return this.rows.find((row) => row.symbol === symbol);
  }

  show() {
    const wanted = this.filter.value.trim().toUpperCase();
    this.#shown = this.rows.filter((row) => row.symbol.toUpperCase().includes(wanted));
    if (this.#sort) {
      const { order } = this.#sort;
      const sign = this.#ascending ? 1 : -1;
      const compare = (a, b) => (order(a) < order(b) ? -sign : order(a) > order(b) ? sign : 0);
      this.#shown = [...this.#shown].sort(compare);
    }
    this.#place();
    const holding = this.rows.filter((row) => row.slot).length;
    const stale = this.rows.filter(isStale).length;
    set(this.tally, `${this.rows.length} symbols, ${holding} hold a slot${stale ? `, ${stale} not to be trusted` : ""}`);
    this.nothing.hidden = this.#shown.length > 0;
    const none = this.unknown ? "Nothing is known while Redis is away." : "Nothing has been recorded in this Redis yet.";
    set(this.nothing, this.rows.length ? "No symbol matches." : none);
  }

  #place() {
    const body = this.table.tBodies[0];
    const gone = new Set(this.#rows.keys());
    this.#shown.forEach((row, at) => {
      gone.delete(row.symbol);
      const line = this.#rows.get(row.symbol) ?? this.#make(row.symbol);
      if (body.rows[at] !== line.element) body.insertBefore(line.element, body.rows[at] ?? null);
      this.#fill(line, row);
    });
    for (const symbol of gone) {
      const { element } = this.#rows.get(symbol);
      this.#watch.unobserve(element);
      this.#visible.delete(symbol);
      element.remove();
      this.#rows.delete(symbol);
    }
  }

  #see(seen) {
    for (const { target, isIntersecting } of seen) {
      if (isIntersecting) this.#visible.add(target.dataset.symbol);
      else this.#visible.delete(target.dataset.symbol);
    }
  }

  #make(symbol) {
    const element = document.createElement("tr");
    element.dataset.symbol = symbol;
    element.addEventListener("click", () => this.choose(symbol));
    const cells = COLUMNS.map((column) => {
      const cell = element.insertCell();
      cell.className = column.kind ? `${column.name} ${column.kind}` : column.name;
      if (column.label) cell.dataset.label = column.label;
      return cell;
    });
    const lane = this.#makeLane(() => this.lanes[symbol] ?? NO_LANE, (time) => (time < this.#since ? "not known any more" : "no slot held"));
    element.append(lane);
    const line = { element, cells, canvas: lane.firstChild };
    this.#rows.set(symbol, line);
    this.#watch.observe(element);
    return line;
  }

  /** A cell for the lane that laneNow() gives; at the pointer stand the time and what it shows there, or otherwise(time). */
  #makeLane(laneNow, otherwise) {
    const cell = document.createElement("td");
    cell.className = "lane";
    const canvas = document.createElement("canvas");
    canvas.addEventListener("pointermove", ({ offsetX }) => {
      const perPixel = this.#laneMs / canvas.clientWidth;
      const time = this.#laneEnd - this.#laneMs + offsetX * perPixel;
      canvas.title = `${utcClock(time)} UTC: ${laneWords(laneNow(), time, perPixel) || otherwise(time)}`;
    });
    cell.append(canvas);
    return cell;
  }

  #fill({ element, cells }, row) {
    COLUMNS.forEach((column, at) => set(cells[at], column.text(row)));
    element.dataset.state = row.state;
    element.dataset.stale = isStale(row) ? "yes" : "no";
    element.dataset.quiet = QUIET.has(row.state) ? "yes" : "no";
    const chosen = String(row.symbol === this.selected);
    if (element.getAttribute("aria-selected") !== chosen) element.setAttribute("aria-selected", chosen);
    const title = [MEANINGS[row.state], row.reason].filter(Boolean).join(" ");
    if (cells[1].title !== title) cells[1].title = title;
    if (cells[0].title !== row.symbol) cells[0].title = row.symbol;
  }

  /** So many minutes as hold all that is known, at most the most: a recording that has just begun is no sliver. */
  #spanLanes(now, isPast) {
    const first = Math.min(...Object.values(this.lanes).map(({ spans }) => spans[0]?.[0] ?? now), now);
    const minutes = LANE_MINUTES.find((each) => now - first <= each * 60_000) ?? LANE_MINUTES.at(-1);
    this.#laneMs = minutes * 60_000;
    set(this.laneTitle, isPast ? `slot held, ${minutes} min up to then` : `slot held, last ${minutes} min`);
  }

  /** Draw the lanes up to `until`, which is `now` or before it; what goes on is known up to `known`. */
  drawLanes(until, now, known, colours) {
    this.#laneEnd = until;
    this.#since = now - KEPT_MS;
    this.#spanLanes(now, until < now);
    const from = until - this.#laneMs;
    this.foot.hidden = !this.alerts.marks.length || !this.rows.length;
    drawLane(this.foot.lastChild.firstChild, this.alerts, from, until, colours, { known });
    const since = Math.max(from, this.#since);
    for (const symbol of this.#visible) {
      drawLane(this.#rows.get(symbol).canvas, this.lanes[symbol] ?? NO_LANE, from, until, colours, { known, since });
    }
  }

  select(symbol) {
    this.selected = symbol;
    for (const row of this.#shown) this.#fill(this.#rows.get(row.symbol), row);
    this.#rows.get(symbol)?.element.scrollIntoView({ block: "nearest" });
  }
}
