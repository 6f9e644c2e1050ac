"""The training process: announces the tasks it can run, then trains one trial after another.

The agent starts it as `python -m workers.child FD [TASK_FILE_OR_MODULE ...]`, FD being its end of the
pipe. It lives no longer than the pipe: when the agent is gone, it ends itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from studies.errors import TaskError
from studies.protocol import EpochRecord
from workers.control import Control
from workers.deaths import says_out_of_memory
from workers.pipe import (
    AGENT_MESSAGES,
    Abandon,
    Dropped,
    Ended,
    Epoch,
    Hello,
    Note,
    Pipe,
    Progressed,
    Quit,
    Raised,
    Stop,
    Suspend,
    Train,
    Unusable,
)
from workers.process import STACK_SIGNAL

if TYPE_CHECKING:
    from workers.programs import Programs
    from workers.tasks import Task
    from workers.training import Keep, TrialEnd

REASON_CHARACTERS = 2000
"""How much of a reason's beginning is told."""
TRACEBACK_CHARACTERS = 4096
"""How much of a traceback's end is told."""
PULSE_SECONDS = 1.0
"""How often the agent is told, at most, that batches end."""


def main(arguments: Sequence[str]) -> int:
    """Serve the agent until told to quit; the exit code."""
    # What a signal means is for the agent to decide: a terminal or a supervisor may send it to all processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The Python lines that led to it go to the log: of a crash, and of a hang, where the agent asks for them.
    faulthandler.enable()
    faulthandler.register(STACK_SIGNAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Last, so that a module with tasks is found where the worker was started, but hides nothing installed.
    sys.path.append(str(Path.cwd()))
    end = socket.socket(fileno=int(arguments[0]))
    end.set_inheritable(False)
    pipe = Pipe(end)
    # Before the tasks, which take Keras and seconds to load: the agent may be gone by then.
    pulse = Pulse(pipe)
    inbox = Inbox(pipe, pulse)
    threading.Thread(target=inbox.listen, name="inbox", daemon=True).start()

    from workers.tasks import load

    try:
        tasks = load(arguments[1:])
    except TaskError as error:
        pipe.send(Unusable(reason=str(error)))
        return 1
    pipe.send(announcement(tasks, pulse))
    problems: dict[str, Programs] = {}
    while (order := inbox.next()) is not None:
        run(*order, tasks, problems, pipe)
    return 0


class Pulse:
    """Tells the agent, at most once every PULSE_SECONDS, that this process gets on."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._told_at = -math.inf

    def __call__(self) -> None:
        """Something has ended that takes a bounded time: a batch, or the making of a task."""
        now = time.monotonic()
        if now - self._told_at >= PULSE_SECONDS:
            self._told_at = now
            self._pipe.send(Progressed())


class Inbox:
    """The agent's commands: trials wait until they are asked for, wishes take effect at once."""

    def __init__(self, pipe: Pipe, pulse: Pulse) -> None:
        self._pipe = pipe
        self._pulse = pulse
        self._orders: queue.SimpleQueue[tuple[Train, Control] | None] = queue.SimpleQueue()
        self._token = ""
        self._control = Control()

    def listen(self) -> None:
        """Take commands; when the agent is gone, end the process."""
        for line in self._pipe.lines():
            match AGENT_MESSAGES.validate_json(line):
                case Train(assignment=assignment) as order:
                    self._token, self._control = assignment.token, Control(self._pulse)
                    self._orders.put((order, self._control))
                case Stop(token=token) if token == self._token:
                    self._control.stop()
                case Suspend(token=token) if token == self._token:
                    self._control.suspend()
                case Abandon(token=token) if token == self._token:
                    self._control.drop()
                case Quit():
                    self._control.drop()
                    self._orders.put(None)
        os._exit(0)

    def next(self) -> tuple[Train, Control] | None:
        """Wait for the next trial; None when there will be none."""
        return self._orders.get()


def announcement(tasks: dict[str, Task], pulse: Pulse) -> Hello:
    """What can be run here: every task is made once, for its fingerprint."""
    import keras

    from workers.tasks.fingerprint import fingerprint

    hello = Hello(tasks=[], unavailable={}, backend=keras.backend.backend(), versions=versions(), gpus=visible_gpus())
    for name, task in tasks.items():
        pulse()
        try:
            hello.tasks.append(task.manifest.model_copy(update={"fingerprint": fingerprint(task())}))
        except TaskError as error:
            hello.unavailable[name] = str(error)[:REASON_CHARACTERS]
        except Exception as error:  # noqa: BLE001 - a task is its author's code; the others still can be run
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} (line {where.lineno} of {where.filename})"
            hello.unavailable[name] = reason[:REASON_CHARACTERS]
    return hello


