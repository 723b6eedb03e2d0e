"""The constraints files: versions alone, each within what pyproject.toml admits, and used by image, venv and CI."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ibkr_depth_pipeline_tests.conftest import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONSTRAINTS = REPOSITORY / "constraints"
FILES = sorted(CONSTRAINTS.glob("*.txt"))


def versions(path: Path) -> dict[str, Version]:
    pairs = [line.partition("==") for line in path.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


def requirements() -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *[each for extra in project["optional-dependencies"].values() for each in extra],
    ]
    found = [Requirement(each) for each in listed]
    return [each for each in found if each.name != project["name"] and not each.marker]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_names_the_command_that_makes_it_and_holds_versions_alone(path: Path) -> None:
    head, *_ = path.read_text().splitlines()
    assert head.startswith("# Made by: ")
    assert head.endswith("make constraints")
    assert not re.search(r"://|@|--", path.read_text())
    assert versions(path)


def test_every_dependency_has_a_version_that_pyproject_admits() -> None:
    for path in CONSTRAINTS.glob("python*.txt"):
        tested = versions(path)
        for requirement in requirements():
            assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), requirement


def test_image_installs_the_tested_versions_for_its_python() -> None:
    dockerfile = (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text()
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)", dockerfile, re.MULTILINE)
    (used,) = re.findall(r"--constraint (\S+)", dockerfile)
    assert used == f"constraints/python{python}.txt"
    assert (REPOSITORY / used).is_file()


def dry_run(*arguments: str) -> str:
    command = ["make", "-B", "-n", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def test_make_venv_installs_what_was_tested_and_make_newest_what_is_newest() -> None:
    here = CONSTRAINTS / "python{}.{}.txt".format(*sys.version_info)
    for target in ("venv", "test"):
        installs = [line for line in dry_run(target).replace("\\\n", "").splitlines() if "pip install" in line]
        assert installs
        assert all(("--constraint" in line) is here.is_file() for line in installs)
    newest = [line for line in dry_run("newest").splitlines() if "pip install" in line]
    assert newest
    assert all("--upgrade-strategy eager" in line and "--constraint" not in line for line in newest)
