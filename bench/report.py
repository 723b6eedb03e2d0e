"""What was measured -> Markdown. Pure. A figure of several runs is shown as `median (lowest to highest)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.figures import table
from bench.latency import BARE_XADD, RECORDER
from bench.reading import BARE as BARE_ARROW
from bench.reading import BARE_POLARS, OURS, OURS_POLARS
from bench.throughput import BARE, CRYPTOFEED, PLAIN, REDIS_LIMITS, THIS

Results = dict[str, Any]


def markdown(results: Results) -> str:
    """The whole report. Parts that were not measured are left out."""
    blocks = [f"Measured {results['when']} with `{results['command']}`.", _machine(results["machine"])]
    for part, render in _PARTS.items():
        if part in results:
            blocks += render(results[part])
    blocks.append(_failures(results["failures"]))
    return "\n\n".join(blocks) + "\n"


def _machine(machine: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in machine.items())


def _failures(failures: Sequence[str]) -> str:
    if not failures:
        return "Every book that was checked is right and no row is missing."
    return "**Failed:**\n\n" + "\n".join(f"- {failure}" for failure in failures)


def _span(figure: dict[str, float] | None, form: str = ",.0f") -> str:
    if figure is None:
        return "-"
    return f"{figure['median']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"


def _throughput(rows: list[Results]) -> list[str]:
    ours = next(row for row in rows if row["name"] == THIS)["rate"]
    cells = [
        (
            row["name"],
            _span(row["rate"]),
            f"{row['rate']['spread']:.0%}",
            f"{ratio(ours, row['rate']):.2f}",
            _span(row.get("cpu"), ".1f"),
            row["books"],
        )
        for row in rows
    ]
    head = ("what", "rows a second", "spread", "this / it", "CPU s per million rows", "books checked")
    targets = table(("target", "wanted", "measured", ""), [*_ratios(rows, ours), _memory(rows)])
    return ["## Throughput, with every setting at its default", table(head, cells), targets]


def _memory(rows: list[Results]) -> tuple[str, str, str, str]:
    rss = next(row["rss_mb"]["high"] for row in rows if row["name"] == THIS)
    return ("RSS at full speed, MB", "< 200", f"{rss:.0f}", _met(rss < 200))


def ratio(ours: Results, theirs: Results) -> float:
    """The median of the rounds' own ratios: what else the machine did in a round slowed both."""
    return float(median(a / b for a, b in zip(ours["runs"], theirs["runs"], strict=True)))


def _ratios(rows: list[Results], ours: Results) -> list[tuple[str, str, str, str]]:
    rates = {row["name"]: row["rate"] for row in rows}
    limit = max((rates[name] for name in REDIS_LIMITS if name in rates), key=lambda rate: float(rate["median"]))
    wanted = ((f"of {BARE}", rates[BARE], 0.8), (f"of {PLAIN}", rates[PLAIN], 12.0))
    return [
        (name, f">= {least:g}", f"{ratio(ours, rate):.2f}", _met(ratio(ours, rate) >= least))
        for name, rate, least in (
            ("of Redis's limit", limit, 0.20),
            *wanted,
            (f"of {CRYPTOFEED}", rates[CRYPTOFEED], 2.0),
        )
    ]


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _latency(rows: list[Results]) -> list[str]:
    cells = [(f"{row['rate']:,}", row["name"], *(_span(row[p], ".2f") for p in ("p50", "p90", "p99"))) for row in rows]
    head = ("rows a second", "what", "p50 ms", "p90 ms", "p99 ms")
    targets = table(("target", "wanted", "measured", ""), _latency_targets(rows))
    return ["## Latency, from the gateway's bytes to a blocked XREAD", table(head, cells), targets]


def _latency_targets(rows: list[Results]) -> list[tuple[str, str, str, str]]:
    """Its delay beside a bare XADD's; and, without a target, that of the shortest program that takes the same way."""
    of = {(row["rate"], row["name"]): row for row in rows}
    found = []
    for rate, at, most in ((1_000, "p50", 2.0), (1_000, "p99", 3.0), (10_000, "p50", 3.0), (10_000, "p99", 3.0)):
        for (other, name), row in of.items():
            if other == rate and name != BARE_XADD:
                times = ratio(row[at], of[rate, BARE_XADD][at])
                wanted, met = (f"<= {most:g}", _met(times <= most)) if name == RECORDER else ("", "")
                found.append((f"{at} at {rate:,}, {name}, of the bare way's", wanted, f"{times:.2f}", met))
    return found


def _slots(rows: list[Results]) -> list[str]:
    cells = [
        (
            row["how"],
            f"{row['dwell']:g}",
            f"{row['secs']:.0f}",
            f"{row['share']:.1%}",
            row["refused_309"],
            f"{row['worst_gap']:.2f}",
            f"{row['ideal_gap']:.2f}",
            f"{row['gap_ratio']:.3f}",
        )
        for row in rows
    ]
    head = ("how", "dwell s", "seconds", "live", "309s", "worst gap s", "ideal s", "ratio")
    return ["## Slot use, 11 symbols in 3 slots", table(head, cells)]


