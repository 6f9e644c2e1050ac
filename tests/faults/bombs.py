"""Kills this very process with SIGKILL at a named point, once, when the test has laid a bomb there.

A bomb is a file in a folder; taking it away is atomic, so that of several processes one goes off.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

FOLDER = "ARENA_TEST_BOMBS"


def lay_in(folder: str) -> None:
    """Where this process and those it starts look for bombs."""
    os.environ[FOLDER] = folder


def pass_point(name: str) -> None:
    """Go on, or die here."""
    try:
        (Path(os.environ[FOLDER]) / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