def visible_gpus() -> int | None:
    """How many GPUs the backend sees; None for a backend that is not asked."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow

            return len(tensorflow.config.list_physical_devices("GPU"))
        case "jax":
            import jax

            return sum(device.platform == "gpu" for device in jax.devices())
        case _:
            return None


def versions() -> dict[str, str]:
    """The versions on which results depend."""
    import keras
    import numpy as np

    backend = keras.backend.backend()
    return {
        "lr-arena": metadata.version("lr-arena"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "keras": keras.__version__,
        "numpy": np.__version__,
        backend: getattr(importlib.import_module(backend), "__version__", "unknown"),
    }


def run(order: Train, control: Control, tasks: dict[str, Task], problems: dict[str, Programs], pipe: Pipe) -> None:
    """Run one trial and tell the agent how it went; `problems` keeps what tasks already used have made."""
    assignment = order.assignment
    token = assignment.token

    def report(record: EpochRecord) -> None:
        pipe.send(Epoch(token=token, record=record))

    def note(text: str) -> None:
        pipe.send(Note(token=token, text=text[:REASON_CHARACTERS]))

    from workers.programs import Programs

    try:
        if assignment.task not in problems:
            problems[assignment.task] = Programs(tasks[assignment.task](), told=note)
        end = _carry_out(order, problems[assignment.task], report, note, control)
    except TaskError as error:
        pipe.send(Ended(token=token, outcome="failed", reason=str(error)[:REASON_CHARACTERS]))
    except Exception as error:  # noqa: BLE001 - whatever it was, the next trial may do better
        out_of_memory = says_out_of_memory(error)
        kind = "out of memory: " if out_of_memory else ""
        pipe.send(
            Raised(
                token=token,
                reason=f"{kind}{type(error).__name__}: {error}"[:REASON_CHARACTERS],
                traceback=traceback.format_exc()[-TRACEBACK_CHARACTERS:],
                out_of_memory=out_of_memory,
            )
        )
    else:
        pipe.send(
            Dropped(token=token)
            if end is None
            else Ended(
                token=token,
                outcome=end.outcome,
                train_seconds=end.train_seconds,
                test_best=end.test_best,
                test_last=end.test_last,
                steps_per_epoch=end.steps_per_epoch,
                range_curve=end.range_curve,
                model=end.model,
                reason=end.reason,
            )
        )


def _carry_out(
    order: Train,
    programs: Programs,
    report: Callable[[EpochRecord], None],
    note: Callable[[str], None],
    control: Control,
) -> TrialEnd | None:
    """Train, or, in the range_test phase, sweep the rates; None if the run was dropped.

    A sweep that was told to stop has no part worth keeping.
    """
    from workers.resuming import Checkpoint
    from workers.training import TrialEnd, train

    assignment = order.assignment
    if assignment.phase != "range_test":
        path, seconds = order.checkpoint, order.checkpoint_seconds
        checkpoint = Checkpoint(path, every_seconds=seconds, note=note) if path is not None else None
        return train(assignment, programs, report, control, checkpoint, _keeper(order, note, control))
    from workers.range_test import range_test

    started = time.perf_counter()
    curve = range_test(programs.problem, assignment.configuration, assignment.seed, control)
    seconds = time.perf_counter() - started
    if curve is None:
        return TrialEnd("pruned", seconds) if control.wish == "stop" else None
    return TrialEnd("completed", seconds, range_curve=curve)


def _keeper(order: Train, note: Callable[[str], None], control: Control) -> Keep | None:
    """What keeps the model of the run; None if none is to be kept."""
    address = order.models
    if address is None or order.assignment.phase != "confirm":
        return None
    import keras

    from workers import models

    return partial(
        models.keep,
        address,
        order.assignment,
        fingerprint=order.fingerprint,
        keras=keras.__version__,
        note=note,
        progress=control.batch_ended,
    )


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the libraries' own clean-up at exit, which takes long and has nothing left to save.
    os._exit(code)