def _growth(rows: list[Results]) -> list[str]:
    cells = [
        (
            row["what"],
            f"{row['value']:,}",
            f"{row['rate']:,.0f}",
            f"{row['cpu']:.1f}",
            f"{row['rss_mb']:.0f}",
            "-" if row["what"] == "MAXLEN" else f"{row['redis_bytes'] / row['rows']:.0f}",
            f"{row['redis_bytes'] / 1e6:.1f}",
        )
        for row in rows
    ]
    head = ("of", "value", "rows a second", "CPU s per million", "RSS MB", "bytes in Redis per snapshot", "MB in Redis")
    return ["## Cost, and how it grows (one recording a row)", table(head, cells)]


def _lone_row(rows: list[Results]) -> list[str]:
    names = list(rows[0]["steps"])
    cells = [(name, *(f"{row['steps'][name]:.0f}" for row in rows)) for name in names]
    head = ("step, median in us", *(f"{row['rate']:,} rows a second" for row in rows))
    return ["## A lone row, step by step", table(head, cells)]


def _launched(rows: list[Results]) -> list[str]:
    return ["## Launched in Dagster", *_start(rows)[1:]]


def _start(rows: list[Results]) -> list[str]:
    cells = [(f"{row['symbols']:,}", f"{row['first_secs']:.2f}", f"{row['again_secs']:.2f}") for row in rows]
    head = ("symbols", "seconds to the first row", "with the contracts of the last day")
    return ["## Start", table(head, cells)]


def _whole(found: Results) -> list[str]:
    """One table; its last line is what the deployment costs beside what the recorder alone takes for the same rows."""
    costs = {where: {cost["name"]: cost for cost in each} for where, each in found.items()}
    own = 100 * costs["recording without Dagster"]["recorder"]["cores"]
    kinds = list(dict.fromkeys(kind for each in costs.values() for kind in each))
    rows = [(kind, *(_cost([each[kind]]) if kind in each else "" for each in costs.values())) for kind in kinds]
    rows.append(("all", *(_cost(list(each.values())) for each in costs.values())))
    beside = {where: 100 * sum(each["cores"] for each in costs[where].values()) - own for where in _RECORDING}
    rows.append(("all but the rows' own cost", *(f"{beside[where]:.1f}" if where in beside else "" for where in costs)))
    met = (
        ("recording, MB", "<= 700", f"{_mb(costs['recording']):.0f}", _met(_mb(costs["recording"]) <= 700)),
        ("recording, % beside the rows' own", "<= 5", f"{beside['recording']:.1f}", _met(beside["recording"] <= 5)),
        ("without Dagster, MB", "<= 250", f"{(mb := _mb(costs[_RECORDING[1]])):.0f}", _met(mb <= 250)),
    )
    return [
        "## The whole",
        f"PSS in MB, % of a core. The rows' own cost is the recorder's by its command: {own:.1f} %.",
        table(("process", *costs), rows),
        table(("target", "wanted", "measured", ""), met),
    ]


_RECORDING = ("recording", "recording without Dagster")


def _cost(processes: list[Results]) -> str:
    return f"{sum(each['pss_mb'] for each in processes):.0f}, {100 * sum(each['cores'] for each in processes):.1f}"


def _mb(processes: Results) -> float:
    return float(sum(each["pss_mb"] for each in processes.values()))


def _tap(rows: list[Results]) -> list[str]:
    cells = [(f"{row['rate']:,}", row["name"], _span(row["p50"], ".3f"), _span(row["p99"], ".3f")) for row in rows]
    p99 = {row["name"]: row["p99"]["median"] for row in rows if row["rate"] == 10_000}
    added = p99["tap"] - p99["no tap"]
    target = ("added at p99, 10,000 rows a second", "< 0.2 ms", f"{added:.3f} ms", _met(added < 0.2))
    head = ("rows a second", "with", "p50 ms", "p99 ms")
    return [
        "## What the tap adds, from the gateway's socket to the client's",
        table(head, cells),
        table(("target", "wanted", "measured", ""), [target]),
    ]


def _flight_recorder(found: Results) -> list[str]:
    off = found["off"]
    cells = [
        (
            way,
            _span(each["rate"]),
            f"{ratio(each['rate'], off['rate']):.3f}",
            _span(each["cpu"], ".2f"),
            _span(each["rss_mb"]),
            _span(each["p50"], ".2f"),
            _span(each["p99"], ".2f"),
        )
        for way, each in found.items()
    ]
    head = ("flight recorder", "rows a second", "of off", "CPU s per million", "RSS MB", "p50 ms", "p99 ms")
    return ["## The flight recorder, at full speed, and delays at 10,000 rows a second", table(head, cells)]


