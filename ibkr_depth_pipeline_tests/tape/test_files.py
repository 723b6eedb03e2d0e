"""A tape on disk: read as it was written, in bounded parts that can be read alone, up to where a writer was killed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ibkr_depth_pipeline.tape.files import (
    LinkEvent,
    Read,
    TapeWriter,
    UnreadableTape,
    parts_of,
    read_entries,
    read_head,
)
from ibkr_depth_pipeline.tape.messages import Way

ROW = ["12", "1", "7", "0", "0", "1", "150.25", "300"]


def rows(count: int, first: int = 0) -> list[Read]:
    return [Read(number, 1, Way.GATEWAY, 30, [[*ROW, str(number * 7919)]]) for number in range(first, first + count)]


def writer_of(stem: Path, part_bytes: int = 1 << 20, parts: int = 20) -> TapeWriter:
    return TapeWriter(stem, part_bytes=part_bytes, parts=parts, made_by="a test")


def test_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    entries = [LinkEvent(1, 1, "opened"), *rows(50), Read(9, 1, Way.CLIENT, 5, [{"type": 3, "fields": 9, "bytes": 5}])]
    writer = writer_of(tmp_path / "spy")
    writer.write(entries)
    writer.close()
    assert list(read_entries(tmp_path / "spy")) == entries
    assert list(read_entries(tmp_path / "spy-0001.tape.gz")) == entries
    assert read_head(tmp_path / "spy")["made_by"] == "a test"


def test_parts_are_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "spy", part_bytes=2_000, parts=3)
    for number in range(40):
        writer.write(rows(200, number * 200))
        writer.flush()
    writer.close()
    parts = parts_of(tmp_path / "spy")
    assert len(parts) == 3
    assert parts[0].name != "spy-0001.tape.gz"
    found = [entry.at for entry in read_entries(tmp_path / "spy") if isinstance(entry, Read)]
    assert found == list(range(found[0], 8_000))


def test_no_part_goes_while_there_are_no_more_than_are_kept(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "spy", part_bytes=1, parts=20)
    for number in range(20):
        writer.write(rows(1, number))
        writer.flush()
    writer.close()
    assert [entry.at for entry in read_entries(tmp_path / "spy") if isinstance(entry, Read)] == list(range(20))


def test_part_of_a_later_time_names_the_connections_that_are_open(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "spy", part_bytes=1)
    writer.write([LinkEvent(1, 1, "opened"), LinkEvent(2, 2, "opened"), LinkEvent(3, 1, "closed")])
    writer.write(rows(1))
    writer.close()
    last = list(read_entries(parts_of(tmp_path / "spy")[-1]))
    assert next((entry.connection, entry.name) for entry in last if isinstance(entry, LinkEvent)) == (2, "opened")


def test_tapes_whose_names_begin_alike_are_told_apart(tmp_path: Path) -> None:
    for name in ("spy", "spy-0001", "spy[1]", "spy-2"):
        writer = writer_of(tmp_path / name)
        writer.write(rows(1))
        writer.close()
    assert [path.name for path in parts_of(tmp_path / "spy")] == ["spy-0001.tape.gz"]
    assert [path.name for path in parts_of(tmp_path / "spy[1]")] == ["spy[1]-0001.tape.gz"]


def test_part_whose_writer_was_killed_is_read_up_to_its_end(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "spy")
    writer.write(rows(1))
    head = (tmp_path / "spy-0001.tape.gz").stat().st_size
    writer.write(rows(99, 1))
    writer.flush()
    part = tmp_path / "spy-0001.tape.gz"
    assert list(read_entries(part)) == rows(100)
    writer.write(rows(1000, 100))
    writer.close()
    for length in range(head, part.stat().st_size, 97):
        (tmp_path / "cut-0001.tape.gz").write_bytes(part.read_bytes()[:length])
        found = list(read_entries(tmp_path / "cut"))
        assert found == rows(1100)[: len(found)]


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"{}\n"), gzip.compress(b'{"format": "other"}\n')],
    ids=["empty", "text", "no format", "another format"],  # what is compressed holds the time
)
def test_file_that_is_no_tape_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x-0001.tape.gz"
    path.write_bytes(content)
    with pytest.raises(UnreadableTape, match="x-0001"):
        list(read_entries(path))


def test_tape_that_is_not_there_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTape, match="no such tape"):
        list(read_entries(tmp_path / "nothing"))
