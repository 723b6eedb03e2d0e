"""`ibkr_depth_watch` as a process, on a terminal and off it, beside a real recording."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.status import store_alerts
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of
from ibkr_depth_pipeline_tests.web.market import RecordedMarket

COMMAND = (sys.executable, "-m", "ibkr_depth_pipeline.cli.depth_watch")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|4[0-7]|38|48)(?:;\d+)*m")


def environment(redis_url: str, **more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**plain, "REDIS_URL": redis_url, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **more}


@pytest.fixture
async def run(shared_redis_url: str) -> AsyncIterator[Recording]:
    async with SimulatedGateway(GatewayOptions(refusals={"QQQ": 354})) as gateway:
        universe = universe_of("SPY", "QQQ", "AAPL")
        async with recording(gateway, shared_redis_url, universe, ibkr_rotation_secs=1) as run:
            await run.grows("SPY", 20)
            await run.grows("AAPL", 20)
            yield run


class Terminal:
    """A terminal, the `ibkr_depth_watch` that runs on it, and what it wrote."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.process: asyncio.subprocess.Process
        self.text = ""
        self.everything = ""
        self.theirs = theirs
        self._ours = ours
        os.set_blocking(ours, False)

    async def shows(self, text: str) -> None:
        """Wait until `text` was written since the last call. The test's timeout bounds it."""
        while text not in self.text:
            more = self.rest()
            self.text += more
            self.everything += more
            await asyncio.sleep(0.01)
        self.text = self.text.split(text, 1)[1]

    def rest(self) -> str:
        """What was written and not read yet."""
        try:
            return os.read(self._ours, 65536).decode(errors="replace")
        except BlockingIOError:
            return ""

    def types(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    async def ends_well(self) -> None:
        """Wait for the end, which must be without an error."""
        ending = asyncio.ensure_future(self.process.communicate())
        while not ending.done():  # a terminal that nobody reads would hold it up
            self.everything += self.rest()
            await asyncio.sleep(0.01)
        assert ending.result() == (None, b"")
        assert self.process.returncode == 0


@asynccontextmanager
async def on_terminal(
    env: dict[str, str], *arguments: str, keyboard: bool = True, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[Terminal]:
    """`ibkr_depth_watch` on a pseudo-terminal; neither outlives the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    terminal = Terminal(ours, theirs)
    terminal.process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=env, stdin=theirs if keyboard else -3, stdout=theirs, stderr=-1
    )
    try:
        yield terminal
    finally:
        if terminal.process.returncode is None:
            terminal.process.kill()
            await terminal.process.communicate()
        os.close(ours)
        os.close(theirs)


async def once(redis_url: str, *arguments: str, **more: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=environment(redis_url, **more), stdin=-3, stdout=-1, stderr=-1
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_watch_once_prints_the_ladder_and_the_universe(run: Recording, shared_redis_url: str) -> None:
    code, output, errors = await once(shared_redis_url, "--once", "AAPL", COLUMNS="80")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("AAPL ISLAND ")
    assert [line.split()[0] for line in lines[13:]] == ["SPY", "QQQ", ">AAPL"]
    assert re.search(r" QQQ +n/a", output)
    assert "\x1b" not in output


async def test_table_shows_the_coverage_that_the_ingest_published(run: Recording, shared_redis_url: str) -> None:
    cover = re.compile(r"^.(SPY|AAPL) .* [1-9]\d*%$", re.MULTILINE)
    output = ""
    while set(cover.findall(output)) != {"SPY", "AAPL"}:  # the figures come every 2 s; the test's timeout bounds it
        _, output, _ = await once(shared_redis_url, "--once")


async def test_wide_frame_shows_who_held_a_slot_when(run: Recording, shared_redis_url: str) -> None:
    output = ""
    while not re.search(r"^.SPY .*[\u2588\u258c]\u00b7*$", output, re.MULTILINE):  # the test's timeout bounds it
        code, output, _ = await once(shared_redis_url, "--once", COLUMNS="140")
        assert code == 0
    assert output.splitlines()[12].rstrip().endswith("slot, last 5 min")


async def test_terminal_without_utf8_gets_ascii(run: Recording, shared_redis_url: str) -> None:
    code, output, errors = await once(shared_redis_url, "--once", PYTHONIOENCODING="ascii")
    assert (code, errors) == (0, "")
    assert re.search(r"[#-]+ +\S+ +\d+ +\d+\.\d\d +\d+\.\d\d +\d+", output)


async def test_once_without_redis_is_an_error() -> None:
    code, output, errors = await once("redis://:hunter2@127.0.0.1:1/0", "--once")
    assert (code, output) == (1, "")
    assert errors.startswith("error: Redis at ")
    assert "REDIS_URL=redis://HOST:PORT/0" in errors
    assert "hunter2" not in errors


async def test_empty_redis_is_shown_as_such(shared_redis_url: str) -> None:
    code, output, _ = await once(shared_redis_url, "--once")
    assert code == 0
    assert "no ingest runs, and none has left figures" in output


async def test_terminal_is_updated_live_and_keys_are_obeyed(run: Recording, shared_redis_url: str) -> None:
    async with on_terminal(environment(shared_redis_url), "--every", "0.1") as terminal:
        await terminal.shows("\x1b[?1049h")
        await terminal.shows(">SPY")
        terminal.types("\x1b[B")
        await terminal.shows(">QQQ")
        terminal.types("k")
        await terminal.shows(">SPY")
        terminal.types(" ")
        await terminal.shows("PAUSED")
        terminal.types(" q")
        await terminal.shows("\x1b[?1049l")
        await terminal.ends_well()
        after = termios.tcgetattr(terminal.theirs)
        assert after[3] & termios.ECHO
        assert after[3] & termios.ICANON


async def test_table_is_filtered_and_sorted_and_a_symbol_chosen_by_typing(
    run: Recording, shared_redis_url: str
) -> None:
    async with on_terminal(environment(shared_redis_url), "--every", "0.1", size=(160, 50)) as terminal:
        await terminal.shows(">")
        terminal.types("/aap\n")
        await terminal.shows("filter: aap")
        await terminal.shows(">AAPL")
        terminal.types("\x1b")
        await terminal.shows("QQQ")
        terminal.types("s")
        await terminal.shows("symbol\u25b2")
        terminal.types("?")
        await terminal.shows("next, previous symbol")
        terminal.types("xq")
        await terminal.ends_well()


async def test_alerts_of_a_real_redis_and_the_lanes_alone_come_by_key(run: Recording, shared_redis_url: str) -> None:
    away = Alert(unix_ms() - 5_000, AlertKind.TROUBLE, "gateway", "IBKR depth default: feed stale", "Likely cause: x.")
    await store_alerts(shared_redis_url, "default", [away])
    async with on_terminal(environment(shared_redis_url), "--every", "0.1") as terminal:
        await terminal.shows("alerts: 1 open")
        terminal.types("a")
        await terminal.shows("Likely cause: x.")
        terminal.types("w")
        await terminal.shows("who held a slot when, last 5 min")
        terminal.types("q")
        await terminal.ends_well()


async def test_time_goes_back_and_on_by_the_arrows(run: Recording, shared_redis_url: str) -> None:
    async with on_terminal(environment(shared_redis_url), "--every", "0.1", size=(120, 40)) as terminal:
        await terminal.shows(">")
        terminal.types("\x1b[D")
        await terminal.shows("PAUSED")
        terminal.types("0q")
        await terminal.ends_well()


async def test_time_goes_back_to_what_the_stream_held_before_this_watch_began(shared_redis_url: str) -> None:
    market, now = RecordedMarket(shared_redis_url), unix_ms()
    market.redis.delete(stream_key("SPY"))
    market.row("SPY", 111.5, ts=now - 600_000)
    market.turn("SPY", now - 600_000, now - 590_000)
    market.row("SPY", 222.5)
    async with on_terminal(environment(shared_redis_url), "--every", "0.1", "SPY", size=(160, 50)) as terminal:
        await terminal.shows("222.50")
        await terminal.shows("slot, last 5 min")
        terminal.types("h" * 119)  # 595 s
        await terminal.shows("595 s back")
        await terminal.shows("111.50")
        terminal.types("h" * 60)
        await terminal.shows("the books of then")
        await terminal.shows("60")  # no further than the stream: 600 s and some
        terminal.types("0")
        await terminal.shows("222.50")
        terminal.types("q")
        await terminal.ends_well()
    market.close()


async def test_output_without_redis_says_once_what_to_do_and_goes_on_when_it_answers(
    redis_server: EmbeddedRedis,
) -> None:
    redis_server.kill()
    env = environment(redis_server.url, TERM="dumb")
    async with on_terminal(env, "--every", "0.1", keyboard=False) as terminal:
        await terminal.shows("REDIS_URL=redis://HOST:PORT/0")
        redis_server.restart()
        await terminal.shows("ibkr_ingest_run run")
        assert terminal.everything.count("NO REDIS") == 1
        terminal.process.send_signal(signal.SIGTERM)
        await terminal.ends_well()


@pytest.mark.parametrize(("more", "wanted"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
async def test_colours_are_only_used_if_wanted(
    run: Recording, shared_redis_url: str, more: dict[str, str], wanted: bool
) -> None:
    async with on_terminal(environment(shared_redis_url, **more), "--once") as terminal:
        await terminal.shows("SPY")
        await terminal.shows("AAPL")
        await terminal.ends_well()
        assert bool(COLOUR.search(terminal.everything)) is wanted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_dumb_terminal_gets_frame_after_frame_until_a_signal(
    run: Recording, shared_redis_url: str, number: signal.Signals
) -> None:
    env = environment(shared_redis_url, TERM="dumb")
    async with on_terminal(env, "--every", "0.1", keyboard=False) as terminal:
        for _ in range(3):
            await terminal.shows("ingest default runs")
        assert "\x1b" not in terminal.everything
        terminal.process.send_signal(number)
        await terminal.ends_well()


async def test_loss_and_return_of_redis_are_shown(redis_server: EmbeddedRedis) -> None:
    async with on_terminal(environment(redis_server.url), "--every", "0.1", "SPY") as terminal:
        await terminal.shows("no ingest runs")
        redis_server.kill()
        await terminal.shows("NO REDIS")
        redis_server.restart()
        await terminal.shows("no ingest runs")
        terminal.types("q")
        await terminal.shows("\x1b[?1049l")
        await terminal.ends_well()
