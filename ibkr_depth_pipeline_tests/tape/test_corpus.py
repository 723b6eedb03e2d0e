"""The recorder on each tape of corpus/ stores exactly the books that the tape's rows make, by the reference book."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.gateway.wire import read_depth
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.tape.messages import message_of
from ibkr_depth_pipeline.tape.player import TapePlayer
from ibkr_depth_pipeline.tape.script import Answer, Script, read_scripts
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*-0001.tape.gz"))
ROW_KINDS, RESET = ("12", "13"), "317"
DEPTH_ROWS = 15


def test_corpus_is_there() -> None:
    assert CORPUS


@pytest.mark.parametrize("tape", CORPUS, ids=lambda path: path.name)
async def test_recorder_stores_the_books_that_the_tapes_rows_make(redis_url: str, tape: Path) -> None:
    (script,) = read_scripts(tape)
    wanted = dict(subscriptions(script))
    async with TapePlayer([script], "127.0.0.1", 0, speed=0) as player:
        async with recording(player, redis_url, universe_of(*map(entry_of, wanted))) as run:  # type: ignore[arg-type]
            for symbol, books in wanted.items():
                await run.until(lambda symbol=symbol, books=books: holds(run, symbol, len(books)))  # type: ignore[misc]
            await run.stop()
            for symbol, books in wanted.items():
                assert [(stored.bids, stored.asks) for stored in await run.stream(symbol)] == books


async def holds(run: Any, symbol: str, count: int) -> bool:
    return bool(await run.length(symbol) >= count)


def subscriptions(script: Script) -> Iterator[tuple[str, list[Any]]]:
    """Each symbol with the books of its first subscription, as they are stored: ten rows a side."""
    for question, answers in script.answers.items():
        if question[0] == "10":
            book, books = OrderBook(DEPTH_ROWS, question[8]), []
            for _, fields, _ in answers[0].messages:
                if fields[0] in ROW_KINDS:
                    read = read_depth(message_of(fields))
                    assert isinstance(read, tuple)
                    assert book.apply(read[1]) is None
                elif fields[3] == RESET:
                    book.reset()
                else:
                    continue
                books.append((shown(book.bids), shown(book.asks)))
            yield symbol_of(script, question[1]), books


def symbol_of(script: Script, con_id: str) -> str:
    """The symbol that was asked for when the contract was found: a depth request has its id alone."""
    found = (question for question, answers in script.answers.items() if question[0] == "9" and has(answers, con_id))
    return next(question[2] for question in found if question[2])


def has(answers: Iterable[Answer], con_id: str) -> bool:
    return any(con_id in fields for answer in answers for _, fields, _ in answer.messages)


def shown(side: Any) -> list[list[Any]]:
    levels = [list(level) for level in side[:SNAPSHOT_LEVELS]]
    return levels + [[0.0, 0.0, ""]] * (SNAPSHOT_LEVELS - len(levels))


def entry_of(symbol: str) -> SymbolSpec:
    return SymbolSpec(symbol, hours="always")  # its details list the hours of the day on which the tape was made
