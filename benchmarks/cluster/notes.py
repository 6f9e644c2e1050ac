"""What the processes of a cluster write down for themselves: JSON lines that survive their writer's death."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIX = ".jsonl"


class Notes:
    """A file that lines are added to, by several threads and processes; a line is there once `write` returns."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event: str, **facts: Any) -> None:
        """Add a line, with the instant; all processes of the machine share the clock."""
        os.write(self._fd, json.dumps({"event": event, "at": time.monotonic(), **facts}).encode() + b"\n")


def read_notes(folder: Path, pattern: str = f"*{SUFFIX}") -> Iterator[dict[str, Any]]:
    """The lines of a folder's files, each with its `writer`, the file's name; one cut off by a kill is left out."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield {"writer": path.stem, **json.loads(line)}
