// The alerts: a line with what is open and what came last, which unfolds to all; as they stood at any time.
//
// An alert is [ts, severity, headline, text, cleared, until], times in unix ms: when its all-clear came, and up to when its
// trouble lasted as far as is known; null for what has not been. Texts are only ever set as text.

import { duration, utcClock } from "./drawing/format.js";
import { set } from "./drawing/ladder.js";

const SIGNS = { bad: "\u25b2 trouble", good: "\u2713 all-clear", warn: "\u25cf notice" };
const DAY_MS = 86_400_000;

const isOpen = ([ts, , , , , until], at) => until !== null && ts <= at && at < until;

/** Whether it is over, in words; "" for what has no end. */
function stateOf(alert, at) {
  const [ts, , , , cleared, until] = alert;
  if (until === null) return "";
  if (isOpen(alert, at)) return `open for ${duration((at - ts) / 1000)}`;
  return cleared === null ? "no all-clear" : `cleared ${clock(cleared, at)}`;
}

/** With its date, if that is not the one of `at`. */
function clock(ts, at) {
  const far = Math.floor(ts / DAY_MS) !== Math.floor(at / DAY_MS);
  return `${far ? `${new Date(ts).toISOString().slice(0, 10)} ` : ""}${utcClock(ts)}`;
}

export class Alerts {
  lane = { spans: [], marks: [] };
  #alerts = [];
  #rows = [];

  /** elements: { panel, toggle, tally, latest, list }. */
  constructor(elements) {
    Object.assign(this, elements);
    this.toggle.addEventListener("click", () => this.fold());
  }

  /** All that the server knows of, in order of their time, and the lane that they make. */
  take({ alerts, lane }) {
    this.#alerts = alerts;
    this.lane = lane;
  }

  /** Unfold the list, or fold it. */
  fold() {
    this.list.hidden = !this.list.hidden;
    this.toggle.setAttribute("aria-expanded", String(!this.list.hidden));
  }

  /** Show what had been raised by unix ms `at`, in the state of then. */
  show(at) {
    const raised = this.#alerts.filter(([ts]) => ts <= at).reverse();
    const open = raised.filter((alert) => isOpen(alert, at));
    this.panel.dataset.open = open.length;
    set(this.tally, raised.length ? `${open.length || "none"} open` : "none");
    const newest = open[0] ?? raised[0];
    set(this.latest, newest ? this.#line(newest, at) : "");
    this.latest.dataset.severity = newest?.[1] ?? "";
    if (!this.list.hidden) this.#list(raised, at);
  }

  #line(alert, at) {
    const [ts, severity, headline] = alert;
    return [SIGNS[severity], clock(ts, at), headline, stateOf(alert, at)].filter(Boolean).join(" \u00b7 ");
  }

  #list(raised, at) {
    while (this.#rows.length > raised.length) this.#rows.pop().row.remove();
    while (this.#rows.length < raised.length) this.#rows.push(this.#make());
    raised.forEach((alert, index) => {
      const { row, time, sign, headline, outcome, text } = this.#rows[index];
      row.dataset.severity = alert[1];
      row.dataset.open = isOpen(alert, at) ? "yes" : "no";
      set(time, clock(alert[0], at));
      set(sign, SIGNS[alert[1]]);
      set(headline, alert[2]);
      set(text, alert[3]);
      set(outcome, stateOf(alert, at));
    });
  }

  #make() {
    const row = document.createElement("li");
    const parts = { time: "time", sign: "span", headline: "strong", outcome: "em", text: "p" };
    const made = Object.fromEntries(Object.entries(parts).map(([name, tag]) => {
      const part = document.createElement(tag);
      part.className = name;
      row.append(part);
      return [name, part];
    }));
    this.list.append(row);
    return { row, ...made };
  }
}
