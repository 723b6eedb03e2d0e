// The page: one connection, one view of it. Texts from the server are only ever set as text.

import { Alerts } from "./alerts.js";
import { Columns } from "./columns.js";
import { Connection } from "./connection.js";
import { duration, price, signed, spread, utcClock } from "./drawing/format.js";
import { HeatMap, newestBook } from "./drawing/heatmap.js";
import { Ladder, set } from "./drawing/ladder.js";
import { laneOf, whyUnobserved } from "./drawing/lanes.js";
import { palette } from "./drawing/palette.js";
import { isStale, NO_LANE, nextText, stateText, Universe } from "./universe.js";

const SPANS = [[30, "30 s"], [60, "1 min"], [300, "5 min"], [900, "15 min"]];
const STEPS = [50, 100, 200, 500, 1000, 2000, 5000];
const ROW = ["symbol", "state", "venue", "bid", "ask", "age", "slot", "next", "coverage", "rate", "closed_until", "reason"];
const TEXT_EVERY_MS = 100;
const SILENT_MS = 3000;
const PENDING_MS = 3000; // of an open subscription: how late it may be published that the book is still observed
const SETTLED_MS = 400;
const THINNED_MS = 3000;
const AGING_SECS = 1.5;

const $ = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

const page = {
  symbol: "",
  wanted: asked.get("symbol") ?? "",
  span: SPANS.some(([secs]) => String(secs) === asked.get("span")) ? Number(asked.get("span")) : 60,
  right: asked.get("at") ? Number(asked.get("at")) : null, // the time at the right edge while in the past
  cursor: null,
  clock: { server: 0, here: 0 },
  connected: false,
  lost: 0,
  heard: 0,
  known: 0,
  thinned: 0,
  pace: { frames: 0, drawn: 0, slow: 0 },
  scheduled: false,
  texts: 0,
};

const theme = {
  get name() {
    return document.documentElement.dataset.theme;
  },
  set(name) {
    document.documentElement.dataset.theme = name;
    this.colours = palette();
    schedule();
  },
};

const heat = new HeatMap($("heat"));
const ladder = new Ladder($("ladder"));
const columns = new Columns(() => schedule());
const alerts = new Alerts({
  panel: $("alerts"), toggle: $("alerts-toggle"), tally: $("alerts-tally"), latest: $("alerts-latest"), list: $("alerts-list"),
});
const universe = new Universe(
  { table: $("universe"), filter: $("filter"), tally: $("tally"), nothing: $("nothing") },
  (symbol) => choose(symbol),
);
const figures = makeFigures($("figures"), ["bid", "ask", "spread", "imbalance", "rows/s", "age"]);

// ---- the server

const connection = new Connection({
  open() {
    page.connected = true;
    columns.interrupt();
  },
  closed() {
    if (page.connected || !page.lost) page.lost = Date.now();
    page.connected = false;
    columns.interrupt();
  },
  message(message) {
    page.heard = performance.now();
    page.lost = 0;
    if (message.now) page.clock = { server: message.now, here: performance.now() };
    if (message.k === "state") takeState(message);
    else if (message.k === "lanes") takeLanes(message.lanes);
    else if (message.k === "alerts") takeAlerts(message);
    else if (message.k === "thinned") page.thinned = performance.now();
    else if (message.k === "frame" && message.symbol === page.symbol) {
      columns.take(message);
      page.pace.frames += 1;
      schedule();
    }
  },
});

const now = () => page.clock.server + (performance.now() - page.clock.here);

function takeState(message) {
  page.state = message;
  universe.rows = message.rows.map((values) => Object.fromEntries(ROW.map((name, at) => [name, values[at]])));
  universe.unknown = Boolean(message.problem);
  if (!universe.unknown) page.known = message.now;
  page.ages = universe.rows.map((row) => row.age);
  document.body.classList.toggle("halted", Boolean(message.feed.problem));
  universe.show();
  if (!page.symbol && universe.rows.length) {
    const first = universe.rows.find((row) => row.state === "live") ?? universe.rows[0];
    choose(universe.row(page.wanted) ? page.wanted : first.symbol, page.right);
  }
  showFeed();
}

