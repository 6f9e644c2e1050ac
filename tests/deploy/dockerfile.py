"""Does what a Dockerfile says without Docker: its COPYs into a folder, its RUNs there, with a virtual environment.

Enough of the language for the Dockerfiles of this repository; whatever else they say is an error. An absolute
path in ENV, ENTRYPOINT or CMD is taken for one inside the image, and RUN must have relative ones only, so nothing
outside the folder is touched.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

BASE = "python:3.12-slim"
OWN_VARIABLES = ("LR_ARENA_", "PYTHON", "VIRTUAL_ENV", "KERAS_", "TF_")
"""What the tests' own process may have set, and an image has not."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, and the rest."""

    word: str
    rest: str


@dataclass
class Image:
    """A stage as far as it is built."""

    root: Path
    base: str
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    folder: PurePosixPath = field(default_factory=lambda: PurePosixPath("/"))
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def path(self, inside: str | PurePosixPath) -> Path:
        """Where a path of the image is on this machine."""
        return self.root / (self.folder / inside).relative_to("/")

    def here(self, word: str) -> str:
        """A word of the image's as it must be on this machine, if it is a path."""
        return str(self.path(word)) if word.startswith("/") else word

    def surroundings(self, venv: Path) -> dict[str, str]:
        """The environment of a process of the image; here pip keeps what it has downloaded, and compiles nothing."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        own = {name: self.here(value) for name, value in self.environment.items() if name != "PIP_NO_CACHE_DIR"}
        # 0: pip takes this one, an option that switches something off, by the value that it sets.
        return {**kept, **self.arguments, **own, "PIP_NO_COMPILE": "0", "PATH": f"{venv / 'bin'}:/usr/bin:/bin"}

    def arguments_of(self, command: Sequence[str] | None = None) -> list[str]:
        """What a container of the image starts; `command` takes the place of the image's own."""
        return [self.here(word) for word in [*self.entrypoint, *(self.command if command is None else command)]]


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, in order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [Instruction(*line.strip().split(maxsplit=1)) for line in joined.splitlines()]


def context_of(tree: Path, folder: Path) -> Path:
    """A copy of what .dockerignore lets through: the names after a !, without compiled files and databases."""
    patterns = [line for line in (tree / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    assert patterns[0] == "*", "all that is not named stays out"
    named = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    left_out = [pattern.removeprefix("**/") for pattern in patterns[1:] if not pattern.startswith("!")]
    folder.mkdir()
    for name in named:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, folder / name, ignore=shutil.ignore_patterns(*left_out))
        else:
            shutil.copy(tree / name, folder / name)
    return folder


def build(
    file: Path,
    context: Path,
    folder: Path,
    run: Callable[[str, Image], None],
    arguments: Mapping[str, str] | None = None,
) -> Image:
    """The last stage of a Dockerfile. `run` does what a RUN says, such as `partial(run_with, venv)`."""
    stages: dict[str, Image] = {}
    image: Image | None = None
    for step in instructions(file.read_text()):
        if step.word == "FROM":
            base, _, name = step.rest.partition(" AS ")
            image = stages[name] = Image(folder / f"stage{len(stages)}", base)
            image.root.mkdir(parents=True)
            continue
        assert image is not None
        match step.word:
            case "ARG":
                name, _, default = step.rest.partition("=")
                image.arguments[name] = (arguments or {}).get(name, default)
            case "ENV":
                for pair in shlex.split(step.rest):
                    name, _, value = pair.partition("=")
                    image.environment[name] = value
            case "WORKDIR":
                image.folder = image.folder / step.rest
                image.path(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(step.rest, image, stages, context)
            case "RUN":
                run(step.rest, image)
            case "USER":
                image.user = step.rest
            case "ENTRYPOINT":
                image.entrypoint = json.loads(step.rest)
            case "CMD":
                image.command = json.loads(step.rest)
            case "EXPOSE":
                pass
            case _:
                raise AssertionError(f"{step.word} is not known here")
    assert image is not None
    return image


def run_with(venv: Path, command: str, image: Image) -> None:
    """Run a command of the image in its folder, with the programs of `venv` before the system's."""
    assert not re.search(r"""(^|[\s='">])/""", command), f"RUN has a path that is not relative: {command}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=image.path("."),
        env=image.surroundings(venv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"RUN {command}\n{done.stdout}"


def _copy(rest: str, image: Image, stages: Mapping[str, Image], context: Path) -> None:
    words = shlex.split(rest)
    source_root = context
    if words[0].startswith("--from="):
        source_root = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    for source in sources:
        found = source_root / source.lstrip("/")
        if found.is_dir():  # as Docker does it: what is in the folder, not the folder
            shutil.copytree(found, image.path(target), dirs_exist_ok=True)
        else:
            into = image.path(target)
            shutil.copy(found, into / found.name if target.endswith("/") else into)
