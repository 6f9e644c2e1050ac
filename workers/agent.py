"""The agent: claims trials, has training processes run them, brings what they say to the service.

It loads no Keras. One loop owns all state and takes its events from one queue: what the training
processes say (a thread for each), what was claimed (a thread), what the service answered (a thread), and
signals. If one of these threads ends, the worker ends.

```
service <- claims ------- Claimer --+
service <- what happened - Courier -+-- queue --> Agent <--> training process, one per slot
```
"""

from __future__ import annotations

import logging
import math
import queue
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from studies.client import Client
from studies.errors import TaskError, TaskFileError, TrainerFailed
from studies.protocol import (
    MAX_BATCH,
    Answer,
    Assignment,
    ClaimRequest,
    TrialRelease,
    TrialResult,
    WorkerInfo,
)
from studies.trial import score
from workers import side_thread
from workers.courier import Answered, Claimed, Claimer, Courier
from workers.pipe import Abandon, Dropped, Ended, Epoch, Hello, Quit, Raised, Stop, Train, TrainerMessage, Unusable
from workers.process import TrainingProcess
from workers.side_thread import SideThreadFailed
from workers.signals import told_of_signals

log = logging.getLogger(__name__)

TRAINER_COMMAND = (sys.executable, "-P", "-m", "workers.child")
"""How a training process is started; -P keeps a folder called `workers` in the current one out of the way."""
CLAIM_WAIT_SECONDS = 20.0
"""How long a claim may wait for a trial to become ready before it is asked anew."""
QUIT_SECONDS = 2.0
"""How long the training processes may take to drop their trials when the worker ends."""
FLUSH_SECONDS = 5.0
"""How long the end of the worker may take to bring the service what is left to say."""
STARTS_IN_A_ROW = 3
"""So many training processes that die before they are ready end the worker."""
PROCESS_SECONDS = 900.0
"""So old, a training process is replaced when its trial ends: TensorFlow 2.21 keeps 1.5 MB and more of each model."""


def run_agent(
    server: str | Client,
    *,
    name: str | None = None,
    slots: int = 1,
    tasks: Sequence[str] = (),
    trainer_command: Sequence[str] = TRAINER_COMMAND,
    report_interval_seconds: float = 1.0,
) -> int:
    """Work for a service until SIGTERM or SIGINT; the exit code, 0.

    server: its address, or a client of it. name: shown to people; left out, the host's.
    slots: how many trials run side by side, each in a training process of its own.
    tasks: files and modules with tasks besides the built-in ones.
    trainer_command: starts a training process; the descriptor of its end of the pipe and the tasks follow.

    On the signal the trials that run are handed back, within QUIT_SECONDS + FLUSH_SECONDS; a SIGINT after
    that ends the process at once.
    Raises TaskFileError if the tasks cannot be loaded, TaskError if none of them can be run here,
    TrainerFailed if no training process can be started, and Refused if the service does not accept
    what the worker says.
    """
    client = Client(server) if isinstance(server, str) else server
    agent = _Agent(
        client,
        name=name or socket.gethostname(),
        slots=slots,
        command=[*trainer_command],
        task_specs=[*tasks],
        report_interval=report_interval_seconds,
    )
    with told_of_signals(agent.ask_to_end):
        agent.run()
    return 0


# --- what happens, besides what workers.courier tells


@dataclass(frozen=True)
class _Said:
    """A training process has said something."""

    process: TrainingProcess
    message: TrainerMessage


@dataclass(frozen=True)
class _Died:
    """A training process is dead, and everything that it said has been told."""

    process: TrainingProcess


@dataclass(frozen=True)
class _AskedToEnd:
    """A signal has come."""

    signal_name: str


_Event = _Said | _Died | _AskedToEnd | Claimed | Answered | SideThreadFailed


# --- what is known


@dataclass
class _Slot:
    """A place for one trial at a time.

    ready: its process has announced its tasks and takes trials; retiring: it has been told to quit.
    """

    number: int
    process: TrainingProcess | None = None
    started_at: float = 0.0
    ready: bool = False
    retiring: bool = False
    failed_starts: int = 0
    start_at: float = 0.0
    run: _Run | None = None


