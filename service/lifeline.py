"""Ends a child process when its supervisor is gone, however it went."""

from __future__ import annotations

import os
import signal
import threading


def end_with_parent(fd: int) -> None:
    """Send this process SIGTERM when the other end of the pipe closes."""

    def wait() -> None:
        os.read(fd, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
