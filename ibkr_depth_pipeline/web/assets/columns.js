// The heat map's columns: what the live frames and the tiles of the past say of each piece of time.
//
// A column is a book `[ts, seq, bids, asks]`, null (not observed), or undefined (not received yet).

export const UNOBSERVED = null;
const TILE_COLUMNS = 120;
const MOST_KEPT = 30000;
const ASK_AGAIN_MS = 1500;

export class Columns {
  #columns = new Map();
  #tiles = new Map();
  #before = null;

  /** changed() is called when a tile has come. */
  constructor(changed) {
    this.changed = changed;
    this.reset("", 100);
  }

  /** Forget everything and begin with another symbol or another step (ms). */
  reset(symbol, step) {
    this.symbol = symbol;
    this.step = step;
    this.oldest = null;
    this.frame = null;
    this.#columns.clear();
    this.#tiles.clear();
    this.#before = null;
  }

  /** The connection was lost: what comes next does not join on to what came before. */
  interrupt() {
    this.#before = null;
    this.#tiles.clear();
  }

  index(ts) {
    return Math.floor(ts / this.step);
  }

  at(index) {
    return this.#columns.get(index);
  }

  /** The newest frame of the server. */
  take(frame) {
    const before = this.#before;
    this.frame = this.#before = frame;
    if (!frame.book) return;
    const first = this.index(Math.max(frame.book[0], frame.from));
    const last = this.index(frame.to);
    let from = Math.max(first, last - MOST_KEPT);
    if (before?.book) {
      const joined = this.index(before.to);
      if (frame.from > before.to) this.#fill(joined + 1, this.index(frame.from) - 1, UNOBSERVED);
      else if (frame.n === before.n + 1) this.#fill(joined + 1, first - 1, before.book);
      if (frame.book[1] === before.book[1]) from = Math.max(from, joined);
    }
    this.#fill(from, last, frame.book);
    if (this.#columns.size > MOST_KEPT) this.#trim();
  }

  /** Ask for the tiles of the columns first to last that are not here. */
  need(first, last, now) {
    for (let number = Math.floor(first / TILE_COLUMNS); number <= Math.floor(last / TILE_COLUMNS); number += 1) {
      const tile = this.#tiles.get(number);
      if (tile && (tile.under || now - tile.at < ASK_AGAIN_MS)) continue;
      const start = number * TILE_COLUMNS;
      if (this.#lacks(Math.max(start, first), Math.min(start + TILE_COLUMNS - 1, last))) this.#ask(number, now);
    }
  }

  #lacks(first, last) {
    for (let index = first; index <= last; index += 1) if (this.#columns.get(index) === undefined) return true;
    return false;
  }

  async #ask(number, now) {
    const { symbol, step } = this;
    const tile = { under: true, at: now };
    this.#tiles.set(number, tile);
    const query = new URLSearchParams({ symbol, step, number });
    try {
      const answer = await fetch(`/tile?${query}`);
      if (answer.ok) this.#put(await answer.json());
    } catch {
      // the server is away: the page says so already
    }
    tile.under = false;
  }

  #put(tile) {
    if (tile.symbol !== this.symbol || tile.step !== this.step) return;
    this.oldest = tile.oldest;
    const start = tile.number * TILE_COLUMNS;
    const edge = this.frame?.to ? this.index(this.frame.to) : Infinity;
    let book = UNOBSERVED;
    tile.columns.forEach((column, at) => {
      if (column !== 0) book = column;
      const known = this.#columns.get(start + at);
      if (start + at < edge || known === undefined) this.#columns.set(start + at, book);
    });
    this.changed();
  }

  #fill(first, last, value) {
    for (let index = first; index <= last; index += 1) this.#columns.set(index, value);
  }

  #trim() {
    const keys = [...this.#columns.keys()].sort((a, b) => a - b);
    keys.slice(0, keys.length - MOST_KEPT / 2).forEach((key) => this.#columns.delete(key));
    this.#tiles.clear();
  }
}
