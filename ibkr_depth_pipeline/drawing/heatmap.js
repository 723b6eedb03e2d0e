// A depth heat map on a canvas: price by time, size by colour, best bid and ask as lines, unobserved time hatched.
//
// It draws what it is given and knows of no server: a view is
//   { columns: [book | null | undefined, ...], start, step, right, edge, known, oldest, cursor, why, marks }
// where columns[0] begins at `start` and each is `step` long (unix ms); `right` is the time at the right edge. The book
// was last observed at `edge`; up to `known` it is known that it was not observed since. `oldest`: where the data begin.
// why(time) says why it was not observed then. marks are those of a lane (lanes.js): they stand at the upper edge.
// A book is [ts, seq, bids, asks, bid, ask]: rows are [price, size, venue], best first; bid and ask are the best prices
// where they are not those of the first rows, as in a mean of several books.

import { price, size, utcClock } from "./format.js";
import { fitted, palette } from "./palette.js";

const SHADES = 48;
const MOST_ROWS = 220;
const GUTTER = 66;
const FOOT = 20;
const MARK = 5;
const FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].map((secs) => secs * 1000);

export class HeatMap {
  #cells = document.createElement("canvas");
  #grid = null;
  #full = 0;
  #theme = null;
  #name = "";

  /** Prices stand in a gutter at the right, times in a foot; 0 for no foot. */
  constructor(canvas, { gutter = GUTTER, foot = FOOT } = {}) {
    Object.assign(this, { canvas, gutter, foot });
    this.context = canvas.getContext("2d", { alpha: false });
    this.drawn = 0;
  }

  /** Forget the scales, for another symbol. */
  reset() {
    this.#grid = null;
    this.#full = 0;
  }

  /** Width of the plot in CSS pixels. */
  get width() {
    return Math.max(50, this.canvas.clientWidth - this.gutter);
  }

  get height() {
    return Math.max(50, this.canvas.clientHeight - this.foot);
  }

  /** The column's index (may be a fraction) and the price at a place of the canvas, in CSS pixels. */
  locate(x, y, view) {
    const grid = this.#grid;
    return {
      time: view.right - (this.width - x) * this.#msPerPixel(view),
      price: grid ? grid.low + (1 - y / this.height) * (grid.high - grid.low) : null,
      unit: grid?.unit ?? 0,
      inside: x >= 0 && x < this.width && y >= 0 && y < this.height,
    };
  }

  /** Draw the view; another `theme` than before means that the colours are others. */
  draw(view, theme) {
    this.#use(theme);
    fitted(this.canvas).font = FONT;
    const books = view.columns.filter(Boolean);
    this.#grid = view.grid ?? (books.length ? priceGrid(books, this.#grid) : this.#grid);
    this.#full = fullSize(books, this.#full);
    const { context } = this;
    context.fillStyle = this.#theme.panel;
    context.fillRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    context.save();
    context.beginPath();
    context.rect(0, 0, this.width, this.height);
    context.clip();
    this.#drawUnknown(view);
    if (this.#grid) {
      this.#drawCells(view);
      this.#drawQuotes(view);
    }
    this.#drawMarks(view);
    context.restore();
    if (this.foot) this.#drawTimes(view);
    if (this.#grid) this.#drawPrices(view);
    if (view.cursor) this.#drawCursor(view);
    this.drawn += 1;
  }

  #use(name) {
    if (name === this.#name) return;
    this.#name = name;
    const colours = palette();
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const context = tile.getContext("2d");
    context.fillStyle = colours.hatched;
    context.fillRect(0, 0, 8, 8);
    context.strokeStyle = colours.hatch;
    context.lineWidth = 1.2;
    for (const at of [-8, 0, 8]) {
      context.moveTo(at, 8);
      context.lineTo(at + 8, 0);
    }
    context.stroke();
    const [bids, asks] = ["bid", "ask"].map((side) => ramp(["low", "middle", "high"].map((shade) => colours[`${side}-${shade}`])));
    this.#theme = { ...colours, pattern: this.context.createPattern(tile, "repeat"), bids, asks };
  }

  #msPerPixel(view) {
    return (view.columns.length * view.step) / this.width;
  }

