// Ten levels a side as a table: asks on top, the best prices in the middle, a bar for each size. The class `sides` sets
// bids and asks beside each other, the best on top.

import { price, size, spread } from "./format.js";

const LEVELS = 10;

export class Ladder {
  #rows = [];
  #middle;

  constructor(table) {
    const body = table.tBodies[0];
    for (let level = LEVELS - 1; level >= 0; level -= 1) this.#rows.push(this.#row(body, "ask", 3, level));
    const middle = body.insertRow();
    middle.className = "middle";
    this.#middle = middle.insertCell();
    this.#middle.colSpan = 3;
    for (let level = 0; level < LEVELS; level += 1) this.#rows.push(this.#row(body, "bid", 2, level));
  }

  #row(body, side, part, level) {
    const row = body.insertRow();
    row.className = side;
    row.dataset.level = level;
    row.style.setProperty("--place", level + 1); // of a row, if the sides stand beside each other
    const [venue, amount, at] = [row.insertCell(), row.insertCell(), row.insertCell()];
    const bar = document.createElement("i");
    const text = document.createTextNode("");
    amount.append(bar, text);
    return { part, level, venue, bar, text, at };
  }

  /** book: [ts, seq, bids, asks], or null if there is none. */
  show(book) {
    const largest = book ? Math.max(0, ...book[2].map((row) => row[1]), ...book[3].map((row) => row[1])) : 0;
    for (const row of this.#rows) {
      const [at, amount, venue] = book?.[row.part][row.level] ?? [null, 0, ""];
      set(row.venue, venue);
      set(row.text, at === null ? "" : size(amount));
      set(row.at, at === null ? "\u00b7" : price(at));
      row.bar.style.transform = `scaleX(${largest ? amount / largest : 0})`;
    }
    const between = book ? spread(book[2][0]?.[0], book[3][0]?.[0]) : "";
    set(this.#middle, between ? `spread ${between}` : "\u00a0");
  }
}

/** Change a text only if it differs: an unchanged cell costs no layout. */
export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