function takeLanes(lanes) {
  universe.lanes = Object.fromEntries(Object.entries(lanes).map(([symbol, turns]) => [symbol, laneOf(turns)]));
}

function takeAlerts(message) {
  alerts.take(message);
  universe.alerts = message.lane;
  alerts.show(page.right ?? now());
}

function showFeed() {
  const { feed, problem } = page.state;
  const trouble = problem || feed.problem;
  set($("feed"), feed.name ? `ingest ${feed.name}: ${feed.problem || (problem ? "unknown" : "recording")}` : "no ingest known");
  $("feed").dataset.well = trouble ? "no" : "yes";
  showPairs($("counts"), Object.entries(feed.counts ?? {}).map(([name, value]) => [name, value.toLocaleString("en-US")]));
  set($("banner"), problem || feed.problem || "");
  showLink();
}

/** What is known of the connection, twice a second also while nothing comes. */
function showLink() {
  const silent = performance.now() - page.heard;
  const away = !page.connected || silent > SILENT_MS;
  if (away && page.heard) {
    set($("banner"), `The page's server is away${page.lost ? ` since ${utcClock(page.lost)} UTC` : ""}; connecting again.`);
  }
  document.body.classList.toggle("away", Boolean(away || page.state?.problem));
  $("banner").hidden = !$("banner").textContent || !(away ? page.heard : page.state?.problem || page.state?.feed.problem);
  const thinned = page.thinned && performance.now() - page.thinned < THINNED_MS;
  set($("link"), away ? "connecting" : thinned ? "thinned: this browser is slow" : "connected");
  $("link").dataset.thinned = thinned ? "yes" : "no";
}

// ---- what is chosen

function choose(symbol, right = null) {
  page.symbol = symbol;
  page.right = right;
  set($("symbol"), symbol);
  document.title = `${symbol} - Market depth`;
  columns.reset(symbol, step());
  heat.reset();
  universe.select(symbol);
  connection.watch(document.hidden ? "" : symbol);
  schedule();
}

function step() {
  return STEPS.find((each) => (page.span * 1000) / each <= Math.min(700, heat.width)) ?? STEPS.at(-1);
}

function zoom(span) {
  page.span = span;
  for (const button of $("spans").children) button.setAttribute("aria-pressed", String(Number(button.value) === span));
  if (columns.step !== step()) columns.reset(page.symbol, step());
  schedule();
}

/** Show the time up to `right` (unix ms), as far back as the stream reaches; the present and later is live. */
function moveTo(right) {
  if (!page.heard) return;
  const latest = edge();
  const earliest = (columns.oldest ?? 0) + page.span * 250;
  page.right = right >= latest ? null : Math.max(Math.min(earliest, latest), right);
  schedule();
}

const edge = () => now();
const pause = () => moveTo(page.right === null ? edge() - 1 : Infinity);

// ---- drawing

function view() {
  const right = page.right ?? edge();
  const size = columns.step;
  const count = Math.ceil((page.span * 1000) / size);
  const last = columns.index(right);
  const first = last - count + 1;
  const shown = Array.from({ length: count }, (_, at) => columns.at(first + at));
  return {
    columns: shown, first, last, start: first * size, step: size, right: page.right === null ? right : (last + 1) * size,
    edge: columns.frame?.to ?? null, known: now() - (columns.frame?.open ? PENDING_MS : SETTLED_MS),
    oldest: columns.oldest, cursor: page.cursor,
    marks: alerts.lane.marks,
    why: (time) => whyUnobserved(universe.lanes[page.symbol] ?? NO_LANE, time),
  };
}

function schedule() {
  if (page.scheduled) return;
  page.scheduled = true;
  requestAnimationFrame(() => {
    page.scheduled = false;
    if (page.symbol) draw();
  });
}

