"""The two threads that speak with the service: one asks for trials, one brings what there is to say."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from studies.client import Client
from studies.protocol import (
    Answer,
    Answers,
    Assignment,
    ClaimRequest,
    Device,
    EpochRecord,
    ReportRequest,
    ResultRequest,
    TrialRelease,
    TrialResult,
)
from workers import side_thread
from workers.outbox import Message, Outbox, parts_of
from workers.patience import LONGEST_DELAY_SECONDS, Patience
from workers.side_thread import SideThreadFailed

DEVICES_SECONDS = 30.0
"""How often reports tell of the GPUs, so that the service knows them also during long trials."""


@dataclass(frozen=True)
class Claimed:
    """The answer to a claim: the trials now on lease, perhaps none."""

    trials: list[Assignment]


@dataclass(frozen=True)
class Answered:
    """The service's answer to a message's part about one lease; `final` if that part was to end it."""

    token: str
    final: bool
    answer: Answer


Tell = Callable[[Claimed | Answered | SideThreadFailed], None]


class Claimer:
    """Asks for trials; a claim that got no answer is repeated as it was, with its request id."""

    def __init__(self, client: Client, tell: Tell) -> None:
        self._client = client
        self._tell = tell
        self._requests: queue.SimpleQueue[ClaimRequest] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the thread."""
        side_thread.start("claimer", self._run, self._tell)

    def claim(self, request: ClaimRequest) -> None:
        """Have a claim made; `Claimed` follows."""
        self._requests.put(request)

    def _run(self) -> None:
        patience = Patience()
        while True:
            request = self._requests.get()
            while (reply := patience.attempt(partial(self._client.claim, request))) is None:
                time.sleep(patience.delay())
            self._tell(Claimed(reply.trials))


class Courier:
    """Brings the outbox's messages to the service, in order, each until it is answered.

    devices: the GPUs as they are now, to be told by the way.
    """

    def __init__(
        self,
        client: Client,
        worker_id: str,
        report_interval: float,
        tell: Tell,
        devices: Callable[[], list[Device]] = lambda: [],
    ) -> None:
        self._client = client
        self._devices = devices
        self._devices_told_at = -math.inf
        self._tell = tell
        self._outbox = Outbox(worker_id, report_interval)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = side_thread.start("courier", self._run, self._tell)

    def hold(self, assignment: Assignment) -> None:
        """Keep a lease alive from now on."""
        with self._changed:
            self._outbox.hold(assignment, time.monotonic())
            self._changed.notify()

    def add(self, token: str, epoch: EpochRecord) -> None:
        """Say that an epoch has ended."""
        with self._changed:
            self._outbox.add(token, epoch)
            self._changed.notify()

    def end(self, end: TrialResult | TrialRelease) -> None:
        """Say how a lease ends."""
        with self._changed:
            self._outbox.end(end)
            self._changed.notify()

    def drop(self, token: str) -> None:
        """Say no more about a lease."""
        with self._changed:
            self._outbox.drop(token)

    def close(self, seconds: float) -> int:
        """Say what is left within this time; the number of results and releases that could not be said."""
        with self._changed:
            self._outbox.hurry()
            self._closing.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)
        return self._outbox.unsaid

    def _run(self) -> None:
        patience = Patience()
        while (message := self._await_message()) is not None:
            reply = patience.attempt(partial(self._send, message))
            if reply is None:
                # A new epoch must not cut this short, but the end of the worker may.
                self._closing.wait(patience.delay(min(LONGEST_DELAY_SECONDS, self._outbox.heartbeat_seconds)))
                continue
            with self._changed:
                self._outbox.acknowledge(message, reply.trials, time.monotonic())
            final = not isinstance(message, ReportRequest)
            for part, answer in zip(parts_of(message), reply.trials, strict=True):
                self._tell(Answered(part.token, final, answer))

    def _await_message(self) -> Message | None:
        with self._changed:
            while (message := self._outbox.next(time.monotonic())) is None:
                if self._closing.is_set() and self._outbox.is_clear:
                    return None
                wait = self._outbox.next_at() - time.monotonic()
                self._changed.wait(min(max(wait, 0.0), threading.TIMEOUT_MAX))
            return message

    def _send(self, message: Message) -> Answers:
        if isinstance(message, ReportRequest):
            return self._report(message)
        if isinstance(message, ResultRequest):
            return self._client.finish(message)
        return self._client.release(message)

    def _report(self, message: ReportRequest) -> Answers:
        now = time.monotonic()
        due = now - self._devices_told_at >= DEVICES_SECONDS
        if not due or not (devices := self._devices()):
            return self._client.report(message)
        answers = self._client.report(message.model_copy(update={"devices": devices}))
        self._devices_told_at = now
        return answers
