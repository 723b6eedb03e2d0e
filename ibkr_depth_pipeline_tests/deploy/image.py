"""The image without Docker: a Debian root, the Dockerfile's steps carried out in it, and containers of it.

The steps are read from the Dockerfile itself. A container is a process with a root of its own that it can't write to,
as the image's user, without any capability: what compose.yaml asks for. It shares the machine's network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.deploy.debian_root import builder_environment, make_root, share_network

INCLUDED = ("python3", "python3-pip", "python3-venv", "ca-certificates", "util-linux", "passwd", "tini")
"""What the base image has, in Debian's packages; and Docker's init, which comes from the engine."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its word in capitals, and the rest of its line, continuations joined."""

    word: str
    rest: str


def read_steps(text: str) -> list[Step]:
    """The steps of a Dockerfile, in order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [Step(word.upper(), rest.strip()) for word, _, rest in parts]


@dataclass
class Image:
    """A root folder and what the Dockerfile says of the processes in it. `tool` makes the base: see `make_root`."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"}
    )
    folder: str = "/"
    user: str = "0"
    command: tuple[str, ...] = ()
    tool: str = ""

    def apply(self, step: Step, context: Path, ignored: Path) -> None:
        """Carry out one step. Raises ValueError for one that this reader does not know."""
        match step.word:
            case "FROM":
                self._base(step.rest)
            case "ENV":
                self.environment |= dict(word.split("=", 1) for word in shlex.split(step.rest))
            case "WORKDIR":
                self.folder = step.rest
                (self.root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(shlex.split(step.rest), context, ignored)
            case "RUN":
                self._run(step.rest)
            case "USER":
                self.user = step.rest
            case "CMD":
                self.command = tuple(json.loads(step.rest))
            case "EXPOSE":
                pass
            case _:
                raise ValueError(f"a step that is not known here: {step}")

    def _base(self, name: str) -> None:
        found = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-(\w+)", name)
        if found is None:
            raise ValueError(f"a base that is not known here: {name}")
        python, suite = found.groups()
        make_root(self.root, suite, INCLUDED, self.tool)
        for path in (self.root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
            path.unlink()  # the base image's Python is its own, not Debian's
        for link, target in {"python": "python3", "pip": "pip3"}.items():
            (self.root / "usr/local/bin" / link).symlink_to(f"/usr/bin/{target}")
        has = self._inside(["python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
        assert has == python, f"Debian's {suite} has Python {has}, the Dockerfile {python}"

    def _copy(self, words: Sequence[str], context: Path, ignored: Path) -> None:
        *sources, target = words
        kept = [line[1:] for line in ignored.read_text().splitlines() if line.startswith("!")]
        where = self.root / os.path.normpath(os.path.join(self.folder, target)).lstrip("/")
        for source in sources:
            assert any(Path(source).is_relative_to(each) for each in kept), f"{source} is ignored"
            if (context / source).is_dir():
                shutil.copytree(
                    context / source, where, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
                )
            else:
                into = where / Path(source).name if target.endswith("/") else where
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(context / source, into)

    def _run(self, line: str) -> None:
        share_network(self.root)
        self._inside(["/bin/sh", "-c", line], builder_environment())

    def _inside(self, command: Sequence[str], extra: Mapping[str, str] | None = None) -> str:
        env = {**(extra or {}), **self.environment, "HOME": "/root"}
        words = ["env", "-i", f"--chdir={self.folder}", *(f"{name}={value}" for name, value in env.items()), *command]
        done = subprocess.run(["chroot", str(self.root), *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-3000:]}"
        return done.stdout


def build_image(root: Path, dockerfile: Path, context: Path) -> Image:
    """The image that this Dockerfile describes, in the folder `root`."""
    image = Image(root)
    ignored = dockerfile.with_name(dockerfile.name + ".dockerignore")
    for step in read_steps(dockerfile.read_text()):
        image.apply(step, context, ignored)
    return image


_SET_UP = """set -e
root=$1; shift
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"; [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"; shift 3
done
shift
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the machine, seen at `inside`; that must exist in the image."""

    outside: Path
    inside: str
    writable: bool = False


def start_container(
    image: Image, command: Sequence[str], mounts: Sequence[Mount], environment: Mapping[str, str], log: Path
) -> Container:
    """Start `command` under an init, as `init: true` does, with `environment` besides the image's."""
    bound = [word for each in mounts for word in (str(each.outside), each.inside, "rw" if each.writable else "ro")]
    env = {**image.environment, **environment, "HOME": "/tmp"}
    rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _SET_UP, "set_up", str(image.root)]
    words += [*bound, "--", "setpriv", f"--reuid={image.user}", f"--regid={_group(image)}", "--clear-groups", *rights]
    words += ["env", "-i", f"--chdir={image.folder}", *(f"{name}={value}" for name, value in env.items())]
    return Container(GuardedProcess([*words, "tini", "--", *command], log_path=log, cwd=log.parent))


def _group(image: Image) -> str:
    entries = [line.split(":") for line in (image.root / "etc/passwd").read_text().splitlines()]
    return next(entry[3] for entry in entries if image.user in (entry[0], entry[2]))


class Container:
    """A running container; its init is `init`."""

    def __init__(self, process: GuardedProcess) -> None:
        self.process = process

    @property
    def init(self) -> psutil.Process:
        return next(each for each in psutil.Process(self.process.pid).children() if each.name() == "tini")

    def stop(self, grace_secs: float) -> bool:
        """SIGTERM to its init, as `docker stop`; whether all of it ended within the grace."""
        self.init.terminate()
        return wait_until(lambda: not self.process.running, grace_secs)

    def end(self) -> None:
        """All of it, at once."""
        self.process.end()
