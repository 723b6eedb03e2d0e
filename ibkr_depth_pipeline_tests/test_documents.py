"""The tests that README.md and docs/ name exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
DOCUMENTS = [TESTS.parent / "README.md", *sorted((TESTS.parent / "docs").glob("*.md"))]
NAMED = re.compile(r"(?P<file>(?:\w+/)*test_\w+\.py)(?:::(?P<test>\w+))?|`(?P<alone>test_\w+)`")


@cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def all_tests() -> frozenset[str]:
    files = (str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py"))
    return frozenset().union(*map(defined_in, files))


def missing_from(text: str) -> list[str]:
    """What the text names and the suite does not have: files of tests, tests of a file, tests."""
    missing = []
    for found in NAMED.finditer(text):
        file, test, alone = found["file"], found["test"], found["alone"]
        if file is None:
            missing += [] if alone in all_tests() else [alone]
        else:
            file = file.removeprefix(f"{TESTS.name}/")
            exists = (TESTS / file).is_file() and (test is None or test in defined_in(file))
            missing += [] if exists else [found[0]]
    return missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_named_in_a_document_exists(document: Path) -> None:
    assert missing_from(document.read_text(encoding="utf-8")) == []


def test_names_that_do_not_exist_are_found() -> None:
    own = f"test_documents.py::{test_names_that_do_not_exist_are_found.__name__}"
    assert missing_from(f"see `{own}` and `test_documents.py`") == []
    assert missing_from("`test_documents.py::test_no_such`") == ["test_documents.py::test_no_such"]
    assert missing_from("`faults/test_no_such.py` or `test_none`") == ["faults/test_no_such.py", "test_none"]