def _web(found: Results) -> list[str]:
    browser = found["browser"]
    frames = table(
        ("target", "wanted", "measured", ""),
        [
            ("frames a second", ">= 30", f"{browser['fps']:.1f}", _met(browser["fps"] >= 29.5)),
            ("cores, browser and server", "< 1", f"{browser['cores']:.2f}", _met(browser["cores"] < 1)),
        ],
    )
    parts = f"Of these the server takes {browser['server']:.3f}; the symbol had {browser['rows']:,.0f} rows a second."
    slow = found["slow"]
    throttled = (
        f"A browser whose processor is throttled to a twentieth drew {slow['fps']:.1f} frames a second and showed "
        f"that it is thinned {slow['thinned']:.0%} of the time; the server's peak was then {slow['rss']:.0f} MB."
    )
    cells = [
        (
            f"{row['viewers']}",
            f"{row['pace']:g}" if row["pace"] else "all",
            f"{row['cores']:.3f}",
            f"{row['fps']:.1f}",
            f"{row['thinned']:.1f}",
            f"{row['kb']:.0f}",
            f"{row['rss_mb']:.0f}",
        )
        for row in found["viewers"]
    ]
    head = (
        "viewers",
        "messages handled a second",
        "cores of the server",
        "frames a second, each",
        "left out a second, each",
    )
    return ["## The web page", frames, parts, throttled, table((*head, "kB a second, each", "peak RSS MB"), cells)]


def _dagster(found: Results) -> list[str]:
    share = ratio(found["Dagster"]["rate"], found["CLI"]["rate"])
    cells = [
        (name, _span(each["rate"]), _span(each["cpu"], ".1f"), _span(each["rss_mb"])) for name, each in found.items()
    ]
    head = ("inside", "rows a second", "CPU s per million", "RSS MB")
    return [
        "## Dagster",
        table(head, cells),
        f"The job's throughput is {share:.2f} of the CLI's; {_met(share >= 0.95)}.",
    ]


def _event_log(found: Results) -> list[str]:
    return [
        f"Over {found['turns']:,} turns (a session of 6.5 hours has 1,560) the instance's databases grew by "
        f"{found['grown_bytes'] / 1e6:.2f} MB, and the run wrote {found['stderr_bytes'] / 1e6:.2f} MB to stderr."
    ]


def _profile(found: Results) -> list[str]:
    own = table(("function", "own"), [(name, f"{share:.1%}") for name, share in found["own"][:20]])
    total = table(("function", "with all it calls"), [(name, f"{share:.1%}") for name, share in found["total"][1:31]])
    samples = (
        f"{found['samples']:,} samples of py-spy, start left out, at {found['rate_while_sampled']:,.0f} rows a second"
    )
    return ["## Profile of the recorder at full speed", samples, own, total]


def _reading(found: Results) -> list[str]:
    of = {row["name"]: row for row in found["rows"]}
    cells = [(name, _span(row["secs"], ".2f"), _span(row["cpu"], ".2f")) for name, row in of.items()]
    targets = [
        (f"of {bare}", "<= 1.5", f"{share:.2f}", f"{ratio(of[ours]['cpu'], of[bare]['cpu']):.2f}", _met(share <= 1.5))
        for ours, bare in ((OURS, BARE_ARROW), (OURS_POLARS, BARE_POLARS))
        for share in (ratio(of[ours]["secs"], of[bare]["secs"]),)
    ]
    return [
        f"## Reading a day of {found['snapshots']:,} snapshots",
        table(("what", "seconds", "CPU s"), cells),
        table(("target", "wanted", "time", "CPU", ""), targets),
    ]


def _exports(found: Results) -> list[str]:
    cells = [
        (
            row["format"],
            f"{row['records']:,}",
            _span(row["rate"], ",.0f"),
            _span(row["secs"], ".2f"),
            f"{row['bytes'] / row['snapshots']:.1f}",
            f"{row['rss_mb']:,.0f}",
        )
        for row in found["rows"]
    ]
    rates = {row["format"]: row["rate"]["median"] for row in found["rows"]}
    target = ("records of dbn a second and core", ">= 200,000", f"{rates['dbn']:,.0f}", _met(rates["dbn"] >= 200_000))
    return [
        f"## Exporting a day of {found['snapshots']:,} snapshots",
        table(("format", "records", "records a CPU s", "seconds", "bytes a snapshot", "peak MB"), cells),
        table(("target", "wanted", "measured", ""), [target]),
    ]


def _years(found: Results) -> list[str]:
    steps = [step for step in found["SQLite"] if step != "checks stored"]
    cells = [(step, *(f"{found[name][step] / 1e6:.2f}" for name in ("SQLite", "Postgres"))) for step in steps]
    redis = found["redis"]
    return [
        "## What years leave behind: MB of Dagster's database, each step on top of the one before",
        table(("after", "SQLite", "Postgres"), cells),
        f"{found['SQLite']['checks stored']:,} checks; {redis['bytes_a_snapshot']:.0f} bytes a snapshot in Redis.",
        "Report: " + "; ".join(found["millions"]),
    ]


_PARTS: dict[str, Callable[[Any], list[str]]] = {
    "throughput": _throughput,
    "latency": _latency,
    "slots": _slots,
    "growth": _growth,
    "start": _start,
    "tap": _tap,
    "flight_recorder": _flight_recorder,
    "whole": _whole,
    "launched": _launched,
    "lone_row": _lone_row,
    "web": _web,
    "dagster": _dagster,
    "event_log": _event_log,
    "reading": _reading,
    "exports": _exports,
    "years": _years,
    "profile": _profile,
}