@dataclass
class _Run:
    """A trial on lease; without a slot it waits for one."""

    assignment: Assignment
    slot: _Slot | None = None
    told_to_stop: bool = False
    values: list[tuple[int, float | None]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The trial, for the log."""
        a = self.assignment
        if a.phase == "range_test":
            return f"{a.study}/{a.task} range test"
        return f"{a.study}/{a.task}/{a.schedule} {a.phase} trial {a.number}"

    def verdict(self, outcome: str) -> str:
        """How it went, for the log."""
        found = score(self.values, self.assignment.direction)
        best = self.assignment.at == "best_validation"
        value, epoch = (found.best, found.best_epoch) if best else (found.last, found.last_epoch)
        if value is None:
            return outcome
        return f"{outcome}, {self.assignment.metric} {value:.5g} at epoch {epoch}, {len(self.values)} epochs"


class _Agent:
    def __init__(
        self,
        client: Client,
        *,
        name: str,
        slots: int,
        command: Sequence[str],
        task_specs: Sequence[str],
        report_interval: float,
    ) -> None:
        self._id = uuid.uuid4().hex
        self._name = name
        self._url = client.url
        self._command = command
        self._task_specs = task_specs
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._claimer = Claimer(client, self._events.put)
        self._courier = Courier(client, self._id, report_interval, self._events.put)
        self._slots = [_Slot(number) for number in range(slots)]
        self._hello: Hello | None = None
        self._claiming = False
        self._runs: dict[str, _Run] = {}
        """The trials on lease, by token."""
        self._unanswered_ends: set[str] = set()

    def ask_to_end(self, signal_name: str) -> None:
        """Have `run` hand the trials back and return. For signal handlers."""
        # SimpleQueue.put may be called by a handler that interrupts this very queue's get.
        self._events.put(_AskedToEnd(signal_name))

    def run(self) -> None:
        """Work until asked to end. Raises what has gone wrong where the worker cannot go on."""
        log.info("worker %s (%s), %d slots, for %s", self._name, self._id, len(self._slots), self._url)
        self._claimer.start()
        self._courier.start()
        try:
            while True:
                self._start_processes()
                self._fill_slots()
                event = self._next_event(self._next_start_at())
                if isinstance(event, _AskedToEnd):
                    log.info("%s: handing back what is not finished", event.signal_name)
                    return
                if event is not None:
                    self._handle(event)
        finally:
            self._end()

    # --- the loop's steps

    def _start_processes(self) -> None:
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at:
                slot.process = TrainingProcess(self._command, self._task_specs)
                slot.started_at = time.monotonic()
                side_thread.start(f"slot {slot.number}", partial(self._listen, slot.process), self._events.put)

    def _listen(self, process: TrainingProcess) -> None:
        for message in process.messages():
            self._events.put(_Said(process, message))
        self._events.put(_Died(process))

    def _fill_slots(self) -> None:
        idle = [slot for slot in self._slots if slot.ready and slot.run is None]
        for run in [run for run in self._runs.values() if run.slot is None][: len(idle)]:
            self._start_run(run, idle.pop(0))
        # Results first: what is sampled for the next trial may depend on them.
        if idle and self._hello is not None and not self._claiming and not self._unanswered_ends:
            self._claiming = True
            self._claimer.claim(self._claim_request(self._hello, len(idle)))

    def _claim_request(self, hello: Hello, slots: int) -> ClaimRequest:
        worker = WorkerInfo(
            id=self._id,
            name=self._name,
            slots=len(self._slots),
            backend=hello.backend,
            versions=hello.versions,
        )
        return ClaimRequest(
            request_id=uuid.uuid4().hex,
            worker=worker,
            tasks=hello.tasks,
            unavailable=hello.unavailable,
            slots=min(slots, MAX_BATCH),
            wait_seconds=CLAIM_WAIT_SECONDS,
        )

    def _start_run(self, run: _Run, slot: _Slot) -> None:
        assert slot.process is not None
        run.slot, slot.run = slot, run
        slot.process.start_log_anew()
        slot.process.send(Train(assignment=run.assignment))
        if run.told_to_stop:
            slot.process.send(Stop(token=run.assignment.token))
        log.info("%s: started (attempt %d)", run.label, run.assignment.attempt)

    def _next_start_at(self) -> float:
        return min((slot.start_at for slot in self._slots if slot.process is None), default=math.inf)

    def _next_event(self, until: float) -> _Event | None:
        """The next event, or None if there is none until this instant."""
        if until == math.inf:
            return self._events.get()
        try:
            return self._events.get(timeout=max(until - time.monotonic(), 0.0))
        except queue.Empty:
            return None

    # --- events

    def _handle(self, event: _Event) -> None:
        match event:
            case _Said(process, message):
                self._on_message(self._slot_of(process), message)
            case _Died(process):
                self._on_death(self._slot_of(process), process)
            case Claimed(trials):
                self._on_claimed(trials)
            case Answered(token, final, answer):
                self._on_answer(token, final, answer)
            case SideThreadFailed(error):
                raise error

    def _on_message(self, slot: _Slot, message: TrainerMessage) -> None:
        match message:
            case Hello():
                self._on_hello(slot, message)
            case Unusable(reason=reason):
                raise TaskFileError(reason)
            case Epoch(token=token, record=record):
                if (run := self._runs.get(token)) is not None:
                    run.values.append((record.epoch, record.metrics.get(run.assignment.metric)))
                    self._courier.add(token, record)
            case Ended() | Raised() | Dropped():
                slot.run = None
                self._on_run_over(message)
                self._retire_if_old(slot)

    def _on_hello(self, slot: _Slot, hello: Hello) -> None:
        if not hello.tasks:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in hello.unavailable.items())
            raise TaskError(f"no task can be run here: {reasons}")
        slot.ready = True
        slot.failed_starts = 0
        if self._hello is None:
            log.info("tasks: %s", ", ".join(manifest.name for manifest in hello.tasks))
            for name, reason in hello.unavailable.items():
                log.info("task %s cannot be run here: %s", name, reason)
        self._hello = hello

    def _on_run_over(self, message: Ended | Raised | Dropped) -> None:
        if isinstance(message, Dropped) or (run := self._runs.pop(message.token, None)) is None:
            return
        if isinstance(message, Raised):
            self._release(run, "crashed", message.reason, message.traceback)
            return
        result = message.model_dump(exclude={"kind"})
        self._tell_end(TrialResult(trial_id=run.assignment.trial_id, **result))
        log.info("%s: %s", run.label, run.verdict(message.outcome))

    def _retire_if_old(self, slot: _Slot) -> None:
        if slot.process is not None and time.monotonic() - slot.started_at > PROCESS_SECONDS:
            slot.ready, slot.retiring = False, True
            slot.process.send(Quit())

    def _on_death(self, slot: _Slot, process: TrainingProcess) -> None:
        how, log_end = process.how_it_died(), process.log_end()
        process.close()
        run, was_ready, retired = slot.run, slot.ready, slot.retiring
        slot.process, slot.run, slot.ready, slot.retiring = None, None, False, False
        if run is not None and self._runs.pop(run.assignment.token, None) is not None:
            self._release(run, "crashed", how, log_end)
        if retired:
            return
        if was_ready:
            log.warning("slot %d: %s; starting a fresh one", slot.number, how)
            return
        slot.failed_starts += 1
        if slot.failed_starts >= STARTS_IN_A_ROW:
            raise TrainerFailed(f"{how} before it was ready, {slot.failed_starts} times in a row:\n{log_end}")
        log.warning("slot %d: %s before it was ready; starting another", slot.number, how)
        slot.start_at = time.monotonic() + 0.5 * 2.0 ** (slot.failed_starts - 1)

    def _on_claimed(self, trials: Sequence[Assignment]) -> None:
        self._claiming = False
        for assignment in trials:
            if assignment.token in self._runs:
                continue
            for old in [run for run in self._runs.values() if run.assignment.trial_id == assignment.trial_id]:
                self._drop(old, "its lease is void, there is a new one")
            self._runs[assignment.token] = _Run(assignment)
            self._courier.hold(assignment)

    def _on_answer(self, token: str, final: bool, answer: Answer) -> None:
        if final:
            self._unanswered_ends.discard(token)
            if answer.status != 200:
                log.warning("trial %d: the service did not take its end: %s", answer.trial_id, answer.detail)
            return
        if answer.status != 200:
            # An end that was to follow will not be sent any more.
            self._unanswered_ends.discard(token)
        run = self._runs.get(token)
        if run is None:
            return
        if answer.status != 200 or answer.command == "abandon":
            self._drop(run, answer.detail or "the service wants no more of it")
        elif answer.command == "stop" and not run.told_to_stop:
            run.told_to_stop = True
            self._send(run, Stop(token=token))

    # --- how a run ends

    def _drop(self, run: _Run, why: str) -> None:
        token = run.assignment.token
        del self._runs[token]
        self._courier.drop(token)
        self._send(run, Abandon(token=token))
        log.info("%s: abandoned, %s", run.label, why)

    def _release(self, run: _Run, cause: Literal["preempted", "crashed"], reason: str, log_end: str = "") -> None:
        self._tell_end(
            TrialRelease(
                trial_id=run.assignment.trial_id,
                token=run.assignment.token,
                cause=cause,
                reason=reason,
                log_end=log_end,
            )
        )
        log.log(logging.WARNING if cause == "crashed" else logging.INFO, "%s: %s, %s", run.label, cause, reason)

    def _tell_end(self, end: TrialResult | TrialRelease) -> None:
        self._unanswered_ends.add(end.token)
        self._courier.end(end)

    def _send(self, run: _Run, message: Stop | Abandon) -> None:
        if run.slot is not None and run.slot.process is not None:
            run.slot.process.send(message)

    def _slot_of(self, process: TrainingProcess) -> _Slot:
        return next(slot for slot in self._slots if slot.process is process)

    # --- the end

    def _end(self) -> None:
        """Let the processes drop their trials, hand back all that is on lease, bring out what is unsaid."""
        try:
            self._quit_processes()
            for run in self._runs.values():
                self._release(run, "preempted", "the worker was told to end")
            unsaid = self._courier.close(FLUSH_SECONDS)
            if unsaid:
                log.warning("the service cannot be reached: %d trials stay on lease until it runs out", unsaid)
        finally:
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.close()
        log.info("worker %s ended", self._name)

    def _quit_processes(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send(Quit())
                if not slot.ready:
                    slot.process.kill()
        until = time.monotonic() + QUIT_SECONDS
        while any(slot.process is not None for slot in self._slots):
            event = self._next_event(until)
            match event:
                case None:
                    return
                case _Died(process):
                    slot = self._slot_of(process)
                    process.close()
                    slot.process = None
                case _Said(process, Epoch() | Ended() | Raised() | Dropped() as message):
                    self._on_message(self._slot_of(process), message)
                case Claimed(trials):
                    self._on_claimed(trials)