  #x(ts, view) {
    return this.width - (view.right - ts) / this.#msPerPixel(view);
  }

  #y(value) {
    return (1 - (value - this.#grid.low) / (this.#grid.high - this.#grid.low)) * this.height;
  }

  /** What is not observed is hatched; what is not known yet, or no longer, is plain. */
  #drawUnknown(view) {
    const kind = (column, at) => {
      if (column) return "book";
      const ts = view.start + at * view.step;
      if (view.oldest !== null && ts + view.step <= view.oldest) return "gone";
      if (column === null) return "hatched";
      return view.edge !== null && ts > view.edge && ts + view.step <= view.known ? "hatched" : "unknown";
    };
    let from = 0;
    const kinds = view.columns.map(kind);
    for (let at = 1; at <= kinds.length; at += 1) {
      if (at < kinds.length && kinds[at] === kinds[from]) continue;
      if (kinds[from] !== "book") this.#drawBlank(kinds[from], view, from, at);
      from = at;
    }
  }

  #drawBlank(kind, view, from, until) {
    const left = this.#x(view.start + from * view.step, view);
    const right = this.#x(view.start + until * view.step, view);
    this.context.fillStyle = kind === "hatched" ? this.#theme.pattern : this.#theme.soft;
    this.context.fillRect(left, 0, right - left, this.height);
    const words = { hatched: "not observed", gone: "before the stream begins" }[kind];
    if (!words) return;
    this.context.textAlign = "center";
    this.context.textBaseline = "middle";
    const middle = (Math.max(0, left) + Math.min(this.width, right)) / 2;
    const half = this.context.measureText(words).width / 2 + 6;
    if (Math.min(this.width, right) - Math.max(0, left) < 2 * half) return; // it would be cut off
    this.context.fillStyle = this.#theme.panel;
    this.context.fillRect(middle - half, this.height / 2 - 10, 2 * half, 20);
    this.context.fillStyle = this.#theme.quiet;
    this.context.fillText(words, middle, this.height / 2);
  }

  #drawCells(view) {
    const { columns } = view;
    const { low, unit, rows } = this.#grid;
    const cells = this.#cells;
    if (cells.width !== columns.length || cells.height !== rows) {
      cells.width = columns.length;
      cells.height = rows;
    }
    const context = cells.getContext("2d");
    const image = context.createImageData(columns.length, rows);
    const pixels = new Uint32Array(image.data.buffer);
    const sums = new Float64Array(rows);
    let before = null;
    columns.forEach((book, at) => {
      if (!book) return;
      if (book === before) {
        for (let row = 0, place = at; row < rows; row += 1, place += columns.length) pixels[place] = pixels[place - 1];
      } else {
        this.#paint(book[2], this.#theme.bids, sums, pixels, at, columns.length, low, unit, rows);
        this.#paint(book[3], this.#theme.asks, sums, pixels, at, columns.length, low, unit, rows);
      }
      before = columns[at];
    });
    context.putImageData(image, 0, 0);
    this.context.imageSmoothingEnabled = false;
    const left = this.#x(view.start, view);
    const right = this.#x(view.start + columns.length * view.step, view);
    this.context.drawImage(cells, left, 0, right - left, this.height);
  }

  /** One side of one column: rows that share a cell add up. */
  #paint(levels, shades, sums, pixels, at, stride, low, unit, rows) {
    for (const [value, amount] of levels) {
      const row = Math.floor((value - low) / unit + 1e-6);
      if (row >= 0 && row < rows) sums[row] += amount;
    }
    for (const [value] of levels) {
      const row = Math.floor((value - low) / unit + 1e-6);
      if (row < 0 || row >= rows || sums[row] === 0) continue;
      const share = Math.min(1, Math.sqrt(sums[row] / this.#full));
      pixels[(rows - 1 - row) * stride + at] = shades[Math.round(share * (SHADES - 1))];
      sums[row] = 0;
    }
  }

  #drawQuotes(view) {
    for (const [side, colour] of [[2, this.#theme["bid-line"]], [3, this.#theme["ask-line"]]]) {
      this.context.beginPath();
      let drawing = false;
      view.columns.forEach((book, at) => {
        const value = book ? best(book, side) : undefined;
        if (value === undefined) {
          drawing = false;
          return;
        }
        const x = this.#x(view.start + at * view.step, view);
        const y = this.#y(value + this.#grid.unit / 2);
        if (drawing) this.context.lineTo(x, y);
        else this.context.moveTo(x, y);
        this.context.lineTo(x + view.step / this.#msPerPixel(view), y);
        drawing = true;
      });
      this.context.strokeStyle = colour;
      this.context.lineWidth = 1.25;
      this.context.stroke();
    }
  }

  /** A triangle for trouble, a ring for its end. */
  #drawMarks(view) {
    const { context } = this;
    for (const [at, severity] of view.marks ?? []) {
      const x = this.#x(at, view);
      if (x < -MARK || x > this.width + MARK) continue;
      context.beginPath();
      if (severity === "bad") {
        context.moveTo(x - MARK, 0);
        context.lineTo(x + MARK, 0);
        context.lineTo(x, 2 * MARK);
      } else context.arc(x, MARK, MARK - 1, 0, 2 * Math.PI);
      context.closePath();
      context.fillStyle = severity === "bad" ? this.#theme.bad : this.#theme.panel;
      context.strokeStyle = severity === "bad" ? this.#theme.panel : this.#theme[severity];
      context.lineWidth = severity === "bad" ? 1 : 2;
      context.fill();
      context.stroke();
    }
  }

  /** The texts of the marks at a place, in CSS pixels. */
  #markedAt({ x, y }, view) {
    if (y > 3 * MARK) return [];
    return (view.marks ?? []).filter(([at]) => Math.abs(this.#x(at, view) - x) < MARK).map(([, , text]) => text);
  }

  #drawTimes(view) {
    const { context } = this;
    const span = view.columns.length * view.step;
    const most = Math.max(2, Math.floor(this.width / 96));
    const step = TIME_STEPS.find((each) => span / each <= most) ?? TIME_STEPS.at(-1);
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let ts = Math.ceil((view.right - span) / step) * step; ts <= view.right; ts += step) {
      const x = Math.round(this.#x(ts, view)) + 0.5;
      context.fillStyle = this.#theme.quiet;
      context.fillRect(x - 0.5, this.height, 1, 4);
      if (x > 28 && x < this.width - 20) context.fillText(utcClock(ts), x, this.height + this.foot / 2 + 2);
    }
    context.fillStyle = this.#theme.line;
    context.fillRect(0, this.height, this.width, 1);
  }

  #drawPrices(view) {
    const { context } = this;
    const { low, high } = this.#grid;
    const step = niceStep((high - low) / Math.max(3, Math.floor(this.height / 44)));
    const book = newestBook(view.columns);
    const tags = book ? this.#tags(book, isOver(view)) : [];
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (let count = Math.ceil(low / step); count * step < high; count += 1) {
      const y = Math.round(this.#y(count * step + this.#grid.unit / 2));
      if (y < 8 || y > this.height - 6 || tags.some((tag) => Math.abs(tag.y - y) < 15)) continue;
      context.fillStyle = this.#theme.quiet;
      context.fillRect(this.width, y, 4, 1);
      context.fillText(price(Number((count * step).toFixed(8))), this.width + 8, y);
    }
    context.fillStyle = this.#theme.line;
    context.fillRect(this.width, 0, 1, this.height);
    for (const { y, colour, text } of tags) {
      context.fillStyle = colour;
      context.fillRect(this.width + 1, y - 8, this.gutter - 1, 16);
      context.fillStyle = this.#theme.panel;
      context.fillText(text, this.width + 8, y + 0.5);
    }
  }

  /** The best prices at the right edge, kept apart where they would cover each other; without colour once `over`. */
  #tags(book, over) {
    const { "ask-line": asks, "bid-line": bids, quiet } = this.#theme;
    const sides = [[best(book, 3), over ? quiet : asks], [best(book, 2), over ? quiet : bids]].filter(([value]) => value !== undefined);
    const places = sides.map(([value]) => this.#y(value + this.#grid.unit / 2));
    if (places.length === 2 && places[1] - places[0] < 17) {
      const middle = (places[0] + places[1]) / 2;
      places[0] = middle - 8.5;
      places[1] = middle + 8.5;
    }
    const inside = (y) => Math.min(this.height - 8, Math.max(8, y));
    return sides.map(([value, colour], at) => ({ y: inside(places[at]), colour, text: price(value) }));
  }

  /** What stands at a price in a column, in words. */
  #said(column, time, value, view) {
    if (column === null || (!column && view.edge !== null && time > view.edge && time < view.known)) {
      return ["not observed", view.why?.(time)].filter(Boolean).join(": ");
    }
    if (!column || value === null) return "";
    const { unit } = this.#grid;
    const row = Math.floor(value / unit + 1e-6);
    const here = (at) => Math.floor(at / unit + 1e-6) === row;
    const sum = (levels) => levels.reduce((total, [at, amount]) => total + (here(at) ? amount : 0), 0);
    const [bids, asks] = [sum(column[2]), sum(column[3])];
    if (!bids && !asks) return "nothing";
    return [bids && `${size(bids)} bid`, asks && `${size(asks)} ask`].filter(Boolean).join(", ");
  }

  #drawCursor(view) {
    const { context } = this;
    const { x, y } = view.cursor;
    if (x >= this.width || y >= this.height) return;
    const { time, price: value, unit } = this.locate(x, y, view);
    const column = view.columns[Math.floor((time - view.start) / view.step)];
    context.fillStyle = this.#theme.quiet;
    context.fillRect(Math.round(x), 0, 1, this.height);
    context.fillRect(0, Math.round(y), this.width, 1);
    const at = value === null ? "" : price(Number((Math.floor(value / unit + 1e-6) * unit).toFixed(8)));
    const marked = this.#markedAt(view.cursor, view);
    const words = [utcClock(time, 1), ...(marked.length ? marked : [at, this.#said(column, time, value, view)])].join("   ");
    const wide = context.measureText(words).width + 14;
    const left = Math.min(this.width - wide, Math.max(0, x + 10));
    const top = y > 34 ? y - 28 : y + 10;
    context.fillStyle = this.#theme.ink;
    context.fillRect(left, top, wide, 20);
    context.fillStyle = this.#theme.panel;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(words, left + 7, top + 10.5);
  }
}

/** Whether the time at the right edge is known not to be observed. */
function isOver(view) {
  if (view.right > view.edge) return view.edge !== null && view.known > view.edge + view.step;
  return view.columns.at(-1) === null;
}

/** The best price of a side (2: bids, 3: asks); undefined if there is none. */
const best = (book, side) => book[side + 2] ?? book[side][0]?.[0];

export function newestBook(columns) {
  for (let at = columns.length - 1; at >= 0; at -= 1) if (columns[at]) return columns[at];
  return null;
}

/** The range of prices and the height of a cell; the former grid if it still fits, so that the picture stands still. */
export function priceGrid(books, before) {
  const every = Math.max(1, Math.floor(books.length / 60));
  const lows = [];
  const highs = [];
  let unit = Infinity;
  for (let at = books.length - 1; at >= 0; at -= every) {
    for (const [levels, far] of [[books[at][2], lows], [books[at][3], highs]]) {
      if (!levels.length) continue;
      far.push(levels[levels.length - 1][0], levels[0][0]);
      for (let row = 1; row < levels.length; row += 1) {
        const apart = Math.abs(levels[row][0] - levels[row - 1][0]);
        if (apart > 1e-7 && apart < unit) unit = apart;
      }
    }
  }
  const all = [...lows, ...highs].sort((a, b) => a - b);
  if (!all.length) return before;
  const low = all[Math.floor(all.length * 0.02)];
  const high = all[Math.ceil(all.length * 0.98) - 1];
  unit = Number((Number.isFinite(unit) ? unit : Math.max(0.01, low * 1e-4)).toPrecision(6));
  const fits = before && before.tick === unit && low >= before.low && high + unit <= before.high;
  if (fits && high + unit - low > 0.6 * (before.high - before.low)) return before;
  const margin = Math.max(2 * unit, 0.06 * (high - low));
  const cell = unit * Math.max(1, Math.ceil((high - low + 2 * margin) / unit / MOST_ROWS));
  const from = Math.floor((low - margin) / cell) * cell;
  const rows = Math.ceil((high + margin + unit - from) / cell);
  return { tick: unit, unit: cell, low: from, high: from + rows * cell, rows };
}

/** The size that has the deepest colour: nearly the largest that is shown. */
function fullSize(books, before) {
  const sizes = [];
  const every = Math.max(1, Math.floor(books.length / 40));
  for (let at = 0; at < books.length; at += every) {
    for (const [, amount] of books[at][2]) sizes.push(amount);
    for (const [, amount] of books[at][3]) sizes.push(amount);
  }
  if (!sizes.length) return before || 1;
  sizes.sort((a, b) => a - b);
  const full = sizes[Math.floor(sizes.length * 0.97)] || 1;
  return before && Math.abs(full - before) < 0.25 * before ? before : full;
}

export function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((part) => part * power).find((step) => step >= rough * (1 - 1e-9));
}

/** Colours between three, as the bytes of a pixel. */
function ramp(stops) {
  const [low, middle, high] = stops.map((text) => text.match(/\d+/g).map(Number));
  return Uint32Array.from({ length: SHADES }, (_, at) => {
    const share = at / (SHADES - 1);
    const [from, to, part] = share < 0.5 ? [low, middle, share * 2] : [middle, high, share * 2 - 1];
    const [red, green, blue] = from.map((value, index) => Math.round(value + (to[index] - value) * part));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}
