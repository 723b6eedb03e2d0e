"""What the page's own modules make of frames and tiles, run in the browser: columns, pixels, lanes."""

from __future__ import annotations

from typing import Any

from ibkr_depth_pipeline.schema.intervals import EndReason
from ibkr_depth_pipeline_tests.web.conftest import Tab

BOOK = "const book = (ts, seq = 1) => [ts, seq, [[99.99, 500, 'A'], [99.98, 100, 'A']], [[100.01, 900, 'B']]];"


def run(tab: Tab, body: str) -> Any:
    """Run JavaScript beside the page's modules."""
    modules = """
        const { Columns } = await import('/assets/columns.js');
        const { HeatMap, priceGrid } = await import('/assets/drawing/heatmap.js');
        const { drawLane, laneOf, laneWords, whyUnobserved } = await import('/assets/drawing/lanes.js');
    """
    return tab.page.evaluate(f"async () => {{ {modules} {BOOK} {body} }}")


def test_unobserved_time_between_two_stretches_is_never_filled(workbench: Tab) -> None:
    kinds = run(
        workbench,
        """
        const columns = new Columns(() => {});
        columns.reset('SPY', 100);
        columns.take({ n: 1, book: book(1000), from: 1000, to: 1250 });
        columns.take({ n: 2, book: book(2010, 2), from: 2010, to: 2150 });
        return Array.from({ length: 14 }, (_, at) => {
            const column = columns.at(9 + at);
            return column ? column[0] : String(column);
        });
        """,
    )
    assert kinds == ["undefined", 1000, 1000, 1000, *["null"] * 7, 2010, 2010, "undefined"]


def test_frames_that_were_missed_leave_columns_to_be_asked_for(workbench: Tab) -> None:
    kinds = run(
        workbench,
        """
        const columns = new Columns(() => {});
        columns.reset('SPY', 100);
        columns.take({ n: 1, book: book(1000), from: 1000, to: 1000 });
        columns.take({ n: 9, book: book(1400, 9), from: 1000, to: 1400 });
        columns.take({ n: 10, book: book(1600, 10), from: 1000, to: 1600 });
        return [10, 11, 13, 14, 15, 16].map(at => columns.at(at)?.[0] ?? String(columns.at(at)));
        """,
    )
    assert kinds == [1000, "undefined", "undefined", 1400, 1400, 1600]


def test_map_shows_size_by_colour_and_hatches_what_was_not_observed(workbench: Tab) -> None:
    """Three equal parts: a book, unobserved time, the book again. Bids are blue, asks orange."""
    found = run(
        workbench,
        """
        const canvas = document.createElement('canvas');
        Object.assign(canvas.style, { width: '366px', height: '220px', position: 'fixed', left: 0, top: 0 });
        document.body.append(canvas);
        const columns = Array.from({ length: 30 }, (_, at) => (at >= 10 && at < 20 ? null : book(at * 100)));
        const view = { columns, start: 0, step: 100, right: 3000, edge: 2900, known: 2900, oldest: 0 };
        new HeatMap(canvas).draw(view, 'light');
        const { data } = canvas.getContext('2d').getImageData(0, 0, 366, 200);
        const colours = (from, to) => {
            const seen = { blue: 0, orange: 0, grey: 0 };
            for (let y = 0; y < 200; y += 1) for (let x = from; x < to; x += 1) {
                const [red, , blue] = data.slice((y * 366 + x) * 4, (y * 366 + x) * 4 + 3);
                if (blue - red > 60) seen.blue += 1;
                else if (red - blue > 60) seen.orange += 1;
                else if (red < 215) seen.grey += 1;
            }
            return seen;
        };
        const parts = [colours(5, 95), colours(108, 192), colours(205, 295)];
        canvas.remove();
        return parts;
        """,
    )
    first, middle, last = found
    assert first["blue"] > 100
    assert first["orange"] > 100
    assert first == last
    assert (middle["blue"], middle["orange"]) == (0, 0)
    assert middle["grey"] > 500


def test_scale_of_prices_stands_still_while_it_fits(workbench: Tab) -> None:
    first, near, far = run(
        workbench,
        """
        const side = (best, step) => [0, 1, 2, 3].map(row => [best + row * step, 100, '']);
        const at = (best) => [1, 1, side(best, -0.01), side(best + 0.01, 0.01)];
        const first = priceGrid([at(100)], null);
        return [first, priceGrid([at(100.01)], first), priceGrid([at(105)], first)];
        """,
    )
    assert near == first
    assert round(first["unit"], 6) == 0.01
    assert far["low"] > first["high"]


def test_lane_shows_the_wait_as_a_line_and_the_observed_time_as_a_bar(workbench: Tab) -> None:
    heights = run(
        workbench,
        """
        const canvas = document.createElement('canvas');
        Object.assign(canvas.style, { width: '200px', height: '17px', position: 'fixed', left: 0, top: 0 });
        document.body.append(canvas);
        const turns = [[50, 100, 150, 'turn_over'], [180, 190, null, '']];
        drawLane(canvas, laneOf(turns), 0, 200, { held: '#0000ff', line: '#ffffff' });
        const { data } = canvas.getContext('2d').getImageData(0, 0, 200, 17);
        const isBlue = (place) => data[place + 2] > 200 && data[place] < 50;
        const blue = (x) => Array.from({ length: 17 }, (_, y) => isBlue((y * 200 + x) * 4)).filter(Boolean).length;
        const found = [20, 75, 125, 160, 195].map(blue);
        canvas.remove();
        return found;
        """,
    )
    assert heights == [0, 2, 9, 0, 9]


def test_reason_of_unobserved_time_is_how_the_last_subscription_ended(workbench: Tab) -> None:
    said = run(
        workbench,
        """
        const turns = [[0, 10, 100, 'turn_over'], [200, null, 210, 'slot_refused'], [300, 350, 400, 'connection_lost']];
        return [150, 205, 250, 320, 500].map(time => whyUnobserved(laneOf(turns), time));
        """,
    )
    waits = "waits for its first row"
    assert said == ["its turn was over", waits, "no slot was free (309)", waits, "connection lost"]


def test_every_reason_of_an_end_has_words(workbench: Tab) -> None:
    for reason in set(EndReason) - {EndReason.UNKNOWN}:
        assert run(workbench, f"return whyUnobserved(laneOf([[0, 1, 2, '{reason.value}']]), 3);"), reason
