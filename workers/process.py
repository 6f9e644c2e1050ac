"""A training process as the agent sees it: started, spoken to, watched until it has died."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from studies.text import storable
from workers.deaths import cause_of_death, oom_kills
from workers.pipe import TRAINER_MESSAGES, Pipe, TrainerMessage

log = logging.getLogger(__name__)

PRINTED_BYTES = 4096
"""How much of the log's end is kept beside an exception, which has its own traceback."""
LOG_END_BYTES = 16_384
"""How much is kept of a process that has died or hangs: it may have written down a hundred calls of its stack."""
EXIT_SECONDS = 5.0
"""How long a process that has closed its pipe, or was killed, may take to exit."""
STACK_SIGNAL = signal.SIGUSR1
"""Makes a training process write to its log where each of its Python threads is."""


class TrainingProcess:
    """One training process. Its output goes to a log, a file without a name that ends with the process.

    quiet_since: when something of it was last heard, or a trial was last sent to it (`time.monotonic`).
    """

    def __init__(
        self, command: Sequence[str], task_specs: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
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
                env=environment,
                pass_fds=[theirs.fileno()],
                # A Ctrl-C in the terminal goes to the whole group, and is for the agent to answer.
                process_group=0,
            )
        self._oom_kills = oom_kills()
        self.quiet_since = time.monotonic()
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
            self.quiet_since = time.monotonic()
            yield TRAINER_MESSAGES.validate_json(line)
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def ask_for_stack(self) -> None:
        """Have the process write to its log where it is; it does so even while it is stuck in a library."""
        self._process.send_signal(STACK_SIGNAL)

    def send_kill(self) -> None:
        """Kill the process, and what it has started, without waiting for the death; `messages` ends with it."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        self.send_kill()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            # So it is with a process that waits for a device in the kernel: no signal reaches it there.
            log.warning("the training process %d was killed, and does not die", self.pid)

    def start_trial(self) -> None:
        """Forget the log so far, and what has died of lack of memory: what is kept is about the trial that comes."""
        self._log.truncate(0)
        self._oom_kills = oom_kills()
        self.quiet_since = time.monotonic()

    def log_end(self, most_bytes: int = LOG_END_BYTES) -> str:
        """The last of what the process has written."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - most_bytes, 0))
        return storable(self._log.read().decode(errors="replace"))

    def how_it_died(self) -> str:
        """The exit code or the signal, in words."""
        code = self._process.returncode
        if code is None:
            return "the training process was killed, and does not die"
        return cause_of_death(code, self._oom_kills, oom_kills())

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