function draw() {
  const shown = view();
  heat.draw(shown, theme.name);
  $("heat").dataset.drawn = heat.drawn;
  if (performance.now() - page.texts >= TEXT_EVERY_MS) showTexts(shown);
}

function showTexts(shown) {
  page.texts = performance.now();
  const row = universe.row(page.symbol);
  const past = page.right !== null;
  const book = past ? newestBook(shown.columns) : columns.frame?.book ?? null;
  const observed = past ? Boolean(shown.columns.at(-1)) : columns.frame?.to > now() - PENDING_MS;
  ladder.show(book);
  alerts.show(past ? shown.right : now());
  document.body.classList.toggle("old", !observed);
  showFigures(book, row, past);
  const venue = (past ? "" : columns.frame?.venue) || row?.venue || "";
  const present = past ? null : row; // what is known of the symbol holds for the present alone
  const next = present?.state === "wait" && present.next !== null ? `next turn ${nextText(present)}` : "";
  const state = present ? stateText(present) : "";
  set($("where"), [venue, past ? "as it was then" : state, next, present?.reason].filter(Boolean).join(" \u00b7 "));
  $("where").dataset.bad = present && isStale(present) ? "yes" : "no";
  $("pause").setAttribute("aria-pressed", String(past));
  $("live").disabled = !past;
  const behind = duration(Math.max(0, now() - shown.right) / 1000);
  set($("position"), past ? `${utcClock(shown.right, 1)} UTC, ${behind} ago` : "");
  $("position").dataset.past = past ? "yes" : "no";
}

function showFigures(book, row, past) {
  const [bid, ask] = [book?.[2][0], book?.[3][0]];
  const sizes = bid && ask ? bid[1] + ask[1] : 0;
  const age = past ? null : row?.age ?? null;
  set(figures.bid, price(bid?.[0]) || "-");
  set(figures.ask, price(ask?.[0]) || "-");
  set(figures.spread, spread(bid?.[0], ask?.[0]) || "-");
  set(figures.imbalance, sizes ? signed((bid[1] - ask[1]) / sizes) : "-");
  set(figures["rows/s"], past || !columns.frame ? "-" : columns.frame.rate.toFixed(columns.frame.rate < 100 ? 1 : 0));
  set(figures.age, duration(age));
}

