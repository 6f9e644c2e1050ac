"""A training process as the agent sees it: started, spoken to, watched until it has died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from workers.pipe import TRAINER_MESSAGES, Pipe, TrainerMessage

LOG_END_BYTES = 4096
"""How much of the log's end is kept of a process that has died."""
EXIT_SECONDS = 5.0
"""How long a process that has closed its pipe may take to exit."""


class TrainingProcess:
    """One training process. Its output goes to a log, a file without a name that ends with the process."""

    def __init__(self, command: Sequence[str], task_specs: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed in `close`
        # What the process writes goes to the end, also after this side has read or emptied the log.
        fcntl.fcntl(self._log, fcntl.F_SETFL, fcntl.fcntl(self._log, fcntl.F_GETFL) | os.O_APPEND)
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), *task_specs],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                # A Ctrl-C in the terminal goes to the whole group, and is for the agent to answer.
                process_group=0,
            )
        self._ours = ours
        self._pipe = Pipe(ours)
        threading.Thread(target=self._end_the_pipe_with_the_process, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, message: BaseModel) -> None:
        """Send a message. If the process is dead it is lost: `messages` ends, and tells what to do about it."""
        with contextlib.suppress(OSError):
            self._pipe.send(message)

    def messages(self) -> Iterator[TrainerMessage]:
        """What the process says, until it is dead."""
        for line in self._pipe.lines():
            yield TRAINER_MESSAGES.validate_json(line)
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def start_log_anew(self) -> None:
        """Forget the log so far: what is kept is about the trial that comes."""
        self._log.truncate(0)

    def log_end(self) -> str:
        """The last of what the process has written."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - LOG_END_BYTES, 0))
        return self._log.read().decode(errors="replace")

    def how_it_died(self) -> str:
        """The exit code or the signal, in words."""
        code = self._process.returncode
        if code >= 0:
            return f"the training process exited with code {code}"
        name = signal.Signals(-code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the training process was killed by {name}{hint}"

    def close(self) -> None:
        """Kill the process if need be, and free what it held here."""
        self.kill()
        self._ours.close()
        self._log.close()

    def _end_the_pipe_with_the_process(self) -> None:
        # A process forked by a task may outlive its parent and hold the other end open.
        self._process.wait()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