function makeFigures(list, names) {
  return Object.fromEntries(names.map((name) => {
    const [pair, term, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    value.className = name;
    value.dataset.figure = name;
    pair.append(term, value);
    list.append(pair);
    return [name, value];
  }));
}

function showPairs(list, pairs) {
  while (list.children.length > pairs.length) list.lastChild.remove();
  pairs.forEach(([name, text], at) => {
    let pair = list.children[at];
    if (!pair) {
      pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      list.append(pair);
    }
    set(pair.firstChild, name);
    set(pair.lastChild, text);
  });
}

// ---- the pointer and the keys

function drag(event) {
  const canvas = $("heat");
  const from = { x: event.clientX, right: page.right ?? edge() };
  canvas.setPointerCapture(event.pointerId);
  canvas.classList.add("dragging");
  const move = (moved) => {
    const pixels = moved.clientX - from.x;
    if (Math.abs(pixels) > 2 || page.right !== null) moveTo(from.right - (pixels * page.span * 1000) / heat.width);
  };
  const end = () => {
    canvas.classList.remove("dragging");
    canvas.removeEventListener("pointermove", move);
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", end, { once: true });
  canvas.addEventListener("pointercancel", end, { once: true });
}

function point(event) {
  page.cursor = event.pointerType === "mouse" ? { x: event.offsetX, y: event.offsetY } : null;
  schedule();
}

function neighbour(by) {
  const { symbols } = universe;
  if (!symbols.length) return;
  const at = symbols.indexOf(page.symbol);
  choose(symbols[(at + by + symbols.length) % symbols.length]);
}

function zoomBy(by) {
  const at = SPANS.findIndex(([secs]) => secs === page.span) + by;
  if (SPANS[at]) zoom(SPANS[at][0]);
}

const KEYS = {
  j: () => neighbour(1), ArrowDown: () => neighbour(1), k: () => neighbour(-1), ArrowUp: () => neighbour(-1),
  ArrowLeft: () => moveTo((page.right ?? edge()) - page.span * 100), ArrowRight: () => moveTo((page.right ?? edge()) + page.span * 100),
  " ": pause, p: pause, 0: () => moveTo(Infinity), Escape: () => moveTo(Infinity),
  "+": () => zoomBy(-1), "=": () => zoomBy(-1), "-": () => zoomBy(1),
  "/": () => $("filter").focus(), a: () => foldAlerts(), t: () => switchTheme(), "?": () => $("help").showModal(),
};

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target === $("filter")) {
    if (event.key === "Escape" || event.key === "Enter") leaveFilter(event.key === "Enter");
    return;
  }
  if (event.target.closest?.("button") && (event.key === " " || event.key === "Enter")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function leaveFilter(chosen) {
  if (chosen && universe.symbols.length) choose(universe.symbols[0]);
  $("filter").value = "";
  $("filter").blur();
  universe.show();
}

function foldAlerts() {
  alerts.fold();
  schedule();
}

function switchTheme() {
  const name = theme.name === "dark" ? "light" : "dark";
  localStorage.setItem("theme", name);
  theme.set(name);
}

// ---- the beginning

function begin() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const given = asked.get("theme") ?? localStorage.getItem("theme");
  theme.set(["light", "dark"].includes(given) ? given : dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => !given && theme.set(dark.matches ? "dark" : "light"));
  for (const [secs, text] of SPANS) {
    const button = document.createElement("button");
    button.type = "button";
    button.value = secs;
    button.textContent = text;
    button.addEventListener("click", () => zoom(secs));
    $("spans").append(button);
  }
  zoom(page.span);
  const narrow = matchMedia("(max-width: 820px)");
  const place = () => $("ladder").classList.toggle("sides", narrow.matches);
  narrow.addEventListener("change", place);
  place();
  $("pause").addEventListener("click", pause);
  $("live").addEventListener("click", () => moveTo(Infinity));
  $("theme").addEventListener("click", switchTheme);
  $("keys").addEventListener("click", () => $("help").showModal());
  $("heat").addEventListener("pointerdown", drag);
  $("heat").addEventListener("pointermove", point);
  $("heat").addEventListener("pointerleave", () => { page.cursor = null; schedule(); });
  addEventListener("keydown", press);
  addEventListener("resize", () => zoom(page.span));
  document.addEventListener("visibilitychange", () => {
    connection.watch(document.hidden ? "" : page.symbol);
    columns.interrupt();
  });
  setInterval(tick, 500);
}

/** Ages go on growing while no state comes. */
function grow() {
  const since = page.state ? (now() - page.state.now) / 1000 : 0;
  if (since < AGING_SECS) return;
  universe.rows.forEach((row, at) => {
    row.age = page.ages[at] === null ? null : page.ages[at] + since;
  });
  universe.show();
}

/** A browser that draws less than half of the frames that it gets thins them itself. */
function checkPace() {
  const { frames, drawn, slow } = page.pace;
  page.pace = { frames: 0, drawn: heat.drawn, slow: frames > 4 && heat.drawn - drawn < frames / 2 ? slow + 1 : 0 };
  if (slow > 1) page.thinned = performance.now();
}

/** What moves also while nothing comes: the clock, ages, lanes, what is known of the connection, missing tiles. */
function tick() {
  if (page.heard) set($("clock"), `${utcClock(now())} UTC`);
  checkPace();
  showLink();
  grow();
  const present = now();
  universe.drawLanes(page.right ?? present, present, Math.min(present, page.known + PENDING_MS), theme.colours);
  if (page.symbol && page.connected) {
    const { first, last } = view();
    columns.need(first, Math.min(last, columns.index(now()) - 1), performance.now());
  }
  schedule();
}

begin();
